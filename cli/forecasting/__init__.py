"""The side of `emul forecast` that knows configurations and folders: inputs, segments, manifest."""
