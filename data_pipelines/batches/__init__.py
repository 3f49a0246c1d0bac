"""From a dataset to training batches: World, scales, windows, loader."""
