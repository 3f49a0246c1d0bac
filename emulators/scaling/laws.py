"""Scaling laws: the loss of a network by its size N, the data D that it has seen and the operations C that it has cost.

    chinchilla   L = E + A N^-alpha + B D^-beta
    kaplan       L = [(N_c / N)^(alpha_N / alpha_D) + D_c / D]^alpha_D
    farseer      L = exp(a3 N^gamma + b3) + exp(a2 N^beta + b2) D^-exp(a1 N^alpha + b1)
    repetition   chinchilla with D' = U + U R (1 - exp(-(D / U - 1) / R)) in place of D > U unique data
    saturating   L = E + B D^-beta

Hoffmann et al. 2022, arXiv 2203.15556; Kaplan et al. 2020, arXiv 2001.08361; Farseer, Li et al. 2025, arXiv 2506.10972;
repetition, Muennighoff et al. 2023, arXiv 2305.16264. What must be positive is a parameter by its logarithm. A law
takes complex parameters, so that its derivatives are exact: f'(x) = Im f(x + ih) / h (Squire & Trapp 1998, doi
10.1137/S003614459631241X).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

STEP = 1e-30  # of complex differences, which cancel nothing


@dataclass(frozen=True)
class Runs:
    """Hold measured runs, each array (run,).

    size: parameters N. data: D, in any unit. loss: positive. compute: operations C. unique: data U that there are
    before they repeat; infinite where they never do.
    """

    size: np.ndarray
    data: np.ndarray
    loss: np.ndarray
    compute: np.ndarray
    unique: np.ndarray | float = np.inf

    def __post_init__(self) -> None:
        fields = {"size": self.size, "data": self.data, "loss": self.loss, "compute": self.compute}
        for name, field in fields.items():
            values = np.asarray(field, dtype=np.float64)
            if not (np.isfinite(values) & (values > 0)).all():
                raise ValueError(f"Expected {name} to be finite and positive in every run; got {values.min()}.")
            object.__setattr__(self, name, values)

    def __len__(self) -> int:
        return len(self.loss)

    def subset(self, which: np.ndarray) -> Runs:
        """The runs at an index, a mask or a slice."""
        unique = self.unique[which] if isinstance(self.unique, np.ndarray) else self.unique
        return Runs(self.size[which], self.data[which], self.loss[which], self.compute[which], unique)


@dataclass(frozen=True)
class Law:
    """Hold a law: the names of its parameters and the logarithm of its loss.

    log_loss: of parameters (..., parameter) and runs, (..., run). starts: for a fit, (start, parameter).
    """

    name: str
    parameters: tuple[str, ...]
    log_loss: Callable[[np.ndarray, Runs], np.ndarray]
    starts: Callable[[Runs], np.ndarray]

    def loss(self, parameters: np.ndarray, runs: Runs) -> np.ndarray:
        """The loss that the law expects of each run."""
        return np.exp(self.log_loss(np.asarray(parameters), runs))

    def jacobian(self, parameters: np.ndarray, runs: Runs) -> np.ndarray:
        """Derivatives of the logarithm of the loss by the parameters, (..., run, parameter)."""
        moved = parameters[..., None, :] + 1j * STEP * np.eye(len(self.parameters))
        return np.moveaxis(self.log_loss(moved, runs).imag / STEP, -2, -1)

    def plain(self, parameters: np.ndarray) -> dict[str, np.ndarray]:
        """Parameters by name, those given by their logarithm (`log A`) as they are (`A`)."""
        pairs = zip(self.parameters, np.moveaxis(np.asarray(parameters), -1, 0), strict=True)
        return {n.removeprefix("log "): np.exp(v) if n.startswith("log ") else v for n, v in pairs}


def log_sum(*terms: np.ndarray) -> np.ndarray:
    """The logarithm of a sum of exponentials, of complex numbers too."""
    shift = reduce(np.maximum, [term.real for term in terms])
    return shift + np.log(reduce(np.add, [np.exp(term - shift) for term in terms]))


def _columns(parameters: np.ndarray) -> list[np.ndarray]:
    return [parameters[..., k, None] for k in range(parameters.shape[-1])]


def _chinchilla(parameters: np.ndarray, runs: Runs) -> np.ndarray:
    a, b, e, alpha, beta = _columns(parameters)
    return log_sum(a - alpha * np.log(runs.size), b - beta * np.log(runs.data), e)


def _kaplan(parameters: np.ndarray, runs: Runs) -> np.ndarray:
    critical_size, critical_data, alpha, beta = _columns(parameters)
    sizes, data = critical_size - np.log(runs.size), critical_data - np.log(runs.data)
    return beta * log_sum(sizes * alpha / beta, data + 0.0 * sizes)


def _repetition(parameters: np.ndarray, runs: Runs) -> np.ndarray:
    repeats = np.maximum(runs.data / runs.unique - 1.0, 0.0)
    worth = np.exp(parameters[..., 5, None])
    first = np.minimum(runs.data, runs.unique)
    data = first * (1.0 + worth * -np.expm1(-repeats / worth))
    a, b, e, alpha, beta = _columns(parameters[..., :5])
    return log_sum(a - alpha * np.log(runs.size), b - beta * np.log(data), e)


def _farseer(parameters: np.ndarray, runs: Runs) -> np.ndarray:
    a1, b1, alpha, a2, b2, beta, a3, b3, gamma = _columns(parameters)
    size = np.log(runs.size)
    power = np.exp(a1 * np.exp(alpha * size) + b1)
    return log_sum(a3 * np.exp(gamma * size) + b3, a2 * np.exp(beta * size) + b2 - power * np.log(runs.data))


def _saturating(parameters: np.ndarray, runs: Runs) -> np.ndarray:
    b, e, beta = _columns(parameters)
    return log_sum(b - beta * np.log(runs.data), e + 0.0 * b)


def _grid(*axes: Sequence[float]) -> np.ndarray:
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))


def _at_middle(runs: Runs, exponents: np.ndarray, floors: Sequence[float], shares: Sequence[float]) -> np.ndarray:
    """Starts at which the floor is a share of the least loss and the terms of size and data share the rest."""
    size, data = np.log(runs.size).mean(), np.log(np.minimum(runs.data, 1e300)).mean()
    starts = []
    for floor in floors:
        rest = np.log(max(np.median(runs.loss) - floor * runs.loss.min(), 1e-12))
        for share in shares:
            a, b = (
                rest + np.log(fraction) + exponents[:, k] * x
                for k, fraction, x in ((0, share, size), (1, 1 - share, data))
            )
            e = np.full_like(a, np.log(floor * runs.loss.min()))
            starts.append(np.stack([a, b, e, exponents[:, 0], exponents[:, 1]], axis=-1))
    return np.concatenate(starts)


def _chinchilla_starts(runs: Runs) -> np.ndarray:
    exponents = _grid((0.1, 0.25, 0.5, 1.0), (0.1, 0.25, 0.5, 1.0))
    return _at_middle(runs, exponents, (0.1, 0.5, 0.9), (0.2, 0.5, 0.8))


def _kaplan_starts(runs: Runs) -> np.ndarray:
    exponents = _grid((0.05, 0.15, 0.4), (0.05, 0.15, 0.4))
    size, data, loss = (np.log(x).mean() for x in (runs.size, runs.data, runs.loss))
    return np.stack([size + loss / exponents[:, 0], data + loss / exponents[:, 1], *exponents.T], axis=-1)


def _repetition_starts(runs: Runs) -> np.ndarray:
    starts = _chinchilla_starts(runs)
    return np.concatenate([np.c_[starts, np.full(len(starts), np.log(worth))] for worth in (4.0, 15.0)])


def _saturating_starts(runs: Runs) -> np.ndarray:
    starts = []
    for exponent in (0.1, 0.25, 0.5, 1.0, 2.0):
        for floor in (0.05, 0.5, 0.9, 0.99):
            e = np.log(floor * runs.loss.min())
            rest = np.log(max(np.median(runs.loss) - np.exp(e), 1e-12))
            starts.append([rest + exponent * np.log(runs.data).mean(), e, exponent])
    return np.array(starts)


def _farseer_starts(runs: Runs) -> np.ndarray:
    """Exponents and factors of every size by a straight search, then stretched exponentials through them."""
    sizes = np.unique(runs.size)
    rows = np.array([_by_size(runs.subset(runs.size == size)) for size in sizes])  # (size, (log power, log B, log U))
    starts = []
    for stretch in (-0.3, -0.1, 0.1, 0.3):
        columns = np.c_[sizes**stretch, np.ones_like(sizes)]
        lines = np.linalg.lstsq(columns, rows, rcond=None)[0]  # (slope and offset, quantity)
        starts.append(np.concatenate([[*lines[:, k], stretch] for k in range(3)]))
    return np.array(starts)


def _by_size(runs: Runs) -> tuple[float, float, float]:
    """The best of a row of exponents for the runs of one size: log A, log B, log U of U + B D^-A."""
    if len(np.unique(runs.data)) < 3:
        raise ValueError("Farseer's law needs three durations or more of every size.")
    best = (np.inf, (0.0, 0.0, 0.0))
    for power in np.geomspace(0.02, 2.0, 60):
        columns = np.c_[np.ones(len(runs)), runs.data**-power]
        solved = np.linalg.lstsq(columns / runs.loss[:, None], np.ones(len(runs)), rcond=None)[0]
        solved = np.maximum(solved, 1e-3 * runs.loss.min() * np.array([1.0, runs.data.min() ** power]))
        error = float(np.square(columns @ solved / runs.loss - 1.0).sum())
        best = min(best, (error, (np.log(power), *np.log(solved[::-1]))))
    return best[1]


CHINCHILLA = Law("chinchilla", ("log A", "log B", "log E", "alpha", "beta"), _chinchilla, _chinchilla_starts)
KAPLAN = Law("kaplan", ("log N_c", "log D_c", "alpha_N", "alpha_D"), _kaplan, _kaplan_starts)
REPETITION = Law("repetition", (*CHINCHILLA.parameters, "log R"), _repetition, _repetition_starts)
FARSEER = Law("farseer", ("a1", "b1", "alpha", "a2", "b2", "beta", "a3", "b3", "gamma"), _farseer, _farseer_starts)
SATURATING = Law("saturating", ("log B", "log E", "beta"), _saturating, _saturating_starts)
LAWS: Mapping[str, Law] = {law.name: law for law in (CHINCHILLA, KAPLAN, REPETITION, FARSEER, SATURATING)}


def best_split(
    law: Law,
    parameters: np.ndarray,
    compute: np.ndarray,
    rate: Callable[[np.ndarray], np.ndarray],
    sizes: tuple[float, float],
    unique: np.ndarray | float = np.inf,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The size, data and loss of least loss at each budget, by search over sizes; arrays (..., budget).

    rate: operations a unit of data by size, 6 N for language models. sizes: the range that is searched. unique: data
    before they repeat. The first minimum from small sizes on is taken, as laws of exponentials fall again far beyond
    the sizes that they were fitted to; an end of the range, where there is none within.
    """
    candidates = np.geomspace(*sizes, 400)
    cost = rate(candidates)
    data = compute[:, None] / cost  # (budget, size)
    ones = np.ones(data.size)
    flat = Runs(np.broadcast_to(candidates, data.shape).ravel(), data.ravel(), ones, ones, unique)
    with np.errstate(over="ignore", invalid="ignore"):  # of replicates with wild exponents, far from the runs
        logs = np.nan_to_num(law.log_loss(np.asarray(parameters), flat), nan=np.inf, posinf=np.inf, neginf=-np.inf)
    logs = logs.reshape(*logs.shape[:-1], *data.shape)
    minima = (logs[..., 1:-1] <= logs[..., :-2]) & (logs[..., 1:-1] < logs[..., 2:])
    best = np.where(minima.any(axis=-1), minima.argmax(axis=-1) + 1, logs.argmin(axis=-1))
    taken = (np.take_along_axis(x, best[..., None], -1)[..., 0] for x in (np.broadcast_to(data, logs.shape), logs))
    spent, least = taken
    return candidates[best], spent, np.exp(least)


