"""Constraints against the fixers of CREDIT (miles-credit 2026.2.0), by point where it is installed, else by numbers.

CREDIT's cell areas (second-order differences of the sine of latitude) do not add up to the sphere, by 1.2e-3 on 32
rows, so its budgets close for other areas than ours; here its fixers are handed ours. On pressure levels it splits a
trapezoidal integral between levels: the level that both parts share changes in one of them only, and 15 to 30 % of the
error in mass stays. With a weight of its own for every level nothing stays; the test says how much CREDIT leaves.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from emulators.constraints.dry_air_mass import DryAirMass
from emulators.constraints.moisture_budget import MoistureBudget
from emulators.constraints.total_energy import TotalEnergy
from emulators.physics.budgets import DryAir, Energy
from emulators.state import State
from emulators.variables import Variable, VariableSet
from emulators.world import Vertical

# name: (units, mean, amplitude, positive, cell); as CREDIT reads them: means at the top, sums at the surface
FLUXES = {
    "total_precipitation": ("m", 8e-4, 6e-4, "down", "sum 6h"),
    "evaporation": ("m", -8e-4, 3e-4, "down", "sum 6h"),
    "surface_latent_heat_flux": ("J m-2", -2e6, 8e5, "down", "sum 6h"),
    "surface_sensible_heat_flux": ("J m-2", -4e5, 4e5, "down", "sum 6h"),
    "DSWRFsfc": ("J m-2", 4e6, 2e6, "down", "sum 6h"),
    "USWRFsfc": ("J m-2", 5e5, 2e5, "up", "sum 6h"),
    "DLWRFsfc": ("J m-2", 7e6, 1e6, "down", "sum 6h"),
    "ULWRFsfc": ("J m-2", 8.4e6, 1e6, "up", "sum 6h"),
    "USWRFtoa": ("W m-2", 100.0, 40.0, "up", "mean"),
    "ULWRFtoa": ("W m-2", 238.0, 40.0, "up", "mean"),
    "DSWRFtoa": ("W m-2", 340.0, 200.0, "down", "mean"),
}
# What CREDIT gave at (case 1, row 2, column 5), top level for temperature: the number after less the one before.
RECORDED = {
    "mass": -5.057309647372e02,
    "water": -6.993950230279e-04,
    "energy": -3.385642173443e00,
}
PLACE = (1, 2, 5)
HALVES = Vertical("hybrid", (0.0, 9e3, 8e3, 2e3, 0.0), (0.0, 0.125, 0.375, 0.75, 1.0))  # floats, as CREDIT has them
LAWS = {
    "mass": (lambda w: DryAirMass(w, form="ratio", reference="before"), "surface_pressure"),
    "water": (MoistureBudget, "total_precipitation"),
    "energy": (lambda w: TotalEnergy(w, form="ratio", energy="credit"), "temperature"),
}


def fields(world, variables, phase: float) -> State:
    """Two cases of smooth waves about plausible means, the same on every machine."""
    latitude, longitude = np.deg2rad(world.grid.latitude)[:, None], np.deg2rad(world.grid.longitude)[None]
    channels = []
    for number, channel in enumerate(variables.channels):
        if channel in FLUXES:
            mean, amplitude = FLUXES[channel][1:3]
        else:
            mean, amplitude = world.scales[channel].mean, world.scales[channel].std
        waves = [np.sin((2 + n) * longitude + phase * (number + 1)) * np.cos(latitude + 0.3 * number) for n in (0, 1)]
        channels.append(mean + amplitude * (phase + np.stack(waves)))
    values = torch.from_numpy(np.stack(channels, axis=1))
    return State(values, variables, np.array(["2000-01-01", "2000-01-02"], "datetime64[s]"))


def variables(names) -> VariableSet:
    return VariableSet(tuple(Variable(n, FLUXES[n][0], (), *FLUXES[n][3:]) for n in names))


@pytest.fixture(scope="module")
def world(column_world):
    names = list(FLUXES)
    return replace(
        column_world("hybrid"), vertical=HALVES, diagnostic=variables(names[:-1]), forcing=variables(names[-1:])
    )


@pytest.fixture(scope="module")
def states(world):
    return tuple(
        fields(world, v, p) for v, p in ((world.prognostic, 0.1), (world.predicted, 0.35), (world.forcing, 0.2))
    )


def ours(name, world, states):
    law, changed = LAWS[name]
    before, after, forcing = states
    return law(world)(before, after, forcing)[changed], after[changed]


@pytest.mark.parametrize("name", LAWS)
def test_recorded_numbers(name, world, states):
    lawful, raw = ours(name, world, states)
    change = (lawful - raw).select(-3, 0) if name == "energy" else lawful - raw
    assert change[PLACE].item() == pytest.approx(RECORDED[name], rel=1e-7)


def statics(world, folder) -> dict:
    """The options of CREDIT's fixers, with the file they read."""
    longitude, latitude = np.meshgrid(world.grid.longitude, world.grid.latitude)
    grid = {"lon": (("y", "x"), longitude), "lat": (("y", "x"), latitude)}
    levels = {"level": ("level", 100.0 * np.array([200.0, 500.0, 850.0, 1000.0]))}
    half = {"a": ("half", np.array(HALVES.a)), "b": ("half", np.array(HALVES.b))}
    ground = {"PHIS": (("y", "x"), world.static_fields[1])}
    xr.Dataset({**grid, **levels, **half, **ground}).to_netcdf(folder / "physics.nc")
    return {
        "save_loc_physics": str(folder / "physics.nc"),
        "lon_lat_level_name": ["lon", "lat", "a", "b"],
        "grid_type": "sigma",
        "midpoint": True,
    }


