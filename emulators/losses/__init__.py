"""Losses, one a file: each maps two States to one number for each lead element."""
