"""Twins: how errors are added up, what the fitted growth and the limits are, and the file beside the store."""

import copy

import numpy as np
import pytest
import torch
import xarray as xr

from data_pipelines.inspection import predictability as experiment_module
from data_pipelines.inspection.predictability import (
    crossing_time,
    doubling_time,
    error_growth,
    predictability,
    predictability_limits,
    predictability_path,
    reference_curves,
    saturation,
    stored_predictability,
    with_saturation,
)
from data_pipelines.interfaces import TwinCase
from data_pipelines.simulators.planet.trajectories import SkinEstimate
from data_pipelines.sources.netcdf import NetCDF
from data_pipelines.sources.planet import Planet
from data_pipelines.sources.planet_pressure import PlanetPressure
from emulators.grid import gaussian_grid

GRID = gaussian_grid(8)
SPLITS = {"train": ["2001-01-01", "2001-01-03"], "validation": ["2001-01-04"] * 2, "test": ["2001-01-05"] * 2}
TINY = {"days": 5, "trajectories": 1, "spinup_days": 1, "truncation": 10, "levels": 4, "timestep_minutes": 120}


def offsets(*numbers: float) -> list[dict[str, np.ndarray]]:
    """Samples that are the same everywhere: a column of two levels, a surface field and a forcing."""
    ones = np.ones(GRID.shape, dtype=np.float32)
    return [
        {"temperature": np.stack([n * ones, 2 * n * ones]), "surface_pressure": 100 * n * ones, "light": ones}
        for n in numbers
    ]


def test_errors_are_means_of_squares_over_cases() -> None:
    cases = [
        TwinCase(offsets(1)[0], iter(offsets(2, 4)), iter(offsets(3, 6))),
        TwinCase(offsets(4)[0], iter(offsets(2, 0)), iter(offsets(5, 8))),
    ]
    found = error_growth(cases, 2, GRID)
    assert found["temperature"].dims == ("source", "region", "lead_time", "level")
    assert list(found) == ["temperature", "surface_pressure"], "what twins share is left out"
    for region in experiment_module.REGIONS:
        here = found.sel(region=region)
        upper, lower = (here.temperature.isel(level=k) for k in (0, 1))
        np.testing.assert_allclose(upper.sel(source="twin"), np.sqrt([(1 + 9) / 2, (4 + 64) / 2]))
        np.testing.assert_allclose(upper.sel(source="persistence"), np.sqrt([(1 + 4) / 2, (9 + 16) / 2]))
        np.testing.assert_allclose(lower, 2.0 * upper)
        np.testing.assert_allclose(here.surface_pressure, 100.0 * upper)
    assert (found.lead_time.values / np.timedelta64(1, "h")).tolist() == [6.0, 12.0]


def test_saturation_is_what_independent_states_differ_by() -> None:
    generator = np.random.default_rng(0)
    times = np.datetime64("2001-01-01", "ns") + np.arange(1600) * np.timedelta64(6, "h")
    season = 10.0 * np.cos(2 * np.pi * np.arange(1600) / 1461.0)[:, None, None, None]
    fields = season + generator.normal(size=(1600, 2, *GRID.shape)) * np.array([1.0, 3.0])[:, None, None]
    dataset = xr.Dataset(
        {"t": (("time", "level", "latitude", "longitude"), fields.astype(np.float32))},
        {"time": times, "latitude": GRID.latitude, "longitude": GRID.longitude},
    )
    known = saturation(dataset, ["t"])["t"]
    assert known.shape == (4, 2)
    np.testing.assert_allclose(known, np.broadcast_to(np.sqrt(2.0) * np.array([1.0, 3.0]), (4, 2)), rtol=0.05)
    short = saturation(dataset.isel(time=slice(100)), ["t"])["t"]  # a part of the season is no climatology
    np.testing.assert_allclose(short[0], np.sqrt(2.0) * np.array([1.0, 3.0]), rtol=0.1)


