"""Small modules that networks are made of."""
