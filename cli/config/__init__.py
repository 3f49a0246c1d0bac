"""Compose a configuration, find its faults without importing anything, build its parts."""
