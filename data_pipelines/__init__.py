"""Files into States, States into files."""
