"""Files that are there whole or not at all: atomic writing, locks, checkpoints, provenance."""
