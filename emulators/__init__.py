"""Emulators of weather and climate: their words, their parts and the loops that run them."""
