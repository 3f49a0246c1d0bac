"""Transformer and attention layers, patches and embeddings."""
