"""The side of `emul forecast` that opens what a forecast needs."""
