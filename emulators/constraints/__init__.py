"""Constraints, one a file: they return a State that obeys a law."""
