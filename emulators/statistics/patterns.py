"""Leading patterns of maps: empirical orthogonal functions, weighted by area, and how like those of others they are.

    x(t, i) sqrt(w_i) = sum_k s_k u_k(t) e_k(i),      share of the variance  s_k^2 / sum s^2        (Lorenz 1956)
    sampling error of a share   share sqrt(2 / N*),    N* = N (1 - r^2) / (1 + r^2)

with r the autocorrelation of the mode's series from one time to the next. Modes whose shares differ by less than that
are mixed in any sample (North et al. 1982, doi 10.1175/1520-0493(1982)110<0699:SEITEO>2.0.CO;2; the effective number of
samples: Bretherton et al. 1999, doi 10.1175/1520-0442(1999)012<1990:TENOSD>2.0.CO;2). So are they compared one by one,
by |e_k . e'_k|, and all together, by how much of one subspace lies in the other, where mixing does not count:

    overlap = sum_kl (e_k . e'_l)^2 / K                                    (Krzanowski 1979, doi 10.2307/2286995)
"""

from __future__ import annotations

import numpy as np


class Patterns:
    """Hold the leading empirical orthogonal functions of maps, weighted by area (Lorenz 1956).

    maps: (sample, *grid). weights: areas, broadcast to the grid. count: the largest number of patterns.
    patterns: of unit length and weighted, (pattern, point). shares: of the variance, (pattern,).
    """

    def __init__(self, maps: np.ndarray, weights: np.ndarray, count: int) -> None:
        self.shape = maps.shape[1:]
        self.root = np.sqrt(np.broadcast_to(weights, self.shape)).ravel()
        self.mean = maps.mean(axis=0).ravel().astype(np.float64)
        rows = (maps.reshape(len(maps), -1) - self.mean) * self.root
        _, sizes, patterns = np.linalg.svd(rows, full_matrices=False)
        count = min(count, int((sizes > 1e-10 * max(sizes[0], 1e-300)).sum()))
        self.patterns = patterns[:count]
        self.shares = np.square(sizes[:count]) / max(np.square(sizes).sum(), 1e-300)

    def coefficients(self, maps: np.ndarray) -> np.ndarray:
        """Return the coefficients of maps (sample, *grid), (sample, pattern)."""
        return ((maps.reshape(len(maps), -1) - self.mean) * self.root) @ self.patterns.T

    def maps(self, coefficients: np.ndarray) -> np.ndarray:
        """Return the maps of coefficients (sample, pattern); points without area have their mean."""
        divisor = np.where(self.root > 0.0, self.root, np.inf)
        return (coefficients @ self.patterns / divisor + self.mean).reshape(-1, *self.shape)


def sampling_error(shares: np.ndarray, series: np.ndarray) -> np.ndarray:
    """Return the standard errors of shares of the variance (pattern,), from the series of several runs.

    series: of equal steps, (run, sample, pattern).
    """
    ahead, behind = series[:, 1:], series[:, :-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        memory = (ahead * behind).sum(axis=(0, 1)) / np.square(series).sum(axis=(0, 1))
    memory = np.clip(np.nan_to_num(memory), -0.99, 0.99)
    samples = series.shape[0] * series.shape[1] * (1.0 - np.square(memory)) / (1.0 + np.square(memory))
    return shares * np.sqrt(2.0 / samples)


def is_separate(shares: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Return which shares differ from both beside them by more than their error, (pattern,)."""
    gaps = np.concatenate([[np.inf], -np.diff(shares), [np.inf]])
    return np.minimum(gaps[:-1], gaps[1:]) > errors


def overlap(some: np.ndarray, others: np.ndarray) -> float:
    """Return how much of one subspace lies in another, 0 to 1; both orthonormal, (pattern, point)."""
    return float(np.square(some @ others.T).sum() / max(min(len(some), len(others)), 1))
