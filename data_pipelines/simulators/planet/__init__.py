"""The planet: moist primitive equations, physics, surface, geography."""
