"""Simulate the embedded planet: moist primitive equations, physics, surface, geography."""
