"""Sweeps: their axes, searches and trials."""
