"""Read scenarios, or simulate them, fit emulators to them and write projections and scores."""
