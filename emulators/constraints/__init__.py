"""Constraints, one a file: each returns a State that obeys a law."""
