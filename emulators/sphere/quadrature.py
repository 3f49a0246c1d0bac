"""Rows of a grid and the weights with which sums over them are integrals over sin(latitude).

integral from -1 to 1 of f(mu) dmu  =  sum_k w_k f(mu_k),   sum_k w_k = 2

gaussian                 exact for polynomials of degree <= 2 nlat - 1 (Gauss-Legendre)
lobatto                  2 nlat - 3, both poles among the rows (Gauss-Lobatto)
equiangular              nlat - 1 (Fejer's first rule)
equiangular_with_poles   nlat - 1 (Clenshaw & Curtis 1960, doi 10.1007/BF01386223)
"""

from __future__ import annotations

import numpy as np

from emulators.grid import lobatto_rule


def nodes(kind: str, nlat: int) -> tuple[np.ndarray, np.ndarray]:
    """mu = sin(latitude) and w, both (lat,), from north to south, of a grid's kind.

    To be used in place of a grid's own latitudes, which files often hold rounded to a few digits.
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
    """Weights that integrate every cosine series in colatitude that the rows hold, term by term."""
    n = len(colatitude)
    degree = np.arange(0, n, 2)
    integrals = 2.0 / (1.0 - degree**2.0)  # of cos(k theta) sin(theta)
    series = np.cos(np.outer(colatitude, degree)) * np.where(degree == 0, 1.0, 2.0) / (n - ends)
    if ends:  # end rows, and the last cosine, count half
        series[[0, -1]] *= 0.5
        series[:, degree == n - 1] *= 0.5
    return series @ integrals
