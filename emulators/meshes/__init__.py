"""Meshes on the sphere and on limited areas, and the edges along which mesh networks pass messages."""
