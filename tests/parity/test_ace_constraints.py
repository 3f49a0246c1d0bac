"""Constraints against the corrector of ACE (fme 2026.10.0), field by field where fme is installed, else by its numbers.

Means are by exact cell areas on both sides; fme itself takes the cosine of latitude. Two things differ on purpose: fme
adds the offset of dry air and the corrections of water and energy in the precision of the fields, so that a shift below
half a float is lost or doubled (`emulators.physics.columns.round_keeping_mean`), and sums the budgets of water and
energy in single precision. In double precision, as here, both give the same numbers.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from emulators.constants import GRAVITY
from emulators.constraints.dry_air_mass import DryAirMass
from emulators.constraints.moisture_budget import MoistureBudget
from emulators.constraints.total_energy import TotalEnergy
from emulators.constraints.zero_mean_moisture_advection import ZeroMeanMoistureAdvection
from emulators.physics.budgets import Energy
from emulators.state import State
from emulators.variables import Variable, VariableSet

# name: (units, mean, amplitude, positive)
DIAGNOSTIC = {
    "PRATEsfc": ("kg m-2 s-1", 4e-5, 3e-5, "down"),
    "total_frozen_precipitation_rate": ("kg m-2 s-1", 4e-6, 3e-6, "down"),
    "LHTFLsfc": ("W m-2", 90.0, 60.0, "up"),
    "SHTFLsfc": ("W m-2", 20.0, 30.0, "up"),
    "DSWRFsfc": ("W m-2", 180.0, 90.0, "down"),
    "USWRFsfc": ("W m-2", 25.0, 10.0, "up"),
    "DLWRFsfc": ("W m-2", 330.0, 50.0, "down"),
    "ULWRFsfc": ("W m-2", 390.0, 60.0, "up"),
    "USWRFtoa": ("W m-2", 100.0, 40.0, "up"),
    "ULWRFtoa": ("W m-2", 238.0, 40.0, "up"),
    "tendency_of_total_water_path_due_to_advection": ("kg m-2 s-1", 2e-6, 3e-5, "in"),
}
FORCING = {"DSWRFtoa": ("W m-2", 340.0, 200.0, "down")}
# What fme gave for these fields, at (case 1, row 2, column 5): the number after correction less the one before.
RECORDED = {
    "dry air": -4.995111859636e02,
    "advection": -1.250000000000e-05,
    "precipitation": -2.107462551414e-05,
    "evaporation": 3.985311843430e01,
    "closed advection": -3.052841284910e-05,
    "energy": -3.771715806976e00,
}
PLACE = (1, 2, 5)


@pytest.fixture(scope="module")
def world(column_world):
    made = column_world("hybrid")
    fluxes = {**DIAGNOSTIC, **FORCING}
    sets = [VariableSet(tuple(Variable(n, fluxes[n][0], (), fluxes[n][3], "mean") for n in names))
            for names in (DIAGNOSTIC, FORCING)]  # fmt: skip
    return replace(made, diagnostic=sets[0], forcing=sets[1])


def fields(world, variables, phase: float) -> State:
    """Two cases of smooth waves about plausible means, the same on every machine."""
    known = {**DIAGNOSTIC, **FORCING}
    latitude, longitude = np.deg2rad(world.grid.latitude)[:, None], np.deg2rad(world.grid.longitude)[None]
    channels = []
    for number, channel in enumerate(variables.channels):
        if channel in known:
            _, mean, amplitude, _ = known[channel]
        else:
            mean, amplitude = world.scales[channel].mean, world.scales[channel].std
        waves = [np.sin((2 + n) * longitude + phase * (number + 1)) * np.cos(latitude + 0.3 * number) for n in (0, 1)]
        channels.append(mean + amplitude * (phase + np.stack(waves)))
    values = torch.from_numpy(np.stack(channels, axis=1))
    return State(values, variables, np.array(["2000-01-01", "2000-01-02"], "datetime64[s]"))


@pytest.fixture(scope="module")
def states(world):
    return tuple(
        fields(world, v, p) for v, p in ((world.prognostic, 0.1), (world.predicted, 0.35), (world.forcing, 0.2))
    )


LAWS = {
    "dry air": (lambda w: DryAirMass(w, reference="before"), "surface_pressure"),
    "advection": (ZeroMeanMoistureAdvection, "tendency_of_total_water_path_due_to_advection"),
    "precipitation": (MoistureBudget, "PRATEsfc"),
    "evaporation": (lambda w: MoistureBudget(w, closing="evaporation"), "LHTFLsfc"),
    "closed advection": (
        lambda w: MoistureBudget(w, closing="advection_and_precipitation"),
        "tendency_of_total_water_path_due_to_advection",
    ),
    "energy": (lambda w: TotalEnergy(w, energy="ace", unaccounted=1.14), "temperature"),
}


def ours(name, world, states):
    law, changed = LAWS[name]
    before, after, forcing = states
    return law(world)(before, after, forcing)[changed], after[changed]


@pytest.mark.parametrize("name", LAWS)
def test_recorded_numbers(name, world, states):
    lawful, raw = ours(name, world, states)
    change = (lawful - raw).select(-3, 0) if name == "energy" else lawful - raw
    assert change[PLACE].item() == pytest.approx(RECORDED[name], rel=1e-8)


def as_ace(state: State, world) -> dict[str, torch.Tensor]:
    names = {"temperature": "air_temperature", "specific_humidity": "specific_total_water"}
    data = {f"{names[n]}_{k}": state[n][:, k] for n in names if n in state.variables for k in range(4)}
    data |= {n: state[n] for n in (*DIAGNOSTIC, *FORCING) if n in state.variables}
    if "surface_pressure" in state.variables:
        data["PRESsfc"] = state["surface_pressure"]
    ground = torch.as_tensor(world.static_fields[1], dtype=torch.float64) / GRAVITY
    return data | {"HGTsfc": ground.expand(2, -1, -1)}


def theirs(name, world, states):
    """The field that fme's corrector leaves."""
    atmosphere = pytest.importorskip("fme.core.corrector.atmosphere")
    coordinates = pytest.importorskip("fme.core.coordinates")
    vertical = coordinates.HybridSigmaPressureCoordinate(
        torch.tensor(world.vertical.a, dtype=torch.float64), torch.tensor(world.vertical.b, dtype=torch.float64)
    )
    weights = torch.as_tensor(world.grid.weights / world.grid.weights.sum())

    def mean(data, keepdim=False, name=None):
        return (data * weights).sum((-2, -1), keepdim=keepdim)

    before, after, forcing = (as_ace(s, world) for s in states)
    common = {"input_data": before, "gen_data": after, "area_weighted_mean": mean, "vertical_coordinate": vertical}
    if name == "dry air":
        seed = atmosphere._seed_global_dry_air_mass(before, None, mean, vertical, torch.float64)
        target = seed.global_dry_air_mass
        return atmosphere._adjust_gen_dry_air_to_target(after, target, mean, vertical, torch.float64)["PRESsfc"]
    if name == "advection":
        found = atmosphere._force_zero_global_mean_moisture_advection(after, mean)
        return found["tendency_of_total_water_path_due_to_advection"]
    if name == "energy":
        found = atmosphere._force_conserve_total_energy(
            **common, forcing_data=forcing, timestep_seconds=21600.0, unaccounted_heating=1.14
        )
        return torch.stack([found[f"air_temperature_{k}"] for k in range(4)], dim=1)
    closing = "advection_and_precipitation" if name == "closed advection" else name
    found = atmosphere._force_conserve_moisture(**common, timestep_seconds=21600.0, terms_to_modify=closing)
    return found[LAWS[name][1]]


@pytest.mark.parametrize("name", LAWS)
def test_every_point(name, world, states):
    found, raw = theirs(name, world, states), ours(name, world, states)[1]
    lawful = ours(name, world, states)[0]
    assert (found - raw).abs().max() > 0, "the corrector has something to do"
    torch.testing.assert_close(lawful, found, rtol=1e-12, atol=1e-12 * float(raw.abs().max()))


def test_energy_of_columns(world, states):
    data = pytest.importorskip("fme.core.atmosphere_data")
    coordinates = pytest.importorskip("fme.core.coordinates")
    vertical = coordinates.HybridSigmaPressureCoordinate(
        torch.tensor(world.vertical.a, dtype=torch.float64), torch.tensor(world.vertical.b, dtype=torch.float64)
    )
    before = states[0]
    found = data.AtmosphereData(as_ace(before, world), vertical).total_energy_ace2_path
    torch.testing.assert_close(Energy(world, energy="ace").content(before), found, rtol=1e-12, atol=0.0)