def as_credit(*states: State) -> dict[str, torch.Tensor]:
    """Fields (batch, level, time, lat, lon) by their keys."""
    found = {}
    for state in states:
        for variable in state.variables:
            field = state[variable.name] if variable.levels else state[variable.name].unsqueeze(1)
            found[f"x/{variable.name}"] = field.unsqueeze(2)
    return {"x": found}


def theirs(name, world, states, folder):
    """The field that CREDIT's fixer leaves."""
    conservation = pytest.importorskip("credit.postblock.conservation")
    state = {"q_var": "x/specific_humidity", "sp_var": "x/surface_pressure"}
    if name == "mass":
        fixer = conservation.GlobalMassFixer(**state, **statics(world, folder))
    elif name == "water":
        rain = {"precip_var": "x/total_precipitation", "evapor_var": "x/evaporation", "lead_time_periods": 6}
        fixer = conservation.GlobalWaterFixer(**state, **rain, **statics(world, folder))
    else:
        fixer = conservation.GlobalEnergyFixerUpDown(
            **state,
            T_var="x/temperature",
            U_var="x/u_component_of_wind",
            V_var="x/v_component_of_wind",
            surface_geopotential_name="PHIS",
            toa_down_solar_input_var="x/DSWRFtoa",
            toa_up_solar_var="x/USWRFtoa",
            toa_up_olr_var="x/ULWRFtoa",
            surf_down_solar_var="x/DSWRFsfc",
            surf_up_solar_var="x/USWRFsfc",
            surf_down_lw_var="x/DLWRFsfc",
            surf_up_lw_var="x/ULWRFsfc",
            surf_sh_var="x/surface_sensible_heat_flux",
            surf_lh_var="x/surface_latent_heat_flux",
            lead_time_periods=6,
            **statics(world, folder),
        )
    fixer.core.area = torch.as_tensor(world.grid.weights)
    before, after, forcing = states
    batch = {"x_physical": as_credit(before, forcing), "y_processed": as_credit(after)}
    found = fixer(batch)["y_processed"]["x"][f"x/{LAWS[name][1]}"][:, :, 0]
    return found if name == "energy" else found[:, 0]


@pytest.mark.parametrize("name", LAWS)
def test_every_point(name, world, states, tmp_path):
    found, raw = theirs(name, world, states, tmp_path), ours(name, world, states)[1]
    assert (found - raw).abs().max() > 0, "the fixer has something to do"
    torch.testing.assert_close(ours(name, world, states)[0], found, rtol=1e-12, atol=1e-12 * float(raw.abs().max()))


def test_energy_of_columns(world, states):
    """CREDIT's integral of CREDIT's energy: the trapezoid is for pressure levels, layers are summed."""
    physics = pytest.importorskip("credit.physics_core")
    longitude, latitude = (torch.from_numpy(x) for x in np.meshgrid(world.grid.longitude, world.grid.latitude))
    core = physics.physics_hybrid_sigma_level(longitude, latitude, torch.tensor(HALVES.a), torch.tensor(HALVES.b), True)
    before = states[0]
    budget = Energy(world, energy="credit")
    energy = budget.heat_capacity(before) * before["temperature"] + budget.other(before)
    found = core.integral(energy, before["surface_pressure"]) / 9.80665
    torch.testing.assert_close(budget.content(before), found, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("layers", [2, 3])
def test_mass_on_pressure_levels(column_world, layers, tmp_path):
    """The same mass is aimed at; CREDIT leaves 10 % of the error and more, ours none."""
    gen1 = pytest.importorskip("credit.postblock.gen1")
    world = column_world("pressure")
    before, after = (fields(world, v, p) for v, p in ((world.prognostic, 0.1), (world.prognostic, 0.35)))
    after = after.with_(specific_humidity=after["specific_humidity"] * 1.5)
    budget = DryAir(world, columns="fixed")
    options = {"simple_demo": False, "grid_type": "pressure", "midpoint": False, "denorm": False}
    options |= {"lon_lat_level_name": ["lon", "lat", "level"], "fix_level_num": layers, "q_inds": [0, 1, 2, 3]}
    where = statics(world, tmp_path)["save_loc_physics"]
    fixer = gen1.GlobalMassFixer({"data": {"save_loc_physics": where}, "global_mass_fixer": options})
    fixer.core_compute.area = torch.as_tensor(world.grid.weights)
    mass = fixer.core_compute.total_dry_air_mass(before["specific_humidity"]) / world.grid.weights.size
    torch.testing.assert_close(mass, budget.mean(budget.content(before)).flatten(), rtol=1e-12, atol=0.0)
    humidity = torch.cat([s["specific_humidity"].unsqueeze(2) for s in (before, after)], dim=2)
    left = fixer({"x": humidity[:, :, :1], "y_pred": humidity[:, :, 1:]})["y_pred"][:, :, 0]
    law = DryAirMass(world, form="humidity", layers=layers, columns="fixed", reference="before")
    lawful = law(before, after, after)

    def error(humidity):
        return (budget.mean(budget.content(after.with_(specific_humidity=humidity))).flatten() - mass).abs()

    raw = error(after["specific_humidity"])
    assert (error(left) > 0.1 * raw).all()
    assert (error(lawful["specific_humidity"]) < 1e-10 * raw).all()