def chinchilla_split(parameters: Mapping[str, float], compute: float, factor: float = 6.0) -> tuple[float, float]:
    """The size and data of least loss where C = factor N D, in closed form (Hoffmann et al. 2022, equation 4)."""
    alpha, beta = parameters["alpha"], parameters["beta"]
    scale = (alpha * parameters["A"] / (beta * parameters["B"])) ** (1.0 / (alpha + beta))
    size = scale * (compute / factor) ** (beta / (alpha + beta))
    return size, compute / factor / size


@dataclass(frozen=True)
class Parabola:
    """Hold the parabola of one budget: log L over log N.

    size, loss: at its minimum. curvature: of log L by log N. inside: whether the minimum lies within the sizes run.
    """

    compute: float
    size: float
    loss: float
    curvature: float
    inside: bool


def parabola(compute: float, size: np.ndarray, loss: np.ndarray) -> Parabola:
    """Fit log L = c + b log N + a (log N)^2 to runs of one budget. ValueError for fewer than three sizes.

    Its minimum is biased where the curve is not symmetric: see `parabola_bias`.
    """
    x, y = np.log(size), np.log(loss)
    if len(np.unique(x)) < 3:
        raise ValueError(f"A parabola needs three sizes at {compute:.3g} operations; got {len(np.unique(x))}.")
    middle = x.mean()
    a, b, c = np.polyfit(x - middle, y, 2)
    if a <= 0:
        least = int(y.argmin())
        return Parabola(compute, float(size[least]), float(loss[least]), float(a), False)
    at = middle - b / (2 * a)
    return Parabola(
        compute, float(np.exp(at)), float(np.exp(c - b * b / (4 * a))), float(a), bool(x.min() <= at <= x.max())
    )


