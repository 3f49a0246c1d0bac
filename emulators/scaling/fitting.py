"""Fit scaling laws: robustly from many starts, by variable projection, with intervals from a bootstrap.

    robust       sum of Huber_delta(log L - log law), delta 1e-3, by BFGS from the best of many starts
    squares      the same with delta infinite: least squares of logarithms
    projection   min over alpha, beta of  min over E, A, B >= 0  |(E + A N^-alpha + B D^-beta) / L - 1|^2

Huber 1964, doi 10.1214/aoms/1177703732; the objective is that of Hoffmann et al. 2022, arXiv 2203.15556, summed and not
averaged, since a small gradient ends an optimiser early (Besiroglu et al. 2024, arXiv 2404.10102). Variable projection:
Golub & Pereyra 1973, doi 10.1137/0710036; that it is unbiased where parabolas are not: arXiv 2603.22339.

Intervals: residuals of a fit, made larger by their degrees of freedom, are drawn anew and fitted again, all replicates
at once by Levenberg and Marquardt's steps. A quantile of the replicates is widened as Student's t is wider than the
normal distribution; the interval of a run that is to come holds its own noise too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Literal

import numpy as np
from scipy import optimize, stats

from emulators.scaling.laws import CHINCHILLA, Law, Runs

Method = Literal["robust", "squares", "projection"]
DELTA = 1e-3
RIDGE = 1e-12  # keeps a step finite in a direction that the runs do not tell
POLISHED, DESCENDED = 24, 3  # of all starts, the best that are descended from; of these, the best that BFGS ends


@dataclass(frozen=True)
class Fit:
    """Hold a fitted law.

    parameters: (parameter,). replicates: of the bootstrap, (replicate, parameter). residuals: log L minus the law,
    (run,). objective: what was minimised, at its minimum. runs: that were fitted.
    """

    law: Law
    method: Method
    parameters: np.ndarray
    objective: float
    residuals: np.ndarray
    runs: Runs
    replicates: np.ndarray | None = None

    @property
    def freedom(self) -> int:
        """Degrees of freedom: runs less parameters."""
        return len(self.runs) - len(self.parameters)

    @property
    def noise(self) -> float:
        """The standard deviation of log L about the law."""
        return float(np.sqrt(np.square(self.residuals).sum() / max(self.freedom, 1)))

    def standard_error(self, name: str) -> float:
        """Of one parameter, by the derivatives of the law at the fit; infinite where the runs do not tell it.

        Replicates cannot say this: one that starts where the law is flat stays there, as if it were known exactly.
        """
        slopes = self.law.jacobian(self.parameters, self.runs)
        k = self.law.parameters.index(name)
        others = np.delete(slopes, k, axis=1)
        others = others / np.maximum(np.linalg.norm(others, axis=0), 1e-300)
        alone = slopes[:, k] - others @ np.linalg.lstsq(others, slopes[:, k])[0]
        size = float(np.linalg.norm(alone))
        return self.noise / size if size > 1e-12 else np.inf

    def interval(self, quantity: Callable[[np.ndarray], np.ndarray], level: float = 0.95) -> tuple[float, float]:
        """The interval of a quantity of the parameters (..., parameter) -> (...)."""
        middle, drawn = self._drawn(quantity)
        return _widened(middle, np.asarray(drawn), self.freedom, level)

    def _drawn(self, quantity: Callable[[np.ndarray], np.ndarray]) -> tuple[float, np.ndarray]:
        if self.replicates is None:
            raise ValueError("This fit has no replicates; fit it with `bootstrapped`.")
        return float(quantity(self.parameters)), np.asarray(quantity(self.replicates))

    def parameter_intervals(self, level: float = 0.95) -> dict[str, tuple[float, float, float]]:
        """Each parameter as it is (A, not log A): value, lower and upper end."""
        intervals = {}
        for k, name in enumerate(self.law.parameters):
            low, high = self.interval(itemgetter((..., k)), level)
            values = np.array([self.parameters[k], low, high])
            intervals[name.removeprefix("log ")] = tuple(np.exp(values) if name.startswith("log ") else values)
        return {name: (float(v), float(low), float(high)) for name, (v, low, high) in intervals.items()}

    def prediction(self, runs: Runs, level: float = 0.90, seed: int = 0) -> np.ndarray:
        """Loss of runs that are to come: value, lower and upper end of the interval, (3, run). Their losses are unread.

        The interval holds the uncertainty of the law and the noise of a single run.
        """
        chance = np.random.default_rng(seed)
        log_losses = np.empty((3, len(runs)))
        for k in range(len(runs)):
            run = runs.subset(np.array([k]))
            middle, drawn = self._drawn(partial(self._log_loss_of, run))
            noise = self.noise * chance.standard_normal((16, len(drawn)))
            log_losses[:, k] = middle, *_widened(middle, (drawn + noise).ravel(), self.freedom, level)
        return np.exp(log_losses)

    def _log_loss_of(self, run: Runs, parameters: np.ndarray) -> np.ndarray:
        return self.law.log_loss(parameters, run)[..., 0]


def _widened(middle: float, drawn: np.ndarray, freedom: int, level: float) -> tuple[float, float]:
    tails = (1 - level) / 2, (1 + level) / 2
    wider = stats.t.ppf(tails[1], max(freedom, 1)) / stats.norm.ppf(tails[1])
    low, high = np.quantile(drawn[np.isfinite(drawn)], tails)
    return middle + wider * (low - middle), middle + wider * (high - middle)


def huber(residuals: np.ndarray, delta: float) -> np.ndarray:
    """Half the square within delta, linear beyond; an infinite delta gives half the square."""
    size = np.abs(residuals)
    if not np.isfinite(delta):
        return 0.5 * np.square(residuals)
    return np.where(size <= delta, 0.5 * np.square(residuals), delta * (size - 0.5 * delta))


def fit(law: Law, runs: Runs, method: Method = "robust", delta: float = DELTA) -> Fit:
    """Fit a law to runs. ValueError for fewer runs than parameters, or variable projection of another law."""
    if len(runs) <= len(law.parameters):
        raise ValueError(f"The law {law.name} has {len(law.parameters)} parameters; got {len(runs)} runs.")
    if method == "projection":
        if law is not CHINCHILLA:
            raise ValueError(f"Variable projection is for the law chinchilla; got {law.name}.")
        return _fitted(law, method, projected(runs), runs, np.inf)
    width = delta if method == "robust" else np.inf
    logs = np.log(runs.loss)

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        residuals = law.log_loss(parameters, runs) - logs
        slope = np.clip(residuals, -width, width)
        return float(huber(residuals, width).sum()), slope @ law.jacobian(parameters, runs)

    starts = law.starts(runs)
    with np.errstate(over="ignore", invalid="ignore"):
        first = np.nan_to_num(huber(law.log_loss(starts, runs) - logs, width).sum(-1), nan=np.inf, posinf=np.inf)
        starts = starts[np.argsort(first)[:POLISHED]]
        starts = descended(law, runs, starts, logs, width, 60)
        last = huber(law.log_loss(starts, runs) - logs, width).sum(-1)
        starts = starts[np.argsort(np.nan_to_num(last, nan=np.inf))[:DESCENDED]]
        minima = [optimize.minimize(objective, s, jac=True, method="BFGS", options={"gtol": 1e-9}) for s in starts]
    best = min(
        (minimum for minimum in minima if np.isfinite(minimum.fun)), key=lambda minimum: minimum.fun, default=None
    )
    if best is None:
        raise ValueError(f"The law {law.name} fits these runs from no start; look for runs of another kind among them.")
    return _fitted(law, method, best.x, runs, width)


def _fitted(law: Law, method: Method, parameters: np.ndarray, runs: Runs, delta: float) -> Fit:
    residuals = np.log(runs.loss) - law.log_loss(parameters, runs)
    return Fit(law, method, np.asarray(parameters), float(huber(residuals, delta).sum()), residuals, runs)


def descended(
    law: Law,
    runs: Runs,
    starts: np.ndarray,
    logs: np.ndarray,
    delta: float = np.inf,
    iterations: int = 40,
    tolerance: float = 1e-9,
) -> np.ndarray:
    """Levenberg and Marquardt's steps from many starts at once (start, parameter), each to its own logs (start, run).

    A finite delta gives large residuals the weight of Huber's function (iterated reweighting).
    """
    at, logs = np.array(starts, dtype=np.float64), np.broadcast_to(logs, (len(starts), len(runs)))
    damping, active = np.full(len(at), 1e-3), np.arange(len(at))

    def cost_of(parameters: np.ndarray, which: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.nan_to_num(huber(logs[which] - law.log_loss(parameters, runs), delta).sum(-1), nan=np.inf)

    cost = cost_of(at, active)
    for _ in range(iterations):
        step = _step(law, runs, at[active], logs[active], delta, damping[active])
        tried, before = cost_of(at[active] + step, active), cost[active]
        better = tried < before
        at[active[better]] += step[better]
        cost[active] = np.where(better, tried, before)
        damping[active] = np.where(better, damping[active] / 10, damping[active] * 4)
        settled = (better & (before - tried <= tolerance * before)) | (damping[active] > 1e8)
        active = active[~settled]
        if not len(active):
            break
    return at


def _step(law: Law, runs: Runs, at: np.ndarray, logs: np.ndarray, delta: float, damping: np.ndarray) -> np.ndarray:
    """One step of Levenberg and Marquardt from each place, (place, parameter).

    Steep columns are scaled to length 1 first: a2 of Farseer's law is 1e26 times as steep as its other parameters, and
    what keeps the matrix regular would hold those where they are.
    """
    with np.errstate(all="ignore"):
        residuals = np.nan_to_num(logs - law.log_loss(at, runs))
        slopes = np.nan_to_num(law.jacobian(at, runs))
        weights = np.minimum(1.0, delta / np.maximum(np.abs(residuals), 1e-300))
    scale = 1.0 / np.maximum(np.linalg.norm(slopes, axis=-2), 1.0)  # (place, parameter)
    slopes = slopes * scale[..., None, :]
    weighted = np.swapaxes(slopes * weights[..., None], -1, -2)
    normal, towards = weighted @ slopes, weighted @ residuals[..., None]
    added = np.einsum("...ii->...i", normal) * damping[:, None] + RIDGE
    return scale * np.linalg.solve(normal + added[..., None] * np.eye(at.shape[-1]), towards)[..., 0]


def projected(runs: Runs) -> np.ndarray:
    """The parameters of the law chinchilla by variable projection; alpha and beta from a grid, then Nelder and Mead."""
    size, data = np.log(runs.size / np.median(runs.size)), np.log(runs.data / np.median(runs.data))

    def inner(exponents: np.ndarray) -> tuple[float, np.ndarray]:
        columns = np.stack([np.ones_like(size), np.exp(-exponents[0] * size), np.exp(-exponents[1] * data)], -1)
        solved, rest = optimize.nnls(columns / runs.loss[:, None], np.ones(len(runs)))
        return rest * rest + 1e3 * float(np.square(np.minimum(exponents, 0.0)).sum()), solved

    grid = [np.array([a, b]) for a in np.geomspace(0.03, 2.0, 12) for b in np.geomspace(0.03, 2.0, 12)]
    start = min(grid, key=lambda point: inner(point)[0])
    options = {"xatol": 1e-9, "fatol": 1e-16, "maxiter": 2000}
    alpha, beta = optimize.minimize(lambda x: inner(x)[0], start, method="Nelder-Mead", options=options).x
    e, a, b = np.log(np.maximum(inner(np.array([alpha, beta]))[1], 1e-12 * runs.loss.min()))
    return np.array([a + alpha * np.log(np.median(runs.size)), b + beta * np.log(np.median(runs.data)), e, alpha, beta])


def bootstrapped(law_fit: Fit, replicates: int = 400, seed: int = 0, groups: np.ndarray | None = None) -> Fit:
    """Add replicates to a fit: its residuals drawn anew and fitted again.

    groups: (run,), which runs share a trunk, or a seed: their residuals are drawn together, as one disturbance of the
    whole group and one of each run.
    """
    law, runs = law_fit.law, law_fit.runs
    logs = resampled(law_fit, replicates, seed, groups)
    delta = DELTA if law_fit.method == "robust" else np.inf
    starts = np.broadcast_to(law_fit.parameters, (replicates, len(law_fit.parameters)))
    fitted = descended(law, runs, starts, logs, delta, 80 if law_fit.method == "robust" else 40)
    return Fit(law, law_fit.method, law_fit.parameters, law_fit.objective, law_fit.residuals, runs, fitted)


def resampled(law_fit: Fit, replicates: int, seed: int = 0, groups: np.ndarray | None = None) -> np.ndarray:
    """Logarithms of losses of the same runs made anew, (replicate, run): the law and residuals drawn from its own."""
    runs = law_fit.runs
    residuals = law_fit.residuals - law_fit.residuals.mean()
    residuals = residuals * np.sqrt(len(runs) / max(law_fit.freedom, 1))
    drawn = _drawn_residuals(residuals, replicates, groups, np.random.default_rng(seed))
    return law_fit.law.log_loss(law_fit.parameters, runs) + drawn


def _drawn_residuals(
    residuals: np.ndarray, replicates: int, groups: np.ndarray | None, chance: np.random.Generator
) -> np.ndarray:
    """Residuals for each replicate, (replicate, run)."""
    if groups is None:
        return chance.choice(residuals, (replicates, len(residuals)))
    names, member = np.unique(groups, return_inverse=True)
    sizes = np.bincount(member)
    if len(names) < 2 or (sizes < 2).all():
        return chance.choice(residuals, (replicates, len(residuals)))
    means = np.bincount(member, residuals) / sizes
    within = residuals - means[member]
    within *= np.sqrt(len(residuals) / max(len(residuals) - len(names), 1))
    shared = max(float(np.var(means) * len(names) / (len(names) - 1) - np.mean(np.var(within) / sizes)), 0.0)
    whole = np.sqrt(shared) * chance.standard_normal((replicates, len(names)))
    return whole[:, member] + chance.choice(within, (replicates, len(residuals)))
