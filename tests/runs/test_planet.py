"""The embedded planet as a store: its layout, its budgets, its repeatability, and what a killed run leaves behind."""

import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import emul
from data_pipelines.conventions.durations import bounds
from data_pipelines.reading.threads import one_thread
from data_pipelines.simulators.planet import trajectories
from data_pipelines.simulators.planet.climate import Climate
from data_pipelines.sources.planet import VARIABLES, Planet, default_timestep, half_levels
from emul.config.build import build
from emul.config.compose import compose
from emulators.constants import GRAVITY, HEAT_CAPACITY_DRY, LATENT_HEAT_VAPORISATION, WATER_DENSITY
from emulators.grid import LatLonGrid
from emulators.physics.insolation import insolation
from emulators.physics.moisture import saturation_humidity
from emulators.sphere.spectra import power
from emulators.sphere.transform import SphericalHarmonics

SPLITS = {"train": ["2001-01-01", "2001-01-03"], "validation": ["2001-01-04"] * 2, "test": ["2001-01-05"] * 2}
TINY = {
    "splits": SPLITS,
    "days": 5,
    "trajectories": 2,
    "spinup_days": 1,
    "truncation": 10,
    "levels": 4,
    "timestep_minutes": 120,
}


@pytest.fixture(scope="module")
def planet(tmp_path_factory):
    planet = Planet(**TINY, folder=str(tmp_path_factory.mktemp("planet")))
    planet.prepare()
    return planet


@pytest.fixture(scope="module")
def dataset(planet):
    return planet.dataset().load()


def test_layout_is_weatherbench2s(planet, dataset):
    template = planet.template()
    assert list(dataset) == list(template) == list(VARIABLES)
    assert dataset["temperature"].dims == ("time", "level", "latitude", "longitude")
    assert dataset["surface_pressure"].dims == ("time", "latitude", "longitude")
    for name in template.variables:
        assert dataset[name].shape == template[name].shape, name
        assert dataset[name].dtype == template[name].dtype, name
        assert dataset[name].attrs == template[name].attrs, name
    for name in ("time", "level", "latitude", "longitude"):
        np.testing.assert_array_equal(dataset[name], template[name])
    assert dataset.attrs == template.attrs
    assert dataset.geopotential_at_surface.dims == dataset.land_sea_mask.dims == ("latitude", "longitude")
    assert all(field.dtype == np.float32 and np.isfinite(field).all() for field in dataset.values())
    assert dataset.specific_humidity.min() > 0.0
    assert dataset.total_precipitation_6hr.min() >= 0.0
    assert LatLonGrid(dataset.latitude.values, dataset.longitude.values).kind == "gaussian"
    assert dataset.attrs["vertical_kind"] == "sigma"
    half = np.array(dataset.attrs["vertical_b"])
    np.testing.assert_allclose(dataset.level, 500.0 * (half[1:] + half[:-1]), atol=0.01)


def test_trajectories_are_segments_with_a_gap_between_them(dataset):
    steps = np.diff(dataset.time.values) / np.timedelta64(1, "h")
    assert dataset.sizes["time"] == 40
    assert (np.delete(steps, 19) == 6.0).all()
    assert steps[19] > 24.0
    assert not np.allclose(dataset.temperature[0], dataset.temperature[20], atol=1.0)


