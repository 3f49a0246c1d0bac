"""Leading patterns of maps: empirical orthogonal functions, weighted by area (Lorenz 1956)."""

from __future__ import annotations

import numpy as np


class Patterns:
    """Hold the leading empirical orthogonal functions of maps, weighted by area (Lorenz 1956).

    maps: (sample, lat, lon). weights: areas, broadcast to (lat, lon). count: the largest number of patterns.
    """

    def __init__(self, maps: np.ndarray, weights: np.ndarray, count: int) -> None:
        self.shape = maps.shape[1:]
        self.root = np.sqrt(np.broadcast_to(weights, self.shape)).ravel()
        self.mean = maps.mean(axis=0).ravel().astype(np.float64)
        rows = (maps.reshape(len(maps), -1) - self.mean) * self.root
        _, sizes, patterns = np.linalg.svd(rows, full_matrices=False)
        count = min(count, int((sizes > 1e-10 * max(sizes[0], 1e-300)).sum()))
        self.patterns = patterns[:count]

    def coefficients(self, maps: np.ndarray) -> np.ndarray:
        """Return the coefficients of maps (sample, lat, lon), (sample, pattern)."""
        return ((maps.reshape(len(maps), -1) - self.mean) * self.root) @ self.patterns.T

    def maps(self, coefficients: np.ndarray) -> np.ndarray:
        """Return the maps of coefficients (sample, pattern); points without area have their mean."""
        divisor = np.where(self.root > 0.0, self.root, np.inf)
        return (coefficients @ self.patterns / divisor + self.mean).reshape(-1, *self.shape)
