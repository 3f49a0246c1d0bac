"""Fluxes: signs and sums as the data declare them, refused where they do not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from data_pipelines.batches.world import VariableRoles, flux_conventions, world_from_dataset
from data_pipelines.conventions.attributes import with_ecmwf_fluxes
from data_pipelines.sources.planet import Planet
from emulators.physics.fluxes import find, flux
from emulators.variables import Variable, VariableSet

SPLITS = {"train": ["2001-01-01", "2001-01-02"]}


def with_diagnostic(made, *variables):
    return replace(made, diagnostic=VariableSet(variables))


@pytest.mark.parametrize(
    ("name", "units", "positive", "cell", "factor"),
    [
        ("total_precipitation_6hr", "m", "down", "sum", -1000.0),
        ("evaporation", "m", "down", "sum 6h", -1000.0),  # ERA5: negative where water evaporates
        ("evaporation_6hr", "m", "up", "sum", 1000.0),
        ("mean_total_precipitation_rate", "kg m-2 s-1", "down", "mean 6h", -21600.0),
        ("PRATEsfc", "kg/m**2/s", "down", "mean", -21600.0),
        ("top_net_thermal_radiation", "J m-2", "down", "sum 6h", 1.0),
        ("ULWRFtoa", "W m-2", "up", "mean", -21600.0),
        ("DSWRFsfc", "W/m^2", "down", "mean", -21600.0),
        ("net_radiation_6hr", "J m-2", "in", "sum", 1.0),
        ("vertically_integrated_moisture_divergence", "kg m-2", "out", "sum 6h", -1.0),
    ],
)
def test_what_the_column_gains(column_world, name, units, positive, cell, factor):
    made = with_diagnostic(column_world(), Variable(name, units, (), positive, cell))
    assert flux(made, name).factor == pytest.approx(factor)


@pytest.mark.parametrize(
    ("variable", "says"),
    [
        (Variable("evaporation_6hr", "m", (), "", "sum"), "which way it counts as positive"),
        (Variable("evaporation_6hr", "m", (), "up", ""), "cell_methods"),
        (Variable("evaporation_6hr", "m", (), "up", "point"), "declare 'point'"),
        (Variable("PRATEsfc", "kg m-2 s-1", (), "down", "sum"), "must be a mean"),
        (Variable("total_precipitation_24hr", "m", (), "down", "sum"), "covers 24 h, but a timestep takes 6 h"),
        (Variable("total_precipitation", "m", (), "down", "sum 1h"), "covers 1 h"),
        (Variable("evaporation_6hr", "K", (), "up", "sum"), "must be in one of"),
    ],
)
def test_what_is_not_declared_is_not_guessed(column_world, variable, says):
    with pytest.raises(ValueError, match=says):
        flux(with_diagnostic(column_world(), variable), variable.name)


def test_net_or_both_ways(column_world):
    down, up = (Variable(f"{d}SWRFsfc", "W m-2", (), way, "mean") for d, way in (("D", "down"), ("U", "up")))
    role = "solar radiation at the surface"
    assert [one.factor for one in find(with_diagnostic(column_world(), down, up), role)] == [-21600.0, 21600.0]
    assert find(with_diagnostic(column_world(), down), role) == []


def test_of_several_the_one_that_fits_the_timestep(column_world):
    rain = [Variable(f"total_precipitation_{h}hr", "m", (), "down", "sum") for h in (12, 24, 6)]
    assert find(with_diagnostic(column_world(), *rain), "precipitation")[0].name == "total_precipitation_6hr"
    with pytest.raises(ValueError, match="covers 12 h"):
        find(with_diagnostic(column_world(), *rain[:2]), "precipitation")


def test_water_and_heat_are_one_flux(column_world):
    latent = Variable("surface_latent_heat_flux", "J m-2", (), "down", "sum 6h")
    made = flux(with_diagnostic(column_world(), latent), latent.name)
    assert made.evaporation_factor == pytest.approx(-1 / 2.5e6)
    assert flux(column_world(), "evaporation_6hr").heat_factor() == pytest.approx(2.5e9)
    assert flux(column_world(), "evaporation_6hr").heat_factor(2.501e6) == pytest.approx(2.501e9)


def test_the_planet_declares_its_fluxes():
    roles = VariableRoles(prognostic=["temperature"], diagnostic=["evaporation_6hr", "total_precipitation_6hr"])
    made = world_from_dataset(Planet(splits=SPLITS, days=2, truncation=10, levels=4).template(), roles)
    evaporation, rain = made.diagnostic
    assert (evaporation.positive, evaporation.cell) == ("up", "sum 6h")
    assert (rain.positive, rain.cell) == ("down", "sum 6h")
    again = VariableSet.from_plain(made.diagnostic.plain())
    assert [(v.positive, v.cell) for v in again] == [("up", "sum 6h"), ("down", "sum 6h")]
    assert Variable("evaporation_6hr", evaporation.units) == evaporation, "what a variable is does not depend on it"


def test_the_european_convention():
    names = ("total_precipitation_6hr", "evaporation", "mean_surface_sensible_heat_flux", "2m_temperature")
    data = xr.Dataset({name: ("time", np.zeros(2)) for name in names})
    assert flux_conventions(data, "evaporation") == ("", "")
    assert [flux_conventions(with_ecmwf_fluxes(data), name) for name in names] == [
        ("down", "sum 6h"), ("down", "sum 1h"), ("down", "mean 1h"), ("", ""),
    ]  # fmt: skip
    data["evaporation"].attrs = {"positive": "up", "cell_methods": "time: sum (interval: 6 hours)"}
    assert flux_conventions(with_ecmwf_fluxes(data), "evaporation") == ("up", "sum 6h")


def test_values_from_what_is_predicted_or_prescribed(column_world, weather):
    made = column_world()
    after, forcing = weather(made, made.predicted, 1), weather(made, made.forcing, 2)
    gain = flux(made, "net_radiation_6hr").gain(after, forcing)
    torch.testing.assert_close(gain, after["net_radiation_6hr"])
    moved = replace(made, diagnostic=VariableSet(), forcing=made.forcing + made.diagnostic)
    prescribed = weather(moved, moved.forcing, 2)
    torch.testing.assert_close(flux(moved, "evaporation_6hr").gain(after.select(["temperature"]), prescribed),
                               1000 * prescribed["evaporation_6hr"])  # fmt: skip
