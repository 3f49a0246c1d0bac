"""Simulate small chaotic systems, and make stores of the results."""
