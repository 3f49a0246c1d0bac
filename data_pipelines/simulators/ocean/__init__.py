"""A small ocean of a few layers: its equations, and how stores are made of them."""
