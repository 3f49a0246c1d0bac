"""How size and data share a budget of operations: the frontier of a law, curves of equal operations, their exponents.

Exponents a and b of N ~ C^a and D ~ C^b are told three ways (Hoffmann et al. 2022, arXiv 2203.15556): by the best split
of a law, by the minima of parabolas through runs of equal operations, and by the runs that no cheaper one beats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from emulators.scaling.fitting import Fit, resampled
from emulators.scaling.laws import SATURATING, Parabola, Runs, best_split, envelope, parabola, parabola_bias, power_of
from emulators.scaling.study import Cost

Rate = Callable[[np.ndarray], np.ndarray]
Interval = tuple[float, float, float]  # value, lower and upper end
Exponents = Mapping[str, Interval | None]  # of `size` and of `data`
REACH = 30.0  # times beyond the sizes that were run, to which the best is sought
MINIMA, ENVELOPE = "minima of equal operations", "envelope of the runs"


@dataclass(frozen=True)
class Frontier:
    """Hold the best size, data and loss at each budget, with intervals: arrays (3, budget), value, lower, upper."""

    compute: np.ndarray
    size: np.ndarray
    data: np.ndarray
    loss: np.ndarray


@dataclass(frozen=True)
class IsoFlop:
    """Hold the runs of one budget, interpolated along durations, and the parabola through them.

    bias: by what factor such a parabola misses the best size of the frontier's law, were it without noise.
    """

    compute: float
    size: np.ndarray
    loss: np.ndarray
    parabola: Parabola
    bias: float


def power_through(x: np.ndarray, y: np.ndarray) -> Rate:
    """A function through points of positive coordinates, straight in logarithms, and on beyond the ends."""
    order = np.argsort(x)
    a, b = np.log(np.asarray(x, dtype=np.float64)[order]), np.log(np.asarray(y, dtype=np.float64)[order])
    slopes = (b[1] - b[0]) / (a[1] - a[0]), (b[-1] - b[-2]) / (a[-1] - a[-2])

    def through(values: np.ndarray) -> np.ndarray:
        at = np.log(values)
        log_values = np.interp(at, a, b) + np.minimum(at - a[0], 0) * slopes[0] + np.maximum(at - a[-1], 0) * slopes[1]
        return np.exp(log_values)

    return through


def rate_of(costs: Mapping[int, Cost], facts: Mapping[str, Any], cooldown: float) -> Rate:
    """Operations a unit of data by size, through the measured sizes. costs: by width. facts: `batch` and `points`."""
    size = np.array([cost.parameters for cost in costs.values()])
    step = np.array([cost.steps_cost(cooldown) for cost in costs.values()])
    return power_through(size, step / (facts["batch"] * facts["points"]))


def searched(sizes: np.ndarray, beyond: float = 1.0) -> tuple[float, float]:
    """The sizes among which the best is sought: 30 times to either side of those that were run.

    beyond: the budget over the largest that was measured; no law lets sizes grow faster than budgets.
    """
    return float(sizes.min()) / REACH * min(beyond, 1.0), float(sizes.max()) * REACH * max(beyond, 1.0)


def splits(law_fit: Fit, budgets: np.ndarray, rate: Rate, sizes: tuple[float, float]) -> bool:
    """Whether the law has a best size within the sizes searched at each of these budgets."""
    best, _, _ = best_split(law_fit.law, law_fit.parameters, budgets, rate, sizes, law_fit.runs.unique)
    return bool((best > sizes[0] * 1.001).all() and (best < sizes[1] / 1.001).all())


def splitting(
    fits: Mapping[str, Fit], ranking: Sequence[str], budgets: np.ndarray, rate: Rate, sizes: tuple[float, float]
) -> str | None:
    """The first law of a ranking that has a best size at each of these budgets; None where none has.

    A law may describe runs well and have none: beyond some budget Farseer's exponentials fall faster with size than
    any data are worth, and its least loss lies at whatever size the search ends.
    """
    return next((name for name in ranking if splits(fits[name], budgets, rate, sizes)), None)


def frontier_of(
    law_fit: Fit, budgets: np.ndarray, rate: Rate, sizes: tuple[float, float], level: float = 0.90
) -> Frontier:
    """The best split of each budget, with intervals of the replicates."""
    unique = law_fit.runs.unique
    middle = best_split(law_fit.law, law_fit.parameters, budgets, rate, sizes, unique)
    assert law_fit.replicates is not None
    drawn = best_split(law_fit.law, law_fit.replicates, budgets, rate, sizes, unique)
    tails = [(1 - level) / 2, (1 + level) / 2]
    return Frontier(
        budgets, *(np.stack([m, *np.quantile(d, tails, axis=0)]) for m, d in zip(middle, drawn, strict=True))
    )


def equal_operations(runs: Runs, count: int = 5) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """Operations, sizes and losses of curves of equal operations that three sizes or more reach.

    Each size is interpolated along its durations in logarithms, never extrapolated.
    """
    curves = []
    for compute in np.geomspace(runs.compute.min(), runs.compute.max(), count + 2)[1:-1]:
        points = []
        for size in np.unique(runs.size):
            of_size = runs.size == size
            durations = np.unique(runs.compute[of_size])
            if len(durations) > 1 and durations[0] <= compute * (1 + 1e-9) and compute <= durations[-1] * (1 + 1e-9):
                losses = [np.log(runs.loss[of_size & (runs.compute == duration)]).mean() for duration in durations]
                points.append((size, np.exp(np.interp(np.log(compute), np.log(durations), losses))))
        if len(points) >= 3:
            size, loss = np.array(points).T
            curves.append((float(compute), size, loss))
    return curves


def isoflops(runs: Runs, law_fit: Fit, rate: Rate) -> list[IsoFlop]:
    """Curves of equal operations with parabolas through them, and what the law says of the bias of each."""
    return [
        IsoFlop(
            compute,
            size,
            loss,
            parabola(compute, size, loss),
            parabola_bias(law_fit.law, law_fit.parameters, compute, size, rate, runs.unique),
        )
        for compute, size, loss in equal_operations(runs)
    ]


def law_exponents(law_fit: Fit, budgets: np.ndarray, rate: Rate, level: float = 0.95) -> Exponents:
    """Exponents of the best split of a law over the budgets, with intervals of its replicates; None without a split."""
    sizes = searched(law_fit.runs.size)
    if law_fit.law is SATURATING or not splits(law_fit, budgets, rate, sizes):
        return {"size": None, "data": None}
    offset = np.log(budgets) - np.log(budgets).mean()

    def slope(which: int, parameters: np.ndarray) -> np.ndarray:
        best = best_split(law_fit.law, parameters, budgets, rate, sizes, law_fit.runs.unique)[which]
        return np.log(best) @ offset / (offset @ offset)

    told = {}
    for k, name in enumerate(("size", "data")):
        of_one = partial(slope, k)
        told[name] = (float(of_one(law_fit.parameters)), *law_fit.interval(of_one, level))
    return told


def run_exponents(
    law_fit: Fit, rate: Rate, groups: np.ndarray | None = None, replicates: int = 200, level: float = 0.95
) -> dict[str, Exponents]:
    """Exponents of parabolas' minima and of the envelope, with intervals over runs drawn anew about a law.

    None where fewer than three minima lie within the sizes run, or three runs on the envelope, or where that is so of
    half of the replicates.
    """
    found = _of_runs(law_fit.runs, rate)
    drawn = [
        _of_runs(Runs(law_fit.runs.size, law_fit.runs.data, np.exp(logs), law_fit.runs.compute), rate)
        for logs in resampled(law_fit, replicates, 0, groups)
    ]
    tails = [(1 - level) / 2, (1 + level) / 2]
    told: dict[str, Exponents] = {}
    for way, values in found.items():
        pairs = np.array([pair for one in drawn if (pair := one[way]) is not None])
        if values is None or 2 * len(pairs) < replicates:
            told[way] = {"size": None, "data": None}
            continue
        low, high = np.quantile(pairs, tails, axis=0)
        told[way] = {name: (float(values[k]), float(low[k]), float(high[k])) for k, name in enumerate(("size", "data"))}
    return told


def _of_runs(runs: Runs, rate: Rate) -> dict[str, tuple[float, float] | None]:
    """Exponents of size and of data by the minima and by the envelope; None where there are fewer than three."""
    parabolas = [parabola(*curve) for curve in equal_operations(runs)]
    minima = np.array([(one.compute, one.size) for one in parabolas if one.inside]).reshape(-1, 2)
    best = runs.subset(envelope(runs))
    ways = {
        MINIMA: (minima[:, 0], minima[:, 1], minima[:, 0] / rate(minima[:, 1])),
        ENVELOPE: (best.compute, best.size, best.data),
    }
    return {
        way: None if len(compute) < 3 else (power_of(compute, size)[0], power_of(compute, data)[0])
        for way, (compute, size, data) in ways.items()
    }
