"""Pairs of forecast and truth, baselines, climatologies and score files."""
