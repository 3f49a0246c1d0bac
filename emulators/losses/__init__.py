"""Losses, one a file: two States in, one number a lead element out."""
