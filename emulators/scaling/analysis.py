"""What the runs of a study say: laws with intervals, the frontier, curves of equal operations; how to spend a budget.

A recommendation gives the size and the data of least expected score at C operations, the schedule of the study
stretched to that length, and the interval of the score of one such run. A law says nothing of what it has not seen:
finer grids, other data, other learning rates, longer rollouts.

An interval of replicates does not know whether the form of a law is right. So each law is fitted again without the
largest runs. Where the largest lies outside of the 90 % that this fit gives it, the error, carried on in proportion to
log(operations), widens what the law predicts beyond them all: half width^2 = that of the replicates^2 + (1.64 error)^2
at 90 %, in logarithms. (Rolling origins of forecasts: Tashman 2000, doi 10.1016/S0169-2070(00)00065-0.)

Laws are compared on one and the same question: the largest run, from the runs that fix every one of them. An error over
log(operations) would not do, since it is not constant: on the planet an additive law misses by 0.12 a unit of the
logarithm at 2 times and by 0.09 at 4 times, so that it would favour laws that were asked from further away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
from scipy.stats import norm, t

from emulators.scaling.budgets import (
    Exponents,
    Frontier,
    IsoFlop,
    frontier_of,
    isoflops,
    law_exponents,
    power_through,
    rate_of,
    run_exponents,
    searched,
    splitting,
)
from emulators.scaling.fitting import Fit, Method, bootstrapped, fit
from emulators.scaling.laws import FARSEER, LAWS, REPETITION, SATURATING, Runs, envelope
from emulators.scaling.study import Cost, Study

METHODS: tuple[Method, ...] = ("squares", "robust", "projection")
HEADLINE = "chinchilla squares"  # the fit whose intervals are calibrated, quoted where no law was tried


@dataclass(frozen=True)
class Backtest:
    """Hold how a law predicted the largest run of a study from smaller ones.

    factor: operations of the largest run over those of the largest kept. error: log of measured over predicted. held:
    whether the 90 % interval of the prediction held it.
    """

    factor: float
    error: float
    held: bool

    def at(self, beyond: float) -> float:
        """The error of the law's form at so many times the operations of the largest run, in logarithms."""
        return 0.0 if self.held else abs(self.error) * float(np.log(max(beyond, 1.0)) / np.log(self.factor))


@dataclass(frozen=True)
class Analysis:
    """Hold the fits by name (`chinchilla squares`), why others were left out, the frontier and the IsoFLOP curves.

    backtests: of those fits that the smaller runs fix, each from as far as it can. compared: the same from one set of
    smaller runs, of the laws in which sizes count. split: the fit whose frontier it is. exponents: of N ~ C^a and
    D ~ C^b over the operations measured, by fit and by the runs themselves.
    """

    fits: Mapping[str, Fit]
    backtests: Mapping[str, Backtest]
    compared: Mapping[str, Backtest]
    left_out: Mapping[str, str]
    split: str
    frontier: Frontier
    isoflop: Sequence[IsoFlop]
    exponents: Mapping[str, Exponents]

    @property
    def headline(self) -> Fit:
        """The fit that is quoted."""
        return self.fits[HEADLINE]

    def predictions(self, run: Runs, level: float = 0.90) -> dict[str, list[float]]:
        """Loss of one run to come by every fit: value, lower and upper end, widened by what the backtest missed."""
        beyond = float(run.compute[0] / self.headline.runs.compute.max())
        return {
            name: widened(one.prediction(run, level)[:, 0], self.backtests.get(name), beyond, level)
            for name, one in self.fits.items()
        }

    @property
    def ranking(self) -> list[str]:
        """Fits by how surely they predict, the surest first."""
        return ranked(self.fits, self.compared)

    @property
    def surest(self) -> str:
        """The law by least squares that missed the largest run by least, from the same runs as the others."""
        return self.ranking[0]


def ranked(fits: Mapping[str, Fit], compared: Mapping[str, Backtest]) -> list[str]:
    """Laws by least squares, by how much they missed of the largest run; the headline at the end if it was not asked.

    Methods of one law are so alike that chance would choose among them; the intervals of squares are calibrated.
    """
    tried = sorted((abs(found.error), name) for name, found in compared.items() if fits[name].method == "squares")
    return list(dict.fromkeys([*(name for _, name in tried), HEADLINE]))


