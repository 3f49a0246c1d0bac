"""Fourth-order time schemes: classical Runge-Kutta, and exponential Runge-Kutta for stiff linear terms.

    dy/dt = L y + N(y),   L diagonal,  z = L step,  E = exp(z / 2)

    a = E y + P N(y),   b = E y + P N(a),   c = E a + P (2 N(b) - N(y)),   P = step (exp(z / 2) - 1) / z
    y' = exp(z) y + alpha N(y) + 2 beta (N(a) + N(b)) + gamma N(c)

    alpha = step (-4 - z + exp(z) (4 - 3 z + z^2)) / z^3,     beta = step (2 + z + exp(z) (z - 2)) / z^3,
    gamma = step (-4 - 3 z - z^2 + exp(z) (4 - z)) / z^3

(ETDRK4: Cox & Matthews 2002, doi 10.1006/jcph.2002.6995.) Evaluated directly, the coefficients lose all digits at
small z; they are computed as means over a circle around z (Kassam & Trefethen 2005, doi 10.1137/S1064827502410633).
With L = 0 the scheme is the classical one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

CIRCLE_POINTS = 64
Tendency = Callable[[Tensor], Tensor]


def runge_kutta(tendency: Tendency, state: Tensor, step: float) -> Tensor:
    """Advance `state` by `step` with the classical fourth-order scheme (Kutta 1901)."""
    first = tendency(state)
    second = tendency(state + 0.5 * step * first)
    third = tendency(state + 0.5 * step * second)
    fourth = tendency(state + step * third)
    return state + step / 6.0 * (first + 2.0 * (second + third) + fourth)


class ExponentialRungeKutta:
    """Advance states with ETDRK4, for one linear term and one step.

    linear: the diagonal of L, real; its shape broadcasts with the state. dtype: of the coefficients.
    """

    def __init__(self, linear: np.ndarray, step: float, dtype: torch.dtype = torch.float64) -> None:
        z = np.asarray(linear, dtype=np.float64) * step
        angles = np.pi * (np.arange(CIRCLE_POINTS) + 0.5) / CIRCLE_POINTS  # on the upper half circle, as L is real
        r = z[..., None] + np.exp(1j * angles)
        e = np.exp(r)
        tables = (
            np.exp(z),
            np.exp(0.5 * z),
            step * ((np.exp(0.5 * r) - 1.0) / r).mean(-1).real,
            step * ((-4.0 - r + e * (4.0 - 3.0 * r + r * r)) / r**3).mean(-1).real,
            step * 2.0 * ((2.0 + r + e * (r - 2.0)) / r**3).mean(-1).real,
            step * ((-4.0 - 3.0 * r - r * r + e * (4.0 - r)) / r**3).mean(-1).real,
        )
        self._whole, self._half, self._partial, self._first, self._middle, self._last = (
            torch.from_numpy(np.ascontiguousarray(table)).to(dtype) for table in tables
        )

    def __call__(self, tendency: Tendency, state: Tensor) -> Tensor:
        """Return the state one step later. tendency: N, without the linear term."""
        first = tendency(state)
        decayed = self._half * state
        near = decayed + self._partial * first
        second = tendency(near)
        third = tendency(decayed + self._partial * second)
        fourth = tendency(self._half * near + self._partial * (2.0 * third - first))
        return self._whole * state + self._first * first + self._middle * (second + third) + self._last * fourth
