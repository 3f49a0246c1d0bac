"""Make training batches from a dataset: World, scales, windows, loader."""