def test_budgets_close_in_the_stored_numbers(dataset):
    grid = LatLonGrid(dataset.latitude.values, dataset.longitude.values)
    segment = dataset.isel(time=slice(20)).astype(np.float64)
    ground = dataset.geopotential_at_surface.values.astype(np.float64)
    weights = grid.weights / grid.weights.size
    mass = segment.surface_pressure.values / GRAVITY
    thickness = np.diff(dataset.attrs["vertical_b"])[:, None, None]

    def mean(field):
        return (field * weights).sum(axis=(-2, -1))

    def column(field):
        return mean((field * thickness).sum(axis=1) * mass)

    assert np.ptp(mean(mass)) / mean(mass).mean() < 3e-7
    rain, evaporation = (
        WATER_DENSITY * mean(segment[name].values) for name in ("total_precipitation_6hr", "evaporation_6hr")
    )
    residual = np.diff(column(segment.specific_humidity.values)) - (evaporation - rain)[1:]
    assert np.sqrt(np.mean(residual**2)) < 1e-5 * rain.mean()
    kinetic = 0.5 * (segment.u_component_of_wind.values**2 + segment.v_component_of_wind.values**2)
    energy = column(HEAT_CAPACITY_DRY * segment.temperature.values + kinetic) + mean(mass * ground)
    names = ("sensible_heat_flux_6hr", "net_radiation_6hr", "friction_6hr")
    sources = sum(mean(segment[name].values) for name in names) + LATENT_HEAT_VAPORISATION * rain
    assert np.sqrt(np.mean((np.diff(energy) - sources[1:]) ** 2)) / 21600.0 < 0.05  # W m-2


def test_no_air_is_stored_supersaturated(dataset):
    pressure = dataset.surface_pressure.astype(np.float64) * dataset.level / 1000.0
    temperature = dataset.temperature.astype(np.float64).transpose(*pressure.dims)
    saturation = saturation_humidity(*(torch.from_numpy(field.values) for field in (temperature, pressure)))
    relative = dataset.specific_humidity.transpose(*pressure.dims).values / saturation.numpy()
    assert relative.max() < 1.01
    assert (relative > 0.99).mean() > 0.01


@pytest.mark.parametrize("ocean", ["prescribed", "slab"])
def test_surface_keeps_what_comes_and_is_not_given(ocean, dataset, tmp_path):
    """Heat in land and slab changes by supply - H - L E, point by point, to the rounding of stored temperatures."""
    if ocean == "slab":
        planet = Planet(**TINY | {"days": 1, "trajectories": 1, "ocean": "slab"}, folder=str(tmp_path))
        planet.prepare()
        dataset = planet.dataset().load()
    segment = dataset.isel(time=slice(4)).astype(np.float64)
    land = dataset.land_sea_mask.values.astype(np.float64)
    water = (1.0 - land) * segment.sea_surface_temperature.values
    heat = dataset.attrs["land_heat_capacity"] * (segment.skin_temperature.values - water)
    heat += dataset.attrs["water_heat_capacity"] * water
    lost = segment.sensible_heat_flux_6hr + LATENT_HEAT_VAPORISATION * WATER_DENSITY * segment.evaporation_6hr
    residual = np.diff(heat, axis=0) - (segment.surface_heat_supply_6hr - lost).values[1:]
    assert np.abs(residual).max() / 21600.0 < (0.6 if ocean == "slab" else 0.005)  # W m-2


def test_forcing_follows_the_calendar(dataset):
    light = insolation(dataset.time.values, dataset.latitude.values, dataset.longitude.values)
    np.testing.assert_array_equal(dataset.toa_incident_solar_radiation, light.astype(np.float32))
    water = dataset.sea_surface_temperature
    assert float(water.std("longitude").max()) > 1.0  # a warm pool
    assert 299.0 < float(water.max()) < 302.0


@pytest.mark.slow
def test_same_seed_same_weather_whatever_the_processes(planet, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(trajectories, "SMALL", 0)
    monkeypatch.setattr(trajectories, "processors", lambda: 2)
    shares = []
    again = Planet(**TINY, folder=str(tmp_path))
    again.prepare(lambda label, share: shares.append(share))
    assert again.path.name == planet.path.name
    assert again.dataset().identical(dataset)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)


