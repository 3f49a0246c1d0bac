"""Objectives, one a file: how a network is trained."""
