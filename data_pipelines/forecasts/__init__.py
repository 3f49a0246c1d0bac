"""A forecast on disk: layout, segments, checks, manifest, writers."""
