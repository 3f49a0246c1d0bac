"""The side of `emul train` that knows configurations and folders: resume, checkpoints, logs."""
