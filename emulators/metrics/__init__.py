"""Metrics, one a file: statistics of a pair of States, and a value of their means."""