def widened(prediction: np.ndarray, backtest: Backtest | None, beyond: float, level: float = 0.90) -> list[float]:
    """A prediction (value, lower, upper) whose ends also hold the error of the law's form, so far as it is known."""
    value, *ends = np.log(prediction)
    form = 0.0 if backtest is None else norm.ppf((1 + level) / 2) * backtest.at(beyond)
    low, high = (np.hypot(end - value, form) for end in ends)
    return np.exp([value, value - low, value + high]).tolist()


def smaller_runs(runs: Runs, laws: Iterable[str], beyond: float) -> np.ndarray | None:
    """The runs, as a mask, up to `beyond` times below the largest or as far as they fix all these laws; None: never."""
    chosen, most = None, float(runs.compute.max())
    for operations_kept in np.unique(runs.compute)[-2::-1]:
        inside = runs.compute <= operations_kept
        if any(unsuitable(name, runs.subset(inside)) for name in laws):
            break
        chosen = inside
        if most / operations_kept >= beyond:
            break
    return chosen


def backtest(law_fit: Fit, kept: np.ndarray, groups: np.ndarray | None = None) -> Backtest:
    """Fit a law to the kept runs, a mask, and ask it for the largest. groups: which runs share a trunk."""
    runs = law_fit.runs
    largest, smaller = runs.subset(np.array([int(runs.compute.argmax())])), runs.subset(kept)
    fitted = bootstrapped(
        fit(law_fit.law, smaller, law_fit.method), 200, groups=None if groups is None else groups[kept]
    )
    value, low, high = fitted.prediction(largest)[:, 0]
    measured, factor = float(largest.loss[0]), float(largest.compute[0] / smaller.compute.max())
    return Backtest(factor, float(np.log(measured / value)), bool(low <= measured <= high))


def backtested(
    fits: Mapping[str, Fit], beyond: float, groups: np.ndarray | None = None
) -> tuple[dict[str, Backtest], dict[str, Backtest]]:
    """Every fit tried on the largest run, from as far as each can, and from the same smaller runs."""
    own: dict[str, Backtest] = {}
    masks: dict[str, np.ndarray] = {}
    for name, one in fits.items():
        if (kept := smaller_runs(one.runs, [one.law.name], beyond)) is not None:
            masks[name], own[name] = kept, backtest(one, kept, groups)
    sized = [name for name in own if fits[name].law is not SATURATING]
    if not sized:
        return own, {}
    kept = smaller_runs(fits[sized[0]].runs, {fits[name].law.name for name in sized}, beyond)
    assert kept is not None  # the runs without the largest fix each of these laws
    return own, {
        name: own[name] if np.array_equal(kept, masks[name]) else backtest(fits[name], kept, groups) for name in sized
    }


def analyse(
    runs: Runs,
    laws: Sequence[str],
    rate: Callable[[np.ndarray], np.ndarray],
    *,
    budgets: np.ndarray,
    beyond: float = 3.0,
    groups: np.ndarray | None = None,
    replicates: int = 400,
    seed: int = 0,
) -> Analysis:
    """Fit the laws to the runs of a study. ValueError where there are too few runs for the law chinchilla.

    rate: operations a unit of data by size. budgets: of the frontier. beyond: operations of the run to be predicted
    over those of the largest. groups: which runs share a trunk.
    """
    fits: dict[str, Fit] = {}
    left_out: dict[str, str] = {}
    laws_methods = [("chinchilla", method) for method in METHODS]
    laws_methods += [(name, "squares") for name in laws if name != "chinchilla"]
    for name, method in laws_methods:
        reason = unsuitable(name, runs)
        if reason:
            left_out[name] = reason
            continue
        found = bootstrapped(fit(LAWS[name], runs, method), replicates, seed, groups)
        if LAWS[name] is REPETITION and (reason := untold_repetition(found)):
            left_out[name] = reason
            continue
        fits[f"{name} {method}"] = found
    if HEADLINE not in fits:
        raise ValueError(f"These runs fix no law: {left_out['chinchilla']}.")
    own, compared = backtested(fits, beyond, groups)
    ranking, measured = ranked(fits, compared), budgets[budgets <= runs.compute.max()]
    measured = measured if len(measured) > 1 else budgets
    split = splitting(fits, ranking, measured, rate, searched(runs.size)) or ranking[0]
    frontier = frontier_of(fits[split], budgets, rate, searched(runs.size))
    exponents = {name: law_exponents(one, measured, rate) for name, one in fits.items() if one.law is not SATURATING}
    exponents |= run_exponents(fits[ranking[0]], rate, groups, min(replicates, 200))
    curves = isoflops(runs, fits[split], rate)
    return Analysis(fits, own, compared, left_out, split, frontier, curves, exponents)


