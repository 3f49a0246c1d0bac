"""Networks, one a file: each maps normalised fields to normalised fields."""
