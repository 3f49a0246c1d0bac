"""Score formulas as pure functions, used by losses and metrics alike."""
