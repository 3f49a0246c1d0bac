"""Accumulators over pairs of forecast and truth."""
