"""The side of `emul eval` that knows configurations and folders: inputs, baselines, partial sums."""
