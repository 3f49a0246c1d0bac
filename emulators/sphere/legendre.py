"""Rows of a grid with their weights, and associated Legendre functions on them with their derivatives.

    integral from -1 to 1 of f(mu) dmu  =  sum_k w_k f(mu_k),   sum_k w_k = 2

    gaussian                 exact for polynomials of degree <= 2 nlat - 1 (Gauss-Legendre)
    lobatto                  2 nlat - 3, both poles among the rows (Gauss-Lobatto)
    equiangular              nlat - 1 (Fejer's first rule)
    equiangular_with_poles   nlat - 1 (Clenshaw & Curtis 1960, doi 10.1007/BF01386223)

Legendre functions are normalised so that the spherical harmonics are orthonormal,

    Y_lm = P_lm(sin(latitude)) exp(i m longitude),   integral over mu of P_lm^2 = 1 / (2 pi)

by the three-term recurrence in l, started on the diagonal and scaled so that nothing underflows (Holmes & Featherstone
2002, doi 10.1007/s00190-002-0216-2).
What vector harmonics need follows from neighbouring orders, without a division, so that it holds at the poles too:

    dP_lm / dlatitude = (sqrt((l - m)(l + m + 1)) P_l,m+1 - sqrt((l + m)(l - m + 1)) P_l,m-1) / 2
    P_lm / cos        = sqrt((2l + 1) / (2l - 1)) (sqrt((l - m)(l - m - 1)) P_l-1,m+1
                                                   + sqrt((l + m)(l + m - 1)) P_l-1,m-1) / (2 m)

Without Condon-Shortley phase. All tables are float64, (orders - first, degrees, len(mu)), for the orders from `first`
on, and zero where l < m.
"""

from __future__ import annotations

import numpy as np

from emulators.grid import lobatto_rule

UPLIFT = 1e280  # seeds near the poles are that much too small for float64, and grow to 1 with the degree
MOST_DEGREES = 3600  # beyond, seeds are too small in spite of it


def legendre(degrees: int, orders: int, mu: np.ndarray, first: int = 0) -> np.ndarray:
    """Return P_lm(mu). Raises ValueError beyond `MOST_DEGREES`."""
    if degrees > MOST_DEGREES:
        raise ValueError(f"Legendre functions hold up to {MOST_DEGREES} degrees; got {degrees}. Ask for fewer.")
    order = np.arange(first, orders)[:, None]
    table = np.zeros((len(order), degrees, len(mu)))
    last, before = np.zeros((2, len(order), len(mu)))  # degrees l - 1 and l - 2, times UPLIFT
    cosine, seed = np.sqrt((1.0 - mu) * (1.0 + mu)), np.full(len(mu), UPLIFT / np.sqrt(4.0 * np.pi))
    for l in range(degrees):
        if l:
            seed = np.sqrt((2 * l + 1) / (2 * l)) * cosine * seed
        if l < first:
            continue
        count = min(orders, l) - first
        m = order[:count]
        a = np.sqrt((4.0 * l * l - 1.0) / (l * l - m * m))
        b = np.sqrt(((l - 1.0) ** 2 - m * m) / (4.0 * (l - 1.0) ** 2 - 1.0))
        before[:count] *= -a * b
        before[:count] += (a * mu) * last[:count]
        if l < orders:
            before[count] = seed
        last, before = before, last
        np.multiply(last, 1.0 / UPLIFT, out=table[:, l])
    return table


def legendre_derivative(degrees: int, orders: int, mu: np.ndarray, first: int = 0) -> np.ndarray:
    """Return dP_lm / dlatitude, per radian."""
    m, l = _indices(first, orders, degrees)
    before, after = _neighbours(degrees, orders, mu, first)
    derivative = 0.5 * (_root((l - m) * (l + m + 1)) * after - _root((l + m) * (l - m + 1)) * before)
    return derivative * (l >= m)


def legendre_over_cosine(degrees: int, orders: int, mu: np.ndarray, first: int = 0) -> np.ndarray:
    """Return P_lm / cos(latitude) for m > 0, where it is finite at the poles.

    Zero for m = 0, where it is not needed.
    """
    m, l = _indices(first, orders, degrees)
    before, after = _neighbours(degrees, orders, mu, first)
    quotient = np.zeros_like(before)
    quotient[:, 1:] = (_root((l - m) * (l - m - 1))[:, 1:] * after[:, :-1]) + (
        _root((l + m) * (l + m - 1))[:, 1:] * before[:, :-1]
    )
    scale = np.sqrt((2 * l + 1) / np.maximum(2 * l - 1, 1)) / (2 * np.maximum(m, 1))
    return quotient * scale * ((l >= m) & (m > 0))


def _neighbours(degrees: int, orders: int, mu: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Return P_l,m-1 and P_l,m+1; P_l,-1 = -P_l,1."""
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


def nodes(kind: str, nlat: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mu = sin(latitude) and the weights, both (lat,), from north to south, of a kind of grid.

    Use these in place of a grid's own latitudes, which files often hold rounded to a few digits.
    """
    if kind == "gaussian":
        mu, weights = np.polynomial.legendre.leggauss(nlat)
        return mu[::-1].copy(), weights[::-1].copy()
    if kind == "lobatto":
        return lobatto_rule(nlat)
    shift = 0.0 if kind == "equiangular_with_poles" else 0.5
    colatitude = (np.arange(nlat) + shift) * np.pi / (nlat - 1 + 2 * shift)
    return np.cos(colatitude), _cosine_weights(colatitude, ends=shift == 0.0)


def _cosine_weights(colatitude: np.ndarray, ends: bool) -> np.ndarray:
    """Return the weights that integrate every cosine series in colatitude that the rows resolve, term by term."""
    n = len(colatitude)
    degree = np.arange(0, n, 2)
    integrals = 2.0 / (1.0 - degree**2.0)  # of cos(k theta) sin(theta)
    series = np.cos(np.outer(colatitude, degree)) * np.where(degree == 0, 1.0, 2.0) / (n - ends)
    if ends:  # end rows, and the last cosine, count half
        series[[0, -1]] *= 0.5
        series[:, degree == n - 1] *= 0.5
    return series @ integrals
