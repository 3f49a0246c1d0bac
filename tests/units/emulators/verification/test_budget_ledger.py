"""Ledgers of rollouts: what is made out of nothing, how far it drifts, what constraints changed, in any portions."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from data_pipelines.files.netcdf import write_netcdf
from data_pipelines.reports.sections import budget_section
from data_pipelines.verification.score_files import EvaluationResults, read_budgets
from emulators.constraints.global_mean import GlobalMean
from emulators.constraints.moisture_budget import MoistureBudget
from emulators.constraints.total_energy import TotalEnergy
from emulators.physics.budgets import Energy, Water
from emulators.rollout import rollout
from emulators.state import Origin, State
from emulators.steps.step import Step
from emulators.verification.budget_ledger import Ledger
from emulators.verification.budget_results import SECONDS, slopes

LEADS = 3


class Noise(nn.Module):
    """Another tendency in every step and for every initial time, the same for the same times."""

    def __init__(self, world):
        super().__init__()
        self.channels = world.output_channels

    def forward(self, fields, time):
        seeds = [torch.Generator().manual_seed(int(t) % 2**31) for t in time]
        return torch.stack([torch.randn(self.channels, *fields.shape[-2:], generator=g) for g in seeds]) - 0.1


def rolled(world, weather, constraints, ledger=None, rows=slice(None), count=4, dtype=torch.float32):
    """The States of a rollout, entered in a ledger."""
    step = Step(world, Noise(world), constraints)
    start = weather(world, world.prognostic, 1, (count,), dtype)
    times = start.time + np.arange(count) * np.timedelta64(7, "D")
    start = replace(start, values=start.values[rows], time=times[rows])
    drawn = (weather(world, world.forcing, 5 + n, (count,), dtype) for n in range(LEADS))
    forcings = [
        replace(state, values=state.values[rows], time=world.after(times[rows], n + 1)) for n, state in enumerate(drawn)
    ]
    ledger = Ledger(world, step.constraints, leads=LEADS, maps=True) if ledger is None else ledger
    states = []
    with ledger.record_corrections(step):
        for lead, state in enumerate(rollout(step, (start,), forcings)):
            ledger.add(lead, state)
            states.append(state)
    assert step.observer is None
    return ledger, states


def laws(world):
    return {"air": GlobalMean(world), "water": MoistureBudget(world), "energy": TotalEnergy(world)}


def test_residuals_are_those_of_the_budgets(column_world, weather):
    world = column_world()
    ledger, states = rolled(world, weather, {})
    series, water, energy = ledger.results().series, Water(world), Energy(world)
    for lead, state in enumerate(states):
        before, forcing = state.origin.before, state.origin.forcing
        made = water.mean(water.residual(before, state, forcing)).flatten()
        np.testing.assert_allclose(series["moisture_residual"][:, lead], made, rtol=1e-9)
        made = energy.mean(energy.residual(before, state, forcing)).flatten() / 21_600.0
        np.testing.assert_allclose(series["energy_residual"][:, lead], made, rtol=1e-6)
        rain = water.mean(water.precipitated(state, forcing)).flatten()
        relative = series["moisture_residual"][:, lead] / rain.numpy()
        np.testing.assert_allclose(series["moisture_residual_relative"][:, lead], relative, rtol=1e-12)
        start = state.start["surface_pressure"].double()
        area = torch.as_tensor(world.grid.weights / world.grid.weights.sum())
        mean, first = ((field * area).sum((-2, -1)) for field in (state["surface_pressure"].double(), start))
        np.testing.assert_allclose(series["air_drift"][:, lead], mean / first - 1.0, rtol=1e-6, atol=1e-15)


def test_constraints_close_what_is_open_without_them(column_world, weather):
    world = column_world()
    free, held = (rolled(world, weather, made)[0].results().series for made in ({}, laws(world)))
    bars = {"air_drift": 5e-9, "moisture_residual_relative": 1e-6, "energy_residual": 1e-2}
    for name, bar in bars.items():
        assert np.abs(held[name]).max() < bar
        assert np.abs(free[name]).max() > 100.0 * bar


def test_portions_add_up_to_the_whole(column_world, weather):
    world = column_world()
    constraints = laws(world)
    whole = rolled(world, weather, constraints)[0]
    parts = [rolled(world, weather, constraints, rows=rows)[0] for rows in (slice(0, 3), slice(3, 4))]
    merged = Ledger(world, constraints, leads=LEADS, maps=True)
    for part in parts:
        merged.add_partial(part.partial())
    for name, values in whole.results().series.items():
        np.testing.assert_allclose(merged.results().series[name], values, rtol=1e-9, atol=1e-12)
    for key, values in whole.results().shares.items():
        np.testing.assert_allclose(merged.results().shares[key], values, rtol=1e-5)
        for field, again in zip(whole.results().maps[key], merged.results().maps[key], strict=True):
            np.testing.assert_allclose(again, field, rtol=1e-5, atol=1e-12)


def test_batches_of_a_lead_may_come_one_after_another(column_world, weather):
    world = column_world()
    ledger = rolled(world, weather, {}, rows=slice(0, 2))[0]
    rolled(world, weather, {}, ledger, rows=slice(2, 4))
    whole = rolled(world, weather, {})[0].results().series
    for name, values in ledger.results().series.items():
        np.testing.assert_allclose(values, whole[name], rtol=1e-9, atol=1e-12)


def test_what_is_unknown_of_some_initial_times_is_missing_there(column_world, weather):
    world = column_world()
    whole, known = rolled(world, weather, {})[0], rolled(world, weather, {}, rows=slice(2, 4))[0]
    unknown, merged = Ledger(world, {}, leads=LEADS), Ledger(world, {}, leads=LEADS)
    for lead in range(LEADS):
        unknown.add_missing(lead, 2)
    for part in (unknown, known):
        merged.add_partial(part.partial())
    for name, values in merged.results().series.items():
        assert np.isnan(values[:2]).all()
        np.testing.assert_allclose(values[2:], whole.results().series[name][2:], rtol=1e-9, atol=1e-12)
    times = np.datetime64("2001-01-01") + np.arange(4) * np.timedelta64(7, "D")
    assert whole.results().dataset(times, merged.results()).sizes["time"] == 4


def test_the_share_that_a_constraint_changed(column_world, weather):
    """A constraint that doubles the tendency of one variable, and one that halves a diagnostic one."""
    world = column_world()

    class Double:
        changes = ("temperature",)

        def __call__(self, before, after, forcing):
            return after.with_(temperature=2.0 * after["temperature"] - before["temperature"])

    class Halve:
        changes = ("total_precipitation_6hr",)

        def __call__(self, before, after, forcing):
            return after.with_(total_precipitation_6hr=0.5 * after["total_precipitation_6hr"])

    ledger, states = rolled(world, weather, {"double": Double(), "halve": Halve()})
    shares = ledger.results().shares
    np.testing.assert_allclose(shares["double", "temperature"], 1.0, rtol=1e-4)
    np.testing.assert_allclose(shares["halve", "total_precipitation_6hr"], 0.5, rtol=1e-6)
    mean, rms = ledger.results().maps["halve", "total_precipitation_6hr"]
    changed = -torch.stack([state["total_precipitation_6hr"] for state in states]).flatten(0, 1)
    np.testing.assert_allclose(mean[0], changed.mean(0), rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(rms[0], changed.square().mean(0).sqrt(), rtol=1e-4)


def test_a_forecast_that_blows_up_has_no_numbers_there(column_world, weather):
    world = column_world()

    class Burst:
        changes = ("surface_pressure",)

        def __call__(self, before, after, forcing):
            return after.with_(surface_pressure=after["surface_pressure"] * (np.nan if before.origin else 1.001))

    ledger, _ = rolled(world, weather, {"burst": Burst()})
    shares = ledger.results().shares["burst", "surface_pressure"]
    assert shares[0] > 0.0
    assert np.isnan(shares[1:]).all()
    assert np.isfinite(ledger.results().drift_per_year()["air_drift"]).all()
    told = ledger.results().summary()
    assert told["air_drift"]["largest"] is told["share_changed"]["burst: surface_pressure"] is None


def test_constraints_are_not_watched_unasked(column_world, weather):
    world = column_world()
    constraints = laws(world)
    told = []
    step = Step(world, Noise(world), constraints)
    assert step.observer is None
    start, forcing = weather(world, world.prognostic, 1), weather(world, world.forcing, 2)
    alone = step((start,), forcing).values
    step.observer = lambda name, given, constrained: told.append(name)
    assert torch.equal(step((start,), forcing).values, alone)
    assert told == list(constraints)


def test_a_trend_is_a_slope_through_the_start():
    lead = np.arange(1, 21)
    np.testing.assert_allclose(slopes(np.stack([2.5 * lead, -0.1 * lead])), [2.5, -0.1])
    assert slopes(np.array([[1.0]])) == pytest.approx([1.0])
    np.testing.assert_allclose(slopes(np.array([[1.5, 3.0, np.nan, 0.0], [np.nan] * 4])), [1.5, np.nan])


def test_drift_per_year(column_world, weather):
    world = column_world()
    ledger = rolled(world, weather, {})[0]
    series, trend = ledger.results().series, ledger.results().drift_per_year()
    steps = SECONDS / 21_600.0
    np.testing.assert_allclose(trend["air_drift"], slopes(series["air_drift"]) * steps)
    summed = np.cumsum(series["moisture_residual"], axis=1)
    np.testing.assert_allclose(trend["moisture_residual"], slopes(summed) * steps)
    np.testing.assert_allclose(trend["energy_residual"], slopes(np.cumsum(series["energy_residual"], axis=1)))


def test_what_is_wanting_is_left_out_and_said(small_world, column_world, weather):
    world = small_world()
    ledger = Ledger(world, leads=2)
    assert ledger.is_empty
    assert set(ledger.left_out) == {"dry_air", "moisture", "energy"}
    assert all("needs" in told for told in ledger.left_out.values())
    world = column_world("sigma", diagnostic=column_world().diagnostic.select(["total_precipitation_6hr"]))
    ledger, _ = rolled(world, weather, {})
    assert ledger.names == ("air_drift", "dry_air_drift")
    assert "evaporation" in ledger.left_out["moisture"]
    assert ledger.results().summary()["left_out"] == list(ledger.left_out.values())


def test_the_definition_is_that_of_the_constraint(column_world, weather):
    world = column_world()
    constraints = {"energy": TotalEnergy(world, energy="credit")}
    ledger = rolled(world, weather, constraints)[0]
    assert ledger.energy is constraints["energy"].budget
    assert np.abs(ledger.results().series["energy_residual"]).max() < 1e-2
    assert ledger.results().dataset(np.arange(4).astype("datetime64[D]")).attrs["energy"].startswith("credit")


def test_data_have_nothing_to_be_compared_with(column_world, weather):
    world = column_world()
    with pytest.raises(ValueError, match="origin"):
        Ledger(world, leads=1).add(0, weather(world, world.predicted, 0))


def test_the_file_and_the_section_of_the_report(column_world, weather, tmp_path):
    world = column_world()
    free, held = rolled(world, weather, {})[0], rolled(world, weather, laws(world))[0]
    truth, states = Ledger(world, leads=LEADS), rolled(world, weather, {})[1]
    start: State = states[0].origin.before
    truth.add(0, replace(states[0], origin=Origin(start, start, states[0].origin.forcing)))
    inits = np.datetime64("2001-01-01") + 5 * np.arange(4)
    for name, ledger in (("free", free), ("held", held)):
        (tmp_path / name).mkdir()
        write_netcdf(tmp_path / name / "budgets.nc", ledger.results().dataset(inits, truth.results()))
    held_file, free_file = read_budgets(tmp_path / "held"), read_budgets(tmp_path / "free")
    assert read_budgets(tmp_path) is None
    for name, values in held.results().series.items():
        np.testing.assert_array_equal(held_file[name].sel(source="forecast"), values)
        assert held_file[name].attrs["units"]
        assert held_file[name].attrs["definition"]
    assert np.isfinite(held_file["energy_residual"].sel(source="truth").values[:, 0]).all()
    assert np.isnan(held_file["energy_residual"].sel(source="truth").values[:, 1:]).all()
    assert held_file["map_energy_temperature"].dims[:2] == ("statistic", "level_of_temperature")
    further = {"unconstrained": free_file}
    section = budget_section(EvaluationResults("held", xr.Dataset(), budgets=held_file, further_budgets=further))
    assert section.title == "Does it conserve?"
    for text in ("unconstrained", "truth", "Drift per year", "Corrections by the constraints"):
        assert text in section.body
    cells = re.findall(r"<td>([^<]*)<", section.body.split("Drift per year")[1])
    assert len(set(cells[:20:4])) == 5, "each quantity has its own numbers"
    for name in ("forecast", "unconstrained"):  # five charts and the legend
        assert section.body.count(f'<polyline class="line-{name}"') == 6
    free_section = budget_section(EvaluationResults("free", xr.Dataset(), budgets=free_file))
    assert "Corrections by the constraints" not in free_section.body


def test_leads_kept_in_several_ledgers_are_as_in_one(column_world, weather):
    world = column_world()
    constraints = laws(world)
    whole, states = rolled(world, weather, constraints)
    merged = Ledger(world, constraints, leads=LEADS)
    running: dict = {}
    for first in range(LEADS):
        part = Ledger(world, constraints, leads=1, first=first).restore(running)
        part.add(first, states[first])
        running = part.carried_state()
        merged.add_partial(part.partial(), first)
    for name, values in whole.results().series.items():
        np.testing.assert_array_equal(merged.results().series[name], values)
