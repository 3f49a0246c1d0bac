"""Configurations and run folders of `emul train`: assembly, resuming, loggers, and `open_run`."""
