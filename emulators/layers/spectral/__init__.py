"""Layers in spherical-harmonic space."""