def test_logistic_growth_is_found_again() -> None:
    days = np.arange(1, 161) / 4
    rate, limit = np.log(2.0) / 2.5, 6.0
    curve = limit / (1.0 + np.exp(-rate * (days - 12.0)))
    assert doubling_time(curve, limit, days) == pytest.approx(2.5, rel=1e-6)
    assert crossing_time(curve, 3.0, days) == pytest.approx(12.0, abs=1e-6)
    assert crossing_time(curve, 7.0, days) == np.inf
    assert crossing_time(curve + 5.0, 1.0, days) == days[0]
    assert np.isnan(doubling_time(np.full(20, 7.0), limit, days[:20])), "saturated from the start"
    assert np.isnan(doubling_time(np.linspace(2.0, 1.0, 20), limit, days[:20])), "errors that die out"
    field = xr.DataArray(
        np.stack([curve, curve, np.full(160, limit)]),
        dims=("source", "lead_time"),
        coords={"source": list(experiment_module.SOURCES), "lead_time": (days * 86400e9).astype("timedelta64[ns]")},
    )
    found = predictability_limits(field)
    assert found.doubling == pytest.approx(2.5, rel=1e-6)
    assert found.useful == pytest.approx(12.0 + np.log(1 / (np.sqrt(2.0) - 1.0)) / rate, abs=0.02)
    assert found.last == pytest.approx(12.0 + np.log(19.0) / rate, abs=0.02)
    assert found.saturation == limit


def test_curves_are_scores_up_to_a_lead() -> None:
    growth = error_growth([TwinCase(offsets(0)[0], iter(offsets(1, 2, 3)), iter(offsets(2, 4, 6)))], 3, GRID)
    known = {"temperature": np.full((4, 2), 9.0), "surface_pressure": np.full(4, 900.0)}
    found = reference_curves(with_saturation(growth, known).assign_attrs(cases=1), np.timedelta64(12, "h"))
    assert list(found) == ["predictability", "saturation"]
    for dataset in found.values():
        assert dataset.sizes == {"metric": 1, "region": 4, "lead_time": 2, "level": 2}
        assert dataset.attrs == {"cases": 1}
    np.testing.assert_allclose(found["predictability"].surface_pressure[0, 0], [100.0, 200.0])
    np.testing.assert_allclose(found["saturation"].surface_pressure, 900.0)
    assert (
        reference_curves(with_saturation(growth, known), np.timedelta64(1, "h"))["saturation"].sizes["lead_time"] == 1
    )


@pytest.fixture(scope="module")
def planet(tmp_path_factory) -> Planet:
    planet = Planet(splits=SPLITS, folder=str(tmp_path_factory.mktemp("planet")), **TINY)
    planet.prepare()
    return planet


def test_twins_part_but_slower_than_the_weather_changes(planet) -> None:
    shares = []
    found = predictability(planet, cases=2, days=2, perturbation=0.05, report=lambda label, share: shares.append(share))
    assert found.sizes == {"source": 3, "region": 4, "lead_time": 8, "level": 4}
    assert {"temperature", "geopotential", "surface_pressure", "total_precipitation_6hr"} <= set(found)
    assert "toa_incident_solar_radiation" not in found
    assert found.temperature.attrs["units"] == "K"
    error = found["temperature"].sel(level=found.level[2], region="global")
    assert (error.sel(source="twin") < 0.3 * error.sel(source="persistence")).all()
    assert 0.0 < float(error.sel(source="twin")[0]) < 0.05
    assert float(error.sel(source="saturation").std()) == 0.0
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    assert predictability_path(planet).name == f"{planet.path.stem}.predictability.nc"
    xr.testing.assert_identical(
        stored_predictability(planet), predictability(planet, cases=2, days=2, perturbation=0.05)
    )


