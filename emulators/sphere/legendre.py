"""Associated Legendre functions, normalised so that the spherical harmonics are orthonormal, and their derivatives.

    Y_lm = P_lm(sin(latitude)) exp(i m longitude),   integral over mu of P_lm^2 = 1 / (2 pi)

by the three-term recurrence in l, started on the diagonal (Holmes & Featherstone 2002, doi 10.1007/s00190-002-0216-2).
What vector harmonics need follows from neighbouring orders, without a division, so that it holds at the poles too:

    dP_lm / dlatitude = (sqrt((l - m)(l + m + 1)) P_l,m+1 - sqrt((l + m)(l - m + 1)) P_l,m-1) / 2
    P_lm / cos        = sqrt((2l + 1) / (2l - 1)) (sqrt((l - m)(l - m - 1)) P_l-1,m+1
                                                   + sqrt((l + m)(l + m - 1)) P_l-1,m-1) / (2 m)

Without Condon-Shortley phase. All tables are float64, (orders - first, degrees, len(mu)), for the orders from `first`
on, and zero where l < m.
"""

from __future__ import annotations

import numpy as np


def legendre(degrees: int, orders: int, mu: np.ndarray, first: int = 0) -> np.ndarray:
    """P_lm(mu)."""
    table = np.zeros((max(orders - first, 0), degrees, len(mu)))
    diagonal, cosine = np.full(len(mu), np.sqrt(1.0 / (4.0 * np.pi))), np.sqrt(1.0 - mu * mu)
    for m in range(min(orders, degrees)):
        if m:
            diagonal = np.sqrt((2 * m + 1) / (2 * m)) * cosine * diagonal
        if m >= first:
            table[m - first, m] = diagonal
            if m + 1 < degrees:
                table[m - first, m + 1] = np.sqrt(2 * m + 3) * mu * diagonal
    for l in range(first + 2, degrees):
        order = np.arange(first, min(orders, l - 1))[:, None]
        a = np.sqrt((4.0 * l * l - 1.0) / (l * l - order * order))
        b = np.sqrt(((l - 1.0) ** 2 - order * order) / (4.0 * (l - 1.0) ** 2 - 1.0))
        done = table[: len(order)]
        done[:, l] = a * (mu * done[:, l - 1] - b * done[:, l - 2])
    return table


def legendre_derivative(degrees: int, orders: int, mu: np.ndarray, first: int = 0) -> np.ndarray:
    """dP_lm / dlatitude, per radian."""
    m, l = _indices(first, orders, degrees)
    before, after = _neighbours(degrees, orders, mu, first)
    derivative = 0.5 * (_root((l - m) * (l + m + 1)) * after - _root((l + m) * (l - m + 1)) * before)
    return derivative * (l >= m)


def legendre_over_cosine(degrees: int, orders: int, mu: np.ndarray, first: int = 0) -> np.ndarray:
    """P_lm / cos(latitude) for m > 0, where it is finite at the poles; zero for m = 0, where nothing asks for it."""
    m, l = _indices(first, orders, degrees)
    before, after = _neighbours(degrees, orders, mu, first)
    quotient = np.zeros_like(before)
    quotient[:, 1:] = (_root((l - m) * (l - m - 1))[:, 1:] * after[:, :-1]) + (
        _root((l + m) * (l + m - 1))[:, 1:] * before[:, :-1]
    )
    scale = np.sqrt((2 * l + 1) / np.maximum(2 * l - 1, 1)) / (2 * np.maximum(m, 1))
    return quotient * scale * ((l >= m) & (m > 0))


def _neighbours(degrees: int, orders: int, mu: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
    """P_l,m-1 and P_l,m+1; P_l,-1 = -P_l,1."""
    if first:
        table = legendre(degrees, orders + 1, mu, first - 1)
    else:
        table = legendre(degrees, orders + 1, mu)
        table = np.concatenate([-table[1:2], table])
    return table[:-2], table[2:]


def _indices(first: int, orders: int, degrees: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(first, orders)[:, None, None], np.arange(degrees)[None, :, None]


def _root(squares: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(squares, 0))
