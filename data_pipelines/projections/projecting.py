"""Fit emulators to scenarios, project others, score them, and study how many members the scores need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from data_pipelines.files.netcdf import write_netcdf
from data_pipelines.verification.run_results import write_table
from emulators.projections.scenarios import Projection, Scenario, ScenarioSet
from emulators.projections.scores import INTERVAL, MemberStudy, member_study, nrmse


@dataclass(frozen=True)
class Projected:
    """Hold what emulators make of one variable of one scenario.

    maps: {emulator: (year, lat, lon)}, all years. study: of the members, in the years of the period.
    """

    scenario: Scenario
    variable: str
    maps: Mapping[str, np.ndarray]
    study: MemberStudy


def project(
    data: ScenarioSet,
    emulators: Mapping[str, Callable[[], Projection]],
    fields: Sequence[str] | None = None,
    draws: int = 500,
    seed: int = 0,
    report: Callable[[str, float], None] = lambda text, fraction: None,
) -> list[Projected]:
    """Fit each emulator to each variable, project every test scenario. ValueError for a variable that is not there."""
    variables = data.variables if fields is None else list(fields)
    if unknown := [name for name in variables if name not in data.variables]:
        raise ValueError(f"fields: the scenarios have no {unknown[0]}; they have {', '.join(data.variables)}.")
    if not emulators or draws < 1:
        raise ValueError(f"Expected at least one projection and draws >= 1; got {len(emulators)} and {draws}.")
    results = []
    for place, variable in enumerate(variables):
        fitted: dict[str, Projection] = {}
        for number, (name, build) in enumerate(emulators.items()):
            report(f"{name} of {variable}", (place + number / len(emulators)) / len(variables))
            fitted[name] = build()
            fitted[name].fit(data, variable)
        for scenario in (data.scenarios[name] for name in data.test):
            maps = {name: emulator.project(data, scenario) for name, emulator in fitted.items()}
            inside = data.in_period(scenario)
            truth, scored = scenario.fields[variable][:, inside], {name: field[inside] for name, field in maps.items()}
            study = member_study(scored, truth, data.weights, draws, seed)
            results.append(Projected(scenario, variable, maps, study))
    return results


def score_rows(data: ScenarioSet, results: Sequence[Projected]) -> list[dict[str, Any]]:
    """Return the scores of every emulator against the mean of all members, and against the forced response if known."""
    rows = []
    for result in results:
        inside = data.in_period(result.scenario)
        truth = result.scenario.mean(result.variable)[inside]
        forced = result.scenario.forced.get(result.variable)
        for name, maps in result.maps.items():
            score = nrmse(maps[inside], truth, data.weights)
            row: dict[str, Any] = {"scenario": result.scenario.name, "variable": result.variable, "emulator": name}
            row |= {"members": len(result.scenario.fields[result.variable])}
            row |= {"NRMSE_s": float(score.spatial), "NRMSE_g": float(score.globe), "total": float(score.total)}
            if forced is not None:
                row["total_forced"] = float(nrmse(maps[inside], forced[inside], data.weights).total)
            rows.append(row)
    return rows


def member_rows(results: Sequence[Projected]) -> list[dict[str, Any]]:
    """Return median and interval of the total score of every emulator for every number of members."""
    rows = []
    for result in results:
        for name, totals in result.study.totals.items():
            for count, draws in totals.items():
                low, high = np.percentile(draws, INTERVAL) if draws.size > 1 else (np.nan, np.nan)
                row: dict[str, Any] = {"scenario": result.scenario.name, "variable": result.variable}
                row |= {"emulator": name, "members": count, "median": float(np.median(draws))}
                rows.append({**row, "low": float(low), "high": float(high), "floor_s": result.study.floor[count]})
    return rows


def pair_rows(results: Sequence[Projected], certainty: float) -> list[dict[str, Any]]:
    """Return which of every two emulators is better by all members, how often it wins, how many members that takes."""
    rows = []
    for result in results:
        study = result.study
        for pair in study.pairs():
            better, worse = sorted(pair, key=lambda name: float(study.totals[name][study.counts[-1]][0]))
            row: dict[str, Any] = {"scenario": result.scenario.name, "variable": result.variable}
            row |= {"better": better, "worse": worse}
            for count in (1, 3):
                row[f"wins_of_{count}"] = study.wins(better, worse, count) if count in study.counts else np.nan
            needed = study.members_needed(better, worse, certainty)
            rows.append({**row, "members_needed": f"more than {study.counts[-2]}" if needed is None else needed})
    return rows


def write_results(
    folder: Path, data: ScenarioSet, results: Sequence[Projected], certainty: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Write scores.csv, members.csv, pairs.csv and projections_<scenario>.nc; return rows of scores and of pairs."""
    scores, pairs = score_rows(data, results), pair_rows(results, certainty)
    write_table(folder / "scores.csv", scores)
    write_table(folder / "members.csv", member_rows(results))
    if pairs:
        write_table(folder / "pairs.csv", pairs)
    for name in data.test:
        of_scenario = [result for result in results if result.scenario.name == name]
        write_netcdf(folder / f"projections_{name}.nc", maps_dataset(data, of_scenario), deflate=True)
    return scores, pairs


def maps_dataset(data: ScenarioSet, results: Sequence[Projected]) -> xr.Dataset:
    """Return the maps of one scenario, (emulator, year, latitude, longitude), and the mean of the members beside."""
    scenario, names = results[0].scenario, list(results[0].maps)
    variables: dict[str, Any] = {}
    for result in results:
        units = {"units": data.units.get(result.variable, "")}
        stacked = np.stack([result.maps[name] for name in names]).astype(np.float32)
        variables[result.variable] = (("emulator", "year", "latitude", "longitude"), stacked, units)
        truth = scenario.mean(result.variable).astype(np.float32)
        variables[f"{result.variable}_simulated"] = (("year", "latitude", "longitude"), truth, units)
    coordinates = {
        "emulator": ("emulator", names, {"long_name": "method of the projection"}),
        "year": ("year", scenario.years, {"long_name": "calendar year", "units": "1"}),
        "latitude": ("latitude", data.latitude, {"units": "degrees_north", "standard_name": "latitude"}),
        "longitude": ("longitude", data.longitude, {"units": "degrees_east", "standard_name": "longitude"}),
    }
    title = f"Projections of the scenario {scenario.name}"
    return xr.Dataset(variables, coordinates, {"title": title, "scenario": scenario.name, "members": scenario.members})