def test_a_file_of_other_settings_is_made_anew_and_an_interrupted_one_not_at_all(planet, monkeypatch) -> None:
    written = []
    monkeypatch.setattr(experiment_module, "write_netcdf", lambda *file: written.append(file))
    other = copy.copy(planet)
    other.path = planet.path.with_name("another.zarr")

    def interrupt(label, share):
        if share > 0.5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Planet, "dataset", lambda self: xr.open_zarr(planet.path, consolidated=False))
    with pytest.raises(KeyboardInterrupt):
        predictability(other, cases=1, days=1, perturbation=0.1, report=interrupt)
    assert not written
    first = predictability(planet, cases=1, days=1, perturbation=0.1)
    again = predictability(planet, cases=1, days=1, perturbation=0.2)
    assert len(written) == 2
    assert again.attrs["perturbation"] == 0.2
    assert float(again.temperature[0].max()) > 1.5 * float(first.temperature[0].max())


def test_a_twin_forgets_the_land_and_what_it_knows_of_the_air_tells_most_of_it(planet) -> None:
    report = lambda label, share: None  # noqa: E731
    land = planet.static()["land_sea_mask"]
    errors = {}
    for forgotten in ((), ("skin_temperature",)):
        case = next(iter(planet.twins(1, 1, 1e-3, report, forgotten)))
        truth, twin = next(case.control), next(case.twin)
        errors[forgotten] = {name: np.abs(twin[name] - truth[name]) for name in ("skin_temperature", "temperature")}
        np.testing.assert_allclose(twin["sea_surface_temperature"], truth["sea_surface_temperature"])
    known, forgot = errors.values()
    assert all(np.isfinite(field).all() for field in twin.values()), "also where there is hardly any land"
    assert forgot["skin_temperature"].max() > 10.0 * known["skin_temperature"].max()
    assert forgot["skin_temperature"][land == 0.0].max(initial=0.0) < 0.01, "water is prescribed"
    assert forgot["temperature"][-1].mean() > forgot["temperature"][0].mean(), "the ground acts from below"
    found = predictability(planet, cases=1, days=1, perturbation=1e-3, forgotten=["skin_temperature"])
    assert experiment_module.experiment_summary(found.attrs).endswith("not knowing skin_temperature")
    with pytest.raises(ValueError, match="can forget skin_temperature; got temperature"):
        predictability(planet, cases=1, days=1, perturbation=0.1, forgotten=["temperature"])


def test_the_skin_is_estimated_from_hour_and_air() -> None:
    generator = np.random.default_rng(0)
    times = np.datetime64("2001-01-01", "ns") + np.arange(400) * np.timedelta64(6, "h")
    air = generator.normal(280.0, 3.0, size=(400, 2, *GRID.shape))
    skin = 5.0 * np.cos(2 * np.pi * np.arange(400) / 4)[:, None, None] + 0.7 * air[:, -1] + 100.0
    dims = ("time", "latitude", "longitude")
    fields = {"skin_temperature": (dims, skin), "temperature": ((dims[0], "level", *dims[1:]), air)}
    estimate = SkinEstimate(xr.Dataset(fields, {"time": times}))
    found = estimate(times[401 % 4].astype("datetime64[s]"), torch.from_numpy(air[1, -1]))
    np.testing.assert_allclose(found, skin[1], atol=0.02)


def test_the_view_shows_the_same_twins(planet) -> None:
    view = PlanetPressure(planet=planet, levels=[500, 850], grid="gaussian")
    view.prepare()
    report = lambda label, share: None  # noqa: E731
    pairs = zip(planet.twins(1, 2, 0.1, report), view.twins(1, 2, 0.1, report), strict=True)
    for own, seen in pairs:
        for one, other in zip(own.twin, seen.twin, strict=True):
            np.testing.assert_array_equal(one["surface_pressure"], other["surface_pressure"])
            assert other["geopotential"].shape == (2, *planet.grid.shape)
    found = predictability(view, cases=1, days=1, perturbation=0.1)
    assert found.level.values.tolist() == [500, 850]
    assert "mean_sea_level_pressure" in found
    assert stored_predictability(NetCDF("absent.nc")) is None


def test_settings_that_make_no_twins_are_refused(planet) -> None:
    with pytest.raises(ValueError, match="at least one case and one day"):
        predictability(planet, cases=0, days=1, perturbation=0.1)
    with pytest.raises(ValueError, match="a perturbation above 0"):
        predictability(planet, cases=1, days=1, perturbation=0.0)
