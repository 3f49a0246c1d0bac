"""Rows of the referee on effective resolution, significance, and the splits and claims of the demo."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from demo import channels
from referee import Row
from scipy.signal import lfilter
from scipy.special import sph_legendre_p

from data_pipelines.conventions.durations import bounds, duration
from emul.config.build import build
from emul.config.compose import compose
from emulators.grid import gaussian_grid
from emulators.metrics.mae import MAE
from emulators.models.sfno import SFNO
from emulators.rollout import rollout
from emulators.state import State
from emulators.statistics.significance import Significance, paired_difference
from emulators.steps.step import Step
from emulators.variables import Variable, VariableSet
from emulators.verification.spectra import LeadSpectra
from emulators.world import Scale, World

TRUNCATION, STEPS = 21, 40  # ten days
SERIES = 20_000
DAY = np.timedelta64(1, "D")


def power_by_degree(field: np.ndarray) -> np.ndarray:
    """Power of a field (lat, lon) on Gaussian points by degree, from Legendre functions of scipy and an FFT."""
    rows, columns = field.shape
    sines, weights = np.polynomial.legendre.leggauss(rows)
    waves = np.fft.rfft(field[::-1], axis=1) / columns  # rows from south to north, as the sines
    found = np.zeros(rows)
    for degree in range(rows):
        for order in range(min(degree, columns // 2 - 1) + 1):
            function = sph_legendre_p(degree, order, np.arccos(sines))
            coefficient = 2 * np.pi * (weights * function[0] * waves[:, order]).sum()
            found[degree] += (1 + (order > 0)) * abs(coefficient) ** 2
    return found / (4 * np.pi)


def resolution() -> Row:
    """Power beyond the truncation of the data after ten days of an untrained network; and planted noise is named."""
    grid = gaussian_grid(32)
    temperature = VariableSet((Variable("temperature", "K", truncation=TRUNCATION),))
    world = World(grid, temperature, np.timedelta64(6, "h"), scales={"temperature": Scale(280.0, 10.0, 3.0)})
    torch.manual_seed(0)
    step = Step(world, SFNO(world, embed=16, layers=2))
    smooth = step.truncation(280.0 + 10.0 * torch.randn(1, 1, *grid.shape))
    start = State(smooth, temperature, np.array(["2001-01-01"], "datetime64[s]"))
    times = [start.time + n * np.timedelta64(6, "h") for n in range(1, STEPS + 1)]
    forcings = [State(torch.zeros(1, 0, *grid.shape), VariableSet(), time) for time in times]
    with torch.inference_mode():
        *_, last = rollout(step, (start,), forcings)
    power = power_by_degree(last.values[0, 0].double().numpy())
    beyond = power[TRUNCATION + 1 :].sum() / power[1:].sum()
    noisy = start.with_(temperature=start["temperature"] + torch.randn(1, *grid.shape))
    spectra = LeadSpectra(world, temperature, [DAY])
    spectra.add(noisy, start, DAY)
    found = spectra.effective_resolution()
    named = 0 < found.noise_degree.item() <= TRUNCATION + 1 and found.noise.item() > 1e-3
    honest = named and found.degree.item() <= TRUNCATION
    what = "share of power beyond the data's truncation after 10 days" + (
        "" if honest else "; noise counts as resolved"
    )
    return Row(float(beyond) if honest else np.inf, 1e-9, True, what)


def families(n: int, random: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """Series (n, SERIES) of mean 0."""

    def noise(count: int = n) -> np.ndarray:
        return random.normal(size=(count, SERIES))

    def autoregression(*coefficients: float) -> np.ndarray:
        made = lfilter([1.0], [1.0, *(-c for c in coefficients)], noise(n + 300), axis=0)[300:]
        return made / (np.sqrt(1 - coefficients[0] ** 2) ** -1 if len(coefficients) == 1 else made.std())

    yield "white", noise()
    for rho in (0.3, 0.5, 0.7, 0.9):
        yield f"AR(1) {rho}", autoregression(rho)
    yield "AR(2)", autoregression(0.5, 0.25)
    yield "skewed", np.exp(0.7 * autoregression(0.3)) - np.exp(0.245)
    yield "white, 20 % AR(1) 0.9", np.sqrt(0.8) * noise() + np.sqrt(0.2) * autoregression(0.9)
    yield "white, 10 % AR(1) 0.95", np.sqrt(0.9) * noise() + np.sqrt(0.1) * autoregression(0.95)


def claims(series: np.ndarray) -> tuple[float, float]:
    """Per cent of series that are called different from 0, and of those with a verdict."""
    one = {"absolute_error": 100.0 + series}
    found = paired_difference(MAE(), one, {"absolute_error": np.full_like(series, 100.0)}, Significance())
    return 100 * float((found.p_value <= 0.05).mean()), 100 * float(np.isfinite(found.p_value).mean())


def coverage() -> Row:
    """The most false claims at 95 %; the fewest where most series have a verdict are told."""
    random, rates = np.random.default_rng(20), {}
    for n in (30, 60, 120, 365):
        for name, series in families(n, random):
            rates[f"{name}, n = {n}"] = claims(series)
    worst = max(rates, key=lambda name: rates[name][0])
    few = {name: rate for name, (rate, judged) in rates.items() if rate < 3.0 and judged > 50.0}
    careful = ", ".join(f"{name} {rate:.1f}" for name, rate in few.items())
    return Row(rates[worst][0], 8.0, True, f"per cent of false claims, {worst}; below 3: {careful or 'none'}")


def splits() -> Row:
    """Initial times of the demo's test; validation and test have four seasons, each in a trajectory of its own."""
    config = compose("train", ["experiment=planet_sfno"])
    source = build(config.data)
    held = [(source.times(n)[0], source.times(n)[-1]) for n in range(source.trajectories)]
    inside, seasons = {}, {}
    for name, period in source.splits.items():
        start, end = bounds(period)
        inside[name] = {n for n, (first, last) in enumerate(held) if first <= end and last >= start}
        seasons[name] = len({int(month) // 3 for month in np.arange(start, end, DAY).astype("M8[M]").astype(int) % 12})
    apart = sum(map(len, inside.values())) == len(set.union(*inside.values()))
    whole = min(seasons["validation"], seasons["test"]) == 4
    start, end = bounds(source.splits["test"])
    lead, every = (np.timedelta64(duration(config.forecast[key]), "s") for key in ("lead", "every"))
    dates = int((end - start - lead) / every) + 1
    told = "initial times of the test, in four seasons and a trajectory of its own"
    return Row(dates if apart and whole else 0, 40, False, f"{told}; {claimed()}")


def claimed(folder: Path = Path("outputs/eval/planet_sfno")) -> str:
    """What the intervals of the demo say of climatology five days ahead, where it has been run."""
    if not (folder / "differences.nc").is_file():
        return "make demo has not been run"
    judged = xr.open_dataset(folder / "differences.nc").sel(source="climatology", lead_time=5 * DAY)
    flags = [r.sel(estimate=["difference", "significant"]).values for _, r in channels(judged)]
    better = sum(flag == 1 and difference < 0 for difference, flag in flags)
    return f"{better} of {len(flags)} channels beat climatology at 5 days by their intervals"


ROWS = {3: resolution, 5: coverage, 7: splits}