def parabola_bias(
    law: Law,
    parameters: np.ndarray,
    compute: float,
    sizes: np.ndarray,
    rate: Callable[[np.ndarray], np.ndarray],
    unique: np.ndarray | float = np.inf,
) -> float:
    """By what factor a parabola through noiseless runs of the law misses the law's own best size.

    Not 1 where alpha and beta differ, the sizes lie off the centre or the grid is wide (arXiv 2603.22339).
    """
    data = compute / rate(sizes)
    runs = Runs(sizes, data, np.ones_like(data), np.full_like(data, compute), unique)
    drawn = parabola(compute, sizes, law.loss(parameters, runs))
    wide = (float(sizes.min()) / 10, float(sizes.max()) * 10)
    best, _, _ = best_split(law, parameters, np.array([compute]), rate, wide, unique)
    return float(drawn.size / best[0])


def envelope(runs: Runs) -> np.ndarray:
    """The runs, by growing compute, that no cheaper run beats: the frontier. Indices."""
    order = np.lexsort((runs.loss, runs.compute))
    best, indices = np.inf, []
    for index in order:
        if runs.loss[index] < best:
            best = runs.loss[index]
            indices.append(index)
    return np.array(indices)


def power_of(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """The exponent and factor of y = factor x^exponent, by least squares of logarithms."""
    exponent, offset = np.polyfit(np.log(x), np.log(y), 1)
    return float(exponent), float(np.exp(offset))
