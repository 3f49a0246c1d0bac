"""The law of loss curves under annealing of the learning rate: one fit to every step of every schedule.

    L(s) = L0 + A S1^-alpha - C S2,    S1 = sum eta_i,    S2 = sum m_i,    m_i = lambda m_(i-1) + eta_(i-1) - eta_i

eta is the rate as a share of its peak; a warm-up counts as the peak, so that it takes nothing from S2. Tissue et al.
2024, arXiv 2408.11029.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize
from scipy.signal import lfilter

MEMORIES = (0.98, 0.99, 0.995, 0.998, 0.999)  # of lambda, which are tried


def areas(rates: np.ndarray, memory: float = 0.99) -> tuple[np.ndarray, np.ndarray]:
    """S1 and S2 after every step of a schedule. rates: (step,), as a share of the peak. memory: lambda."""
    peak = int(np.argmax(rates))
    rates = np.concatenate([np.full(peak, rates[peak]), rates[peak:]])
    drops = -np.diff(rates, prepend=rates[0])
    momentum = lfilter([1.0], [1.0, -memory], drops)
    return np.cumsum(rates), np.cumsum(momentum)


@dataclass(frozen=True)
class LossCurve:
    """Hold the loss of one run. rates: of every step. steps: at which the loss was read, from 1. loss: (reading,)."""

    rates: np.ndarray
    steps: np.ndarray
    loss: np.ndarray


@dataclass(frozen=True)
class AnnealingLaw:
    """Hold L0, A, alpha, C and lambda, and the root mean square of log L minus the law."""

    floor: float
    factor: float
    exponent: float
    gain: float
    memory: float
    error: float

    @property
    def parameters(self) -> dict[str, float]:
        """All but the error, by name."""
        return {name: value for name, value in vars(self).items() if name != "error"}

    def loss(self, rates: np.ndarray) -> np.ndarray:
        """The loss after every step of a schedule."""
        first, second = areas(rates, self.memory)
        return self.floor + self.factor * first**-self.exponent - self.gain * second


def fit_annealing(curves: Sequence[LossCurve]) -> AnnealingLaw:
    """Fit the law to whole curves of one size: L0, A, C >= 0 by least squares of L / law within a search over alpha.

    lambda is the best of MEMORIES. ValueError for fewer than five readings.
    """
    if sum(len(curve.loss) for curve in curves) < 5:
        raise ValueError("The law of annealing needs five readings of the loss or more.")
    loss = np.concatenate([curve.loss for curve in curves])
    best: tuple[float, float, float, np.ndarray] | None = None
    for memory in MEMORIES:
        pairs = [areas(curve.rates, memory) for curve in curves]
        first, second = (
            np.concatenate([p[k][c.steps - 1] for p, c in zip(pairs, curves, strict=True)]) for k in (0, 1)
        )

        def inner(exponent: float, first: np.ndarray = first, second: np.ndarray = second) -> tuple[float, np.ndarray]:
            columns = np.stack([np.ones_like(first), (first / first[0]) ** -exponent, -second], -1)
            solved, rest = optimize.nnls(columns / loss[:, None], np.ones_like(loss))
            return rest, solved

        grid = np.geomspace(0.05, 3.0, 16)
        start = int(np.argmin([inner(x)[0] for x in grid]))
        bounds = grid[max(start - 1, 0)], grid[min(start + 1, 15)]
        exponent = optimize.minimize_scalar(lambda x: inner(x)[0], bounds=bounds, method="bounded").x
        rest, solved = inner(exponent)
        if best is None or rest < best[0]:
            best = rest, float(exponent), memory, solved * [1.0, first[0] ** exponent, 1.0]
    assert best is not None
    rest, exponent, memory, (floor, factor, gain) = best
    return AnnealingLaw(floor, factor, exponent, gain, memory, rest / np.sqrt(len(loss)))


def annealing_intervals(
    curves: Sequence[LossCurve], law: AnnealingLaw, replicates: int = 100, block: int = 5, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Intervals of 90 % of the parameters of a fitted law: it is fitted again to itself times resampled errors.

    Errors of the fit are drawn in blocks of so many neighbouring readings, as losses read one after the other err alike
    (Kunsch 1989, doi 10.1214/aos/1176347265). That sizes, seeds and the law itself might be others is not in them.
    """
    chance, fitted = np.random.default_rng(seed), [law.loss(curve.rates)[curve.steps - 1] for curve in curves]
    errors = np.concatenate([curve.loss / expected for curve, expected in zip(curves, fitted, strict=True)])
    blocks = np.lib.stride_tricks.sliding_window_view(errors, min(block, len(errors)))
    drawn = []
    for _ in range(replicates):
        again = []
        for curve, expected in zip(curves, fitted, strict=True):
            picked = blocks[chance.integers(len(blocks), size=-(-len(expected) // blocks.shape[1]))]
            again.append(replace(curve, loss=expected * picked.reshape(-1)[: len(expected)]))
        drawn.append([*fit_annealing(again).parameters.values()])
    low, high = np.quantile(drawn, [0.05, 0.95], axis=0)
    return {name: (float(a), float(b)) for name, a, b in zip(law.parameters, low, high, strict=True)}


def smoothed(steps: np.ndarray, loss: np.ndarray, readings: int = 40, skip: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Average the loss of batches over intervals of equal length in log step. skip: first steps that are left out.

    Returns steps (geometric means, whole) and losses.
    """
    usable = (steps > skip) & np.isfinite(loss)
    steps, loss = steps[usable], loss[usable]
    if not len(steps):
        return steps.astype(int), loss
    edges = np.geomspace(steps[0], steps[-1] + 1, readings + 1)
    place = np.digitize(steps, edges)
    groups = np.unique(place)
    middle = np.array([np.exp(np.log(steps[place == group]).mean()) for group in groups])
    return middle.round().astype(int), np.array([loss[place == group].mean() for group in groups])