@pytest.mark.slow
def test_every_part_of_the_physics_can_be_switched_off(tmp_path):
    short = TINY | {"days": 1, "trajectories": 1, "timestep_minutes": 120}

    def one(**changes):
        planet = Planet(**short | changes, folder=str(tmp_path))
        planet.prepare()
        return planet.dataset().load()

    plain = one()
    assert not one(geography="water").land_sea_mask.any()
    flat = one(orography=False)
    assert not flat.geopotential_at_surface.any()
    np.testing.assert_array_equal(flat.land_sea_mask, plain.land_sea_mask)
    dry = one(moist=False)
    assert not dry.specific_humidity.any()
    assert not dry.total_precipitation_6hr.any()
    assert float(one(diurnal=False).toa_incident_solar_radiation.std("longitude").max()) < 1e-3
    assert not one(energy_fixer=False).energy_fixer_6hr.any()
    warmer = one(warming=2.0)
    np.testing.assert_allclose(warmer.sea_surface_temperature, plain.sea_surface_temperature + 2.0, atol=1e-4)
    slab = one(ocean="slab")
    assert slab.attrs["water_heat_capacity"] > plain.attrs["water_heat_capacity"] == 0.0
    assert float(np.abs(slab.sea_surface_temperature - plain.sea_surface_temperature).max()) > 0.01
    for changed in (one(season=False), one(virtual_temperature=False), one(climate=Climate(heat_transfer=0.002))):
        assert float(np.abs(changed.temperature - plain.temperature).max()) > 0.01


@pytest.mark.parametrize("name", ["planet_tiny", "planet_aqua", "planet_dry"])
def test_what_an_emulator_is_to_predict_varies(name, tmp_path):
    """The variables that come with a planet are those that its switches leave alive."""
    small = {key: value for key, value in TINY.items() if key != "splits"} | {"days": 1, "trajectories": 1}
    chosen = [f"data.{key}={value}" for key, value in small.items()]
    config = compose("train", [f"data={name}", *chosen, f"data.folder={tmp_path}"])
    source = build(config.data)
    source.prepare()
    dataset = source.dataset()
    for role in ("prognostic", "diagnostic", "static", "forcing"):
        for variable in set(config.variables[role]) & set(dataset.data_vars):
            assert float(dataset[variable].std()) > 0.0, (role, variable)


def test_every_setting_makes_a_planet_of_its_own(planet, dataset, tmp_path):
    other = Planet(**TINY | {"trajectories": 1, "days": 1}, seed=5, folder=str(tmp_path))
    other.prepare()
    assert not np.allclose(other.dataset().temperature[0], dataset.temperature[0], atol=0.5)
    changes = {"days": 6, "trajectories": 1, "spinup_days": 2, "truncation": 8, "levels": 3, "timestep_minutes": 60}
    names = {Planet(**TINY | {key: value}).path.name for key, value in changes.items()}
    switches = {
        "geography": "water", "orography": False, "ocean": "slab", "warming": 2.0, "moist": False, "season": False,
        "virtual_temperature": False, "diurnal": False, "energy_fixer": False, "climate": Climate(gustiness=2.0),
    }  # fmt: skip
    names |= {Planet(**TINY | {key: value}).path.name for key, value in switches.items()}
    names |= {Planet(**TINY, seed=1).path.name, Planet(**TINY, start="1999-01-01").path.name, planet.path.name}
    assert len(names) == 19
    template = Planet(**TINY | {"truncation": 8, "levels": 3, "days": 6, "start": "1999-01-01"}).template()
    assert dict(template.sizes) == {"time": 48, "level": 3, "latitude": 14, "longitude": 28}
    assert template.time.values[0] == np.datetime64("1999-01-01")


@pytest.mark.parametrize("levels", [5, 8, 13, 20])
def test_layers_thin_towards_the_ground_and_the_top(levels):
    thickness = np.diff(half_levels(levels))
    assert thickness.sum() == pytest.approx(1.0)
    assert (thickness > 0.0).all()
    assert thickness.argmax() not in (0, levels - 1)
    assert (np.abs(np.diff(thickness)) < 0.6 * thickness[1:]).all()


@pytest.mark.slow
@pytest.mark.parametrize(("truncation", "levels"), [(21, 5), (21, 20), (31, 8), (42, 8), (63, 8)])
def test_resolutions_start_without_a_shock(truncation, levels):
    planet = Planet(**TINY | {"truncation": truncation, "levels": levels, "timestep_minutes": None})
    assert planet.timestep_minutes == default_timestep(truncation, levels)
    simulation = planet.simulation(0)
    with one_thread():
        for _ in range(4):
            simulation.step()
    assert torch.isfinite(simulation.fields.temperature).all()
    assert float(simulation.fields.u.abs().max()) < 60.0
    assert 5e4 < float(simulation.fields.surface_pressure.min())


