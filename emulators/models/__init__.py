"""Networks, one a file: normalised fields in, normalised fields out."""