def unsuitable(name: str, runs: Runs) -> str:
    """Why a law cannot be fitted to these runs; empty where it can."""
    law = LAWS[name]
    if len(runs) < len(law.parameters) + 2:
        return f"{len(runs)} runs for {len(law.parameters)} parameters; it takes {len(law.parameters) + 2}"
    sizes = np.unique(runs.size)
    if law is not SATURATING and len(sizes) < 3:
        return f"{len(sizes)} sizes; it takes three"
    if law is FARSEER and min(len(np.unique(runs.data[runs.size == size])) for size in sizes) < 3:
        return "a size with fewer than three durations"
    if law is REPETITION and not (runs.data > 2 * np.asarray(runs.unique)).any():
        return "no run that repeats its data twice"
    return ""


def untold_repetition(law_fit: Fit) -> str:
    """Why a fit of the law of repetition does not tell how much repeated data are worth, R; empty where it does.

    Told: the 95 % interval of R, by derivatives and by replicates, is within a factor of 10 to either side.
    """
    runs = law_fit.runs
    low, high = law_fit.interval(itemgetter((..., law_fit.law.parameters.index("log R"))))
    wide = max(t.ppf(0.975, law_fit.freedom) * law_fit.standard_error("log R"), (high - low) / 2)
    if wide <= np.log(10.0):
        return ""
    passes = float((runs.data / np.asarray(runs.unique)).max())
    return (
        f"the runs do not tell what repeated data are worth: they pass at most {passes:.1f} times over them, which "
        f"leaves R open by {'any factor' if wide > 700 else f'a factor of {np.exp(wide):.2g}'} to either side"
    )


def saturating_of(compute: np.ndarray, scores: Mapping[str, np.ndarray], replicates: int = 200) -> dict[str, Fit]:
    """A saturating law E + B C^-beta for each score along the frontier, such as one a lead or a variable.

    Scores with too few runs on the frontier are left out.
    """
    fits = {}
    for name, values in scores.items():
        usable = np.isfinite(values) & (values > 0)
        if usable.sum() < 3:
            continue
        runs = Runs(np.ones(usable.sum()), compute[usable], values[usable], compute[usable])
        runs = runs.subset(envelope(runs))
        if len(runs) >= len(SATURATING.parameters) + 2:
            fits[name] = bootstrapped(fit(SATURATING, runs, "squares"), replicates)
    return fits


def ladder_of(loss: np.ndarray, headline: np.ndarray, replicates: int = 200) -> Fit:
    """The second step of a ladder, from validation loss to a headline score: score = E + B loss^p.

    Bhagia et al. 2024, arXiv 2412.04403, whose second step is a sigmoid; errors of weather saturate at small losses.
    """
    runs = Runs(np.ones_like(loss), 1.0 / loss, headline, np.ones_like(loss))
    return bootstrapped(fit(SATURATING, runs, "squares"), replicates)


PEAKS = {  # operations a second, dense products of 16-bit numbers, as their makers state
    "v100": 125e12, "a100": 312e12, "h100": 989e12, "h200": 989e12, "b200": 2250e12, "mi250x": 383e12,
    "mi300x": 1307e12,
}  # fmt: skip
FAR = 10.0  # times the largest run, beyond which a recommendation is a guess


@dataclass(frozen=True)
class Recommendation:
    """Hold the rows of a recommendation and what must be known of it."""

    rows: Mapping[str, str]
    warnings: tuple[str, ...]


def operations(flops: float | None, gpu_hours: float | None, device: str, utilisation: float, speed: float) -> float:
    """The operations of a budget. speed: operations a second measured here. ValueError where it is not told once."""
    if (flops is None) == (gpu_hours is None):
        raise ValueError("emul scaling recommend: expected flops=1e21 or gpu_hours=100; give one of them.")
    if flops is not None:
        if not flops > 0:
            raise ValueError(f"flops: expected a positive number; got {flops}.")
        return float(flops)
    assert gpu_hours is not None
    if not gpu_hours > 0 or not 0 < utilisation <= 1:
        raise ValueError(f"Expected positive gpu_hours and a utilisation up to 1; got {gpu_hours} and {utilisation}.")
    if device != "here" and device not in PEAKS:
        raise ValueError(f"device: expected one of here, {', '.join(PEAKS)}; got '{device}'.")
    return 3600.0 * gpu_hours * (speed if device == "here" else PEAKS[device] * utilisation)