def test_gpu_is_taken_where_there_is_one():
    found = "cuda" if torch.cuda.is_available() else "cpu"
    assert Planet(**TINY, device="auto").device == found
    assert Planet(**TINY, device="auto").path == Planet(**TINY).path
    if found == "cpu":
        with pytest.raises(ValueError, match="torch sees no GPU"):
            Planet(**TINY, device="cuda")


def test_cache_is_the_users_unless_a_folder_is_given(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Planet(**TINY).path.parent == tmp_path / "emul"
    assert Planet(**TINY, folder=str(tmp_path / "here")).path.parent == tmp_path / "here"
    assert Planet(**TINY).splits == SPLITS


def test_interrupted_run_goes_on_where_it_stopped(planet, dataset, tmp_path, monkeypatch):
    """Nothing unfinished passes for whole; what was written is not simulated again; the end is the same to the bit."""
    again = Planet(**TINY, folder=str(tmp_path))
    monkeypatch.setattr(trajectories, "CHUNK", 4)
    shares = []

    def interrupt(label, share):
        shares.append(share)
        if share > 0.7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        again.prepare(interrupt)
    with pytest.raises(FileNotFoundError, match="not made yet"):
        again.dataset()
    assert not list(tmp_path.glob("*.zarr"))
    stopped, shares = shares[-1], []
    again.prepare(lambda label, share: shares.append(share))
    assert shares[1] > 0.5
    assert stopped <= shares[1] < shares[-1] == pytest.approx(1.0)
    assert again.dataset().identical(dataset)
    assert not list(tmp_path.glob("*.partial"))
    assert not list(again.path.glob("restart"))


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_killed_run_is_taken_up(planet, dataset, tmp_path, monkeypatch):
    script = f"""
import multiprocessing, os, signal, sys
from data_pipelines.simulators.planet import trajectories
from data_pipelines.sources.planet import Planet
trajectories.SMALL, trajectories.processors, trajectories.CHUNK = 0, lambda: 2, 4

def kill(label, share):
    if share > 0.5:
        print(*(worker.pid for worker in multiprocessing.active_children()), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

Planet(**{TINY!r}, folder=sys.argv[1]).prepare(kill)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, stdout=subprocess.PIPE, text=True)
    assert done.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 30.0
    while any(_runs(pid) for pid in done.stdout.split()):
        assert time.monotonic() < deadline, "workers outlive the run that started them"
        time.sleep(0.1)
    again = Planet(**TINY, folder=str(tmp_path))
    assert list(tmp_path.glob("*.partial/restart/*.pt"))
    assert not again.path.exists()
    monkeypatch.setattr(trajectories, "CHUNK", 4)
    again.prepare()
    assert again.dataset().identical(dataset)
    assert not list(tmp_path.glob("*.partial"))
    written = os.stat(again.path).st_mtime_ns
    time.sleep(0.01)
    again.prepare()  # what is there is kept
    assert os.stat(again.path).st_mtime_ns == written


def test_settings_that_cannot_work_are_refused(tmp_path):
    with pytest.raises(ValueError, match="must divide 6 hours; got 50"):
        Planet(**TINY | {"timestep_minutes": 50})
    with pytest.raises(ValueError, match="device is auto, cpu or cuda; got 'gpu'"):
        Planet(**TINY, device="gpu")
    with pytest.raises(FileNotFoundError, match="there is no file atlantis"):
        Planet(**TINY, geography="atlantis")
    with pytest.raises(ValueError, match="days must be at least 1; got 0"):
        Planet(**TINY | {"days": 0})
    with pytest.raises(ValueError, match="levels must be at least 2"):
        Planet(**TINY | {"levels": 1})
    hasty = Planet(**TINY | {"truncation": 21, "timestep_minutes": 360, "trajectories": 1}, folder=str(tmp_path))
    with pytest.raises(ValueError, match="choose a shorter timestep_minutes"):
        hasty.prepare()


def test_compilation_without_a_compiler_is_refused(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ValueError, match=r"C\+\+ compiler; expected .* or set compile=false"):
        Planet(**TINY, compile=True)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
def test_compiled_weather_is_the_same_weather_to_rounding():
    states = []
    for compiled in (False, True):
        simulation = Planet(**TINY, moist=False, compile=compiled).simulation(0)
        with one_thread():
            for _ in range(3):
                simulation.step()
        states.append(simulation.atmosphere())
    for name, field in states[0].items():
        np.testing.assert_allclose(states[1][name], field, rtol=1e-4, atol=1e-5 * np.abs(field).max(), err_msg=name)
    assert Planet(**TINY, compile=True).path != Planet(**TINY).path, "which rounds in another way and grows apart"


@pytest.mark.slow
def test_fault_in_a_process_of_its_own_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(trajectories, "SMALL", 0)
    monkeypatch.setattr(trajectories, "processors", lambda: 2)
    hasty = Planet(**TINY | {"truncation": 21, "timestep_minutes": 360}, folder=str(tmp_path))
    with pytest.raises(ValueError, match="choose a shorter timestep_minutes"):
        hasty.prepare()
    assert not list(tmp_path.glob("*.partial*"))
    assert not hasty.path.exists()


@pytest.mark.parametrize("name", ["planet", "planet_aqua", "planet_dry", "planet_tiny"])
def test_shipped_splits_lie_apart_on_dates_that_exist(name):
    planet = build(compose("train", [f"data={name}"]).data)
    times = planet.template().time.values
    periods = [np.array(planet.splits[split], dtype="datetime64[s]") for split in ("train", "validation", "test")]
    for start, end in periods:
        assert start in times
        assert end in times
    for before, after in pairwise(periods):
        assert after[0] - before[1] > np.timedelta64(2, "D")


def test_validation_and_test_have_four_seasons_and_trajectories_of_their_own():
    planet = build(compose("train").data)
    held = [(planet.times(n)[0], planet.times(n)[-1]) for n in range(planet.trajectories)]
    inside = {}
    for name, period in planet.splits.items():
        start, end = bounds(period)
        inside[name] = [n for n, (first, last) in enumerate(held) if first <= end and last >= start]
        assert (start, end - start > np.timedelta64(365, "D")) == (held[inside[name][0]][0], True)
        assert end.astype("datetime64[h]") == held[inside[name][-1]][1].astype("datetime64[h]")
    assert inside == {"train": [0, 1], "validation": [2], "test": [3]}


@pytest.mark.slow
@pytest.mark.parametrize("truncation", ["data", "null"])
def test_ten_days_of_an_emulator_have_no_scales_that_the_planet_has_not(tmp_path, truncation):
    """The planet of truncation 10 on 16x32 points, which hold degrees up to 15."""
    words = ["experiment=planet_sfno", "data=planet_tiny", f"step.truncation={truncation}", f"output={tmp_path}"]
    small = ["model.embed=8", "model.layers=1", "training.steps=8", "training.validate_every=8", "logger=[csv]"]
    run = emul.train(emul.compose(*words, *small, "objective.rollout=[[0, 1]]", "training.validation_cases=2"))
    forecast = run.forecast("2001-02-09", "10d").isel(time=0, prediction_timedelta=-1).load()
    harmonics = SphericalHarmonics(LatLonGrid(forecast.latitude.values, forecast.longitude.values), dtype=torch.float64)
    for name in ("temperature", "surface_pressure", "specific_humidity"):
        field = torch.from_numpy(forecast[name].transpose("longitude", "latitude", ...).values.astype(np.float64))
        shares = power(harmonics.analysis(field.reshape(*field.shape[:2], -1)))[1:]
        beyond = float((shares[10:].sum(dim=0) / shares.sum(dim=0)).max())
        limited = truncation == "data" and name != "specific_humidity"  # which the planet moves on its grid
        assert beyond < 1e-8 if limited else beyond > 1e-7, (name, beyond)
