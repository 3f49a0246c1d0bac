"""Convolutional layers and padding on the sphere."""
