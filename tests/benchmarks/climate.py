"""Measure coupled climate and projections, row by row: an ocean, pace, pattern scaling, and a response to CO2.

    python tests/benchmarks/climate.py [--only ocean pace projections response] [--climatebench FOLDER]
        [--patterns climatebench_lps_noresm2.npz] [--output outputs]

ocean: years an hour, by a processor's own time, on the grid and the timestep of data=ocean, times two: the trajectories
of an ocean run side by side. Budgets are those of 200 timesteps in double precision under random fluxes.

pace: simulated and emulated years a day on two processors, each by its own time times two, as trajectories and members
run side by side, for data=planet, which is made where it is missing, and the network of experiment=planet_sfno; beside
the 1,500 that ACE2 does on a GPU (Watt-Meyer et al. 2024, arXiv 2411.11268). A year has 1,460 steps; steps a second
times points make the columns a second by which grids and devices are compared.

projections: linear pattern scaling on the files of ClimateBench in --climatebench against the published scores for
temperature (Luetjens et al. 2025, arXiv 2408.05288), and, of a climate that follows the published coefficients in
--patterns, the largest error of those that are fitted. The coefficients alone do not give the scores: these need the
simulated members of ssp245.

response: of experiment=planet_som to CO2 that it has not seen, from

    emul run experiment=planet_som
    emul forecast run=outputs/train/planet_som name=planet_som_response 'init=[2001-01-01,2005-03-21,2006-04-10]' \
        lead=370d keep=monthly

the usual amount, the equilibrium of 3 times, and the abrupt change to 4 times, each against the planet's own. Warming
is that of the lowest layer of air against the first of the three; maps are means of a year; the e-folding time is that
of one layer of heat. Rows whose files are absent are told, and do not count. The figure is the number of rows that
hold.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from itertools import pairwise, repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr

from data_pipelines.simulators.ocean.layers import LayeredOcean, SurfaceFluxes
from emul.config.build import build
from emul.config.compose import compose
from emulators.projections.pattern_scaling import PatternScaling
from emulators.projections.scenarios import Scenario, ScenarioSet
from emulators.projections.scores import nrmse
from emulators.rollout import rollout
from emulators.scores.climate import e_folding, pattern_correlation
from emulators.statistics.climatology import TROPICAL_YEAR

PROCESSORS, YEAR, DAY = 2, 365 * 86400.0, 86400.0
STEPS_A_YEAR = 1460
ACE2 = 1500.0, 180 * 360  # years a day on one GPU, points
PUBLISHED = {"NRMSE_s": 0.0786, "NRMSE_g": 0.0410, "total": 0.2836}


class Row(NamedTuple):
    """Hold a figure and its bar, None for a figure that is only told. most: whether the bar is the most."""

    name: str
    figure: float
    bar: float | None = None
    most: bool = True

    @property
    def holds(self) -> bool:
        return self.bar is None or (self.figure <= self.bar if self.most else self.figure >= self.bar)


def seconds_of(step: Callable[[], object], count: int = 40, rounds: int = 5) -> float:
    """The seconds of a processor that a step takes, the median of several rounds."""
    taken = []
    for _ in range(rounds):
        begun = time.process_time()
        for _ in range(count):
            step()
        taken.append((time.process_time() - begun) / count)
    return float(np.median(taken))


# --- an ocean ----------------------------------------------------------------------------------------------------


def forced(ocean: LayeredOcean, seed: int = 0) -> tuple[torch.Tensor, SurfaceFluxes]:
    """An ocean at rest, and winds, heat and rain that differ from cell to cell."""
    warm = 275.0 + 25.0 * np.cos(np.deg2rad(ocean.grid.latitude))[:, None] ** 2 * np.ones(ocean.grid.shape)
    noise = torch.randn(4, 1, *ocean.grid.shape, generator=torch.Generator().manual_seed(seed)).to(ocean.dtype)
    target = torch.from_numpy(warm)[None].to(ocean.dtype)
    return ocean.at_rest(warm, 35.0), SurfaceFluxes(
        0.1 * noise[0], 0.1 * noise[1], 100.0 * noise[2], 1e-7 * noise[3], target, 40.0
    )


def budget_error(ocean: LayeredOcean, steps: int = 200) -> float:
    """The largest part of volume, heat or salt that is neither kept nor told."""
    state, fluxes = forced(ocean)
    before = (state[:, :3].sum(2) * ocean.area * ocean.sea).sum((-1, -2))
    gained = torch.zeros_like(before)
    for _ in range(steps):
        state, surface, abyss = ocean.step(state, fluxes)
        gained += ocean.seconds * ((surface + abyss) * ocean.area).sum((-1, -2))
    after = (state[:, :3].sum(2) * ocean.area * ocean.sea).sum((-1, -2))
    return float(((after - before - gained) / before).abs().max())


def ocean_rows(asked: argparse.Namespace) -> Iterator[Row | str]:
    source = build(compose("train", ["data=ocean"]).data)
    single, double = (
        LayeredOcean(source.grid, source.sea, source.seconds, source.constants, dtype)
        for dtype in (torch.float32, torch.float64)
    )
    state, fluxes = forced(single)
    taken = seconds_of(lambda: single.step(state, fluxes))
    speed = PROCESSORS * 3600.0 * single.seconds / YEAR / taken
    yield Row("years of the ocean an hour, two processors", speed, 200.0, most=False)
    yield Row("budgets of the ocean, relative", budget_error(double), 1e-12)


# --- years a day -------------------------------------------------------------------------------------------------


def pace_rows(asked: argparse.Namespace) -> Iterator[Row | str]:
    from emul.training.assembly import build_training, open_archive, training_batches

    config = compose("train", ["experiment=planet_sfno", "hardware.threads=1", "training.batch_size=1"])
    archive, splits = open_archive(config, None)
    module = build_training(config, archive.world)
    torch.nn.init.zeros_(module.step.network.head.weight)  # it changes nothing, and takes as long as any
    window = training_batches(config, module, archive, splits["train"], 0).batch(0)
    states = rollout(module.step, window.history, repeat(window.forcing[0]))
    emulated = seconds_of(lambda: next(states), count=20)
    planet = build(config.data)
    simulation, points = planet.simulation(0), planet.grid.size
    simulated = 360 / planet.timestep_minutes * seconds_of(simulation.step, count=12)
    for name, seconds in (("planet", simulated), ("planet_sfno", emulated)):
        yield from paced(name, PROCESSORS * DAY / seconds / STEPS_A_YEAR, points, f"{PROCESSORS} processors")
    yield from paced("ACE2, as published", *ACE2, "a GPU")


def paced(name: str, years: float, points: int, device: str) -> Iterator[Row | str]:
    columns, steps = years * STEPS_A_YEAR / DAY * points, f"{years:,.0f} x {STEPS_A_YEAR:,} steps / {DAY:,.0f} s"
    yield Row(f"years a day, {name}, {device}", years)
    yield f"    {steps} x {points:,} points = {columns:,.0f} columns a second"


# --- projections -------------------------------------------------------------------------------------------------


def projection_rows(asked: argparse.Namespace) -> Iterator[Row | str]:
    if asked.climatebench is None:
        yield "pattern scaling on ClimateBench: skipped, no folder of its files (--climatebench)"
    else:
        options = compose("project", ["scenarios=climatebench", f"scenarios.path={asked.climatebench}"]).scenarios
        data: ScenarioSet = build(options).read()
        assert isinstance(data, ScenarioSet)
        emulator, scenario = PatternScaling(), data.scenarios["ssp245"]
        emulator.fit(data, "tas")
        inside = data.in_period(scenario)
        score = nrmse(emulator.project(data, scenario)[inside], scenario.mean("tas")[inside], data.weights)
        for (name, published), figure in zip(PUBLISHED.items(), (score.spatial, score.globe, score.total), strict=True):
            yield f"    {name} {float(figure):.4f}, published {published:.4f}"
            yield Row(f"pattern scaling of tas, {name}, off the published", abs(float(figure) - published), 1e-4)
    if asked.patterns is None:
        yield "coefficients of pattern scaling: skipped, no file of the published ones (--patterns)"
    else:
        yield Row("coefficients of pattern scaling, off the published", coefficient_error(asked.patterns), 1e-5)


def coefficient_error(path: Path) -> float:
    """The largest error of the pattern that is fitted to a climate that follows the published one, in K per K."""
    stored = np.load(path)
    pattern = stored["global_tas_to_local_tas__coeffs"][:, ::-1]
    slope, intercept = (float(stored[f"global_co2_to_global_tas__{name}"].item()) for name in ("coef", "intercept"))

    def scenario(name: str, most: float) -> Scenario:
        co2 = np.linspace(1500.0, most, 86)
        index = (slope * co2 + intercept)[None, :, None, None]
        return Scenario(name, np.arange(2015, 2101), {"CO2": co2}, {"tas": pattern[0] * index + pattern[1]})

    both = {one.name: one for one in (scenario("ssp585", 9000.0), scenario("ssp245", 4500.0))}
    latitude, longitude = np.linspace(90.0, -90.0, pattern.shape[1]), np.arange(pattern.shape[2]) * 2.5
    emulator = PatternScaling()
    emulator.fit(ScenarioSet(latitude, longitude, both, ["ssp585"], ["ssp245"], (2080, 2100)), "tas")
    return float(np.abs(emulator.pattern - pattern).max())


# --- a response to CO2 -------------------------------------------------------------------------------------------


def response_rows(asked: argparse.Namespace) -> Iterator[Row | str]:
    path = asked.output / "forecast" / "planet_som_response" / "forecast.zarr"
    source = build(compose("train", ["data=planet_som"]).data)
    if not path.is_dir() or not source.path.is_dir():
        yield f"response of planet_som to CO2: skipped, no {path} or no data=planet_som; see the top of this file"
        return
    forecast = xr.open_zarr(path, decode_timedelta=True)["temperature"].isel(level=-1).load()
    truth = source.dataset()["temperature"].isel(level=-1)
    area = source.grid.weights / source.grid.weights.sum()
    usual, equilibrium, abrupt = (Case(forecast.isel(time=row), truth, area) for row in range(3))
    warming = [changed - same for changed, same in zip(equilibrium.maps(), usual.maps(), strict=True)]
    ours, theirs = (float((area * change).sum()) for change in warming)
    yield f"    warming of the air near the ground at 3 times CO2: {ours:.3f} K, the planet's {theirs:.3f} K"
    yield Row("warming of 3 times CO2, relative error", abs(ours / theirs - 1.0), 0.10)
    alike = pattern_correlation(warming[0].ravel(), warming[1].ravel(), area.ravel())
    yield Row("its pattern's correlation with the planet's", alike, 0.95, most=False)
    (reached, days), (true_reached, true_days) = abrupt.fits(usual)
    yield f"    abrupt 4 times: {reached:.2f} K in {days:.0f} days, the planet {true_reached:.2f} K in {true_days:.0f}"
    yield Row("e-folding time of abrupt 4 times CO2, relative error", abs(days / true_days - 1.0), 0.25)


class Case:
    """Means over the months since an initial time, of the forecast and of the truth, and over the first year."""

    def __init__(self, forecast: xr.DataArray, truth: xr.DataArray, area: np.ndarray) -> None:
        ends = forecast["valid_time"].values
        self.edges = np.concatenate([[forecast["time"].values], ends])[:13]
        times, self.area = truth["time"].values, area
        rows = [np.flatnonzero((times > a) & (times <= b)) for a, b in pairwise(self.edges)]
        self.months = forecast.values[:12], np.stack([truth[row].values.mean(axis=0) for row in rows])

    @property
    def middles(self) -> np.ndarray:
        """Of the months, in days since 1970."""
        days = self.edges.astype("datetime64[s]").astype(np.int64) / DAY
        return 0.5 * (days[1:] + days[:-1])

    def maps(self) -> Iterator[np.ndarray]:
        """Means over the year, by the lengths of its months, of the forecast and of the truth."""
        lengths = np.diff(self.edges).astype(np.int64)
        for months in self.months:
            yield np.tensordot(lengths / lengths.sum(), months, axes=1)

    def fits(self, usual: Case) -> list[tuple[float, float]]:
        """The warming that is approached and the e-folding time in days, of the forecast and of the truth.

        usual: the case whose season, by two harmonics, is taken off.
        """
        fits = []
        for months, others in zip(self.months, usual.months, strict=True):
            series, season = ((self.area * part).sum(axis=(-1, -2)) for part in (months, others))
            waves = np.linalg.lstsq(harmonics(usual.middles), season, rcond=None)[0]
            since = self.middles - self.edges[0].astype("datetime64[s]").astype(np.int64) / DAY
            fits.append(e_folding(since, series - harmonics(self.middles) @ waves))
        return fits


def harmonics(days: np.ndarray) -> np.ndarray:
    """Mean and two harmonics of the year, (time, function)."""
    angle = 2.0 * np.pi * days[:, None] * DAY / TROPICAL_YEAR * np.arange(1, 3)
    return np.concatenate([np.ones((len(days), 1)), np.cos(angle), np.sin(angle)], axis=1)


SECTIONS = {"ocean": ocean_rows, "pace": pace_rows, "projections": projection_rows, "response": response_rows}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--climatebench", type=Path)
    parser.add_argument("--patterns", type=Path)
    parser.add_argument("--output", type=Path, default=Path("outputs"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    judged: list[Row] = []
    with torch.inference_mode():
        for name in asked.only:
            for row in SECTIONS[name](asked):
                if isinstance(row, str):
                    print(row)
                    continue
                bar = "" if row.bar is None else f"   bar {row.bar:8.3g}   {'ok' if row.holds else 'FAILS'}"
                print(f"{row.name:56s}{row.figure:12.3g}{bar}")
                judged += [row] if row.bar is not None else []
    held = sum(row.holds for row in judged)
    print(f"climate: {held} of {len(judged)} rows hold (bar {len(judged)})")
    return 0 if held == len(judged) else 1


if __name__ == "__main__":
    raise SystemExit(main())
