"""Associated Legendre functions, normalised so that the spherical harmonics are orthonormal.

    Y_lm = P_lm(sin(latitude)) exp(i m longitude),   integral over mu of P_lm^2 = 1 / (2 pi)

by the three-term recurrence in l, started on the diagonal (Holmes & Featherstone 2002, doi 10.1007/s00190-002-0216-2).
Without Condon-Shortley phase.
"""

from __future__ import annotations

import numpy as np


def legendre(degrees: int, orders: int, mu: np.ndarray) -> np.ndarray:
    """P_lm(mu), float64, shape (orders, degrees, len(mu)); zero where l < m."""
    size = max(degrees, orders)
    table = np.zeros((size, size, len(mu)))
    cosine = np.sqrt(1.0 - mu * mu)
    table[0, 0] = np.sqrt(1.0 / (4.0 * np.pi))
    for l in range(1, size):
        table[l, l] = np.sqrt((2 * l + 1) / (2 * l)) * cosine * table[l - 1, l - 1]
        table[l - 1, l] = np.sqrt(2 * l + 1) * mu * table[l - 1, l - 1]
    for l in range(2, size):
        m = np.arange(l - 1)[:, None]
        a = np.sqrt((4.0 * l * l - 1.0) / (l * l - m * m))
        b = np.sqrt(((l - 1.0) ** 2 - m * m) / (4.0 * (l - 1.0) ** 2 - 1.0))
        table[: l - 1, l] = a * (mu * table[: l - 1, l - 1] - b * table[: l - 1, l - 2])
    return table[:orders, :degrees]


def legendre_slope(degrees: int, orders: int, mu: np.ndarray) -> np.ndarray:
    """(1 - mu^2) dP_lm/dmu = cos(latitude) dP_lm/dlatitude, float64, shape (orders, degrees, len(mu))."""
    table = legendre(degrees + 1, orders, mu)
    m = np.arange(orders)[:, None, None]
    l = np.arange(degrees + 1)[None, :, None]
    epsilon = np.sqrt(np.maximum(l * l - m * m, 0) / (4.0 * l * l - 1.0))
    slope = -l[:, :degrees] * epsilon[:, 1:] * table[:, 1:]
    slope[:, 1:] += (l[:, 1:degrees] + 1) * epsilon[:, 1:degrees] * table[:, : degrees - 1]
    return slope * (l[:, :degrees] >= m)
