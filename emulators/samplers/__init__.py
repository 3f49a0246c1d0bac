"""Samplers, one a file: from noise to a sample, by a network that restores fields."""