def recommended(
    flops: float, laws: Mapping[str, Any], study: Study, costs: Mapping[int, Cost], facts: Mapping[str, Any]
) -> Recommendation:
    """Spend `flops` by the surest law of a study's fits.json that has a best size at that budget."""
    size = np.array([cost.parameters for cost in costs.values()], dtype=float)
    unit, unique = facts["batch"] * facts["points"], float(facts["samples"] * facts["points"])
    rate, far = rate_of(costs, facts, study.cooldown), flops / laws["largest"]
    budget, ones, ends = np.array([flops]), np.ones(1), searched(size, far)
    fits = {name: fit_of(laws["drawn"][name], unique) for name in laws["ranking"]}
    split = splitting(fits, laws["ranking"], budget, rate, ends)
    name = split or laws["surest"]
    frontier = frontier_of(fits[name], budget, rate, ends)
    best, data = float(frontier.size[0, 0]), float(frontier.data[0, 0])
    tried = laws["backtests"].get(name)
    one = fits[name].prediction(Runs(best * ones, data * ones, ones, budget, unique))[:, 0]
    score = widened(one, Backtest(**tried) if tried else None, far)
    width = float(power_through(size, np.array([*costs], dtype=float))(np.array([best]))[0])
    steps = max(1, round(data / unit))
    samples = steps * facts["batch"]
    spread = frontier.size[1:, 0], frontier.data[1:, 0] / facts["points"]
    rows = {
        "law": name if name == laws["surest"] else f"{name}; {laws['surest']}, the surest, has no best size at C",
        "size": f"{best:.3g} parameters that count ({spread[0][0]:.3g} to {spread[0][1]:.3g}), width about {width:.0f}",
        "shape": " ".join(study.shape_words(max(1, round(width)))),
        "data": f"{samples:,} samples ({spread[1][0]:,.3g} to {spread[1][1]:,.3g}), "
        f"{samples / facts['samples']:,.1f} passes over the {facts['samples']:,} there are",
        "schedule": f"{steps:,} steps of {facts['batch']}: warm-up {study.warmup}, constant, the last "
        f"{steps - study.start_of(steps):,} falling as 1 - sqrt",
        "expected score": f"{score[0]:.4g}, a run in 90 % of cases from {score[1]:.4g} to {score[2]:.4g}",
        "beyond the runs": f"{far:.3g} times the operations of the largest run of the fit",
    }
    counted = fits[name].law is REPETITION
    return Recommendation(rows, _warnings(far, 0.0 if counted else samples / facts["samples"], split is None))


def _warnings(beyond: float, passes: float, at_end: bool) -> tuple[str, ...]:
    messages = []
    if at_end:
        messages.append(
            "No law of the study has a best size at this budget: the size is where the search ended, and means nothing."
        )
    if beyond > FAR:
        messages.append(
            f"{beyond:.3g} times beyond the largest run: the interval holds only if the law goes on, which nothing "
            "here shows. Train a run at a third of the way first."
        )
    if passes > 4:
        messages.append(
            f"{passes:.0f} passes over the data: the law counts repeated data as new, which it is not beyond about "
            "four (arXiv 2305.16264). Make more data, or fit study.laws=[chinchilla,repetition] on runs that "
            "repeat theirs."
        )
    return tuple(messages)


def drawn_of(law_fit: Fit) -> dict[str, Any]:
    """A fit as plain values, from which `fit_of` makes one that predicts alike."""
    return {
        "law": law_fit.law.name,
        "method": law_fit.method,
        "values": law_fit.parameters.tolist(),
        "replicates": np.asarray(law_fit.replicates).tolist(),
        "noise": law_fit.noise,
        "freedom": law_fit.freedom,
    }


def fit_of(drawn: Mapping[str, Any], unique: float) -> Fit:
    """A fit of `drawn_of`. Its runs are blank, its residuals have the same sum of squares. unique: of its data."""
    values, freedom = np.array(drawn["values"]), drawn["freedom"]
    ones = np.ones(freedom + len(values))
    residuals = ones * drawn["noise"] * np.sqrt(freedom / len(ones))
    blank = Runs(ones, ones, ones, ones, unique)
    return Fit(LAWS[drawn["law"]], drawn["method"], values, 0.0, residuals, blank, np.array(drawn["replicates"]))
