"""How fast the embedded planet is made, what its laws are worth in the stored numbers, and whether its climate is one.

Makes the default planet and the dry one in a folder of their own, as `emul train` would on first use, and times that
from start to end: processes, spin-up, writing. Budgets are recomputed from the stored float32 fields over a year of
each trajectory. The figure is simulated days a minute of the moist planet.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr

from data_pipelines.conventions.attributes import grid_of
from data_pipelines.inspection.predictability import predictability, predictability_limits
from data_pipelines.reading.threads import one_thread
from data_pipelines.simulators.planet.primitive_equations import PrimitiveEquations
from data_pipelines.sources.planet import Planet, half_levels
from emul.config.build import build
from emul.config.compose import compose
from emulators.constants import GRAVITY, HEAT_CAPACITY_DRY, LATENT_HEAT_VAPORISATION, WATER_DENSITY
from emulators.grid import gaussian_grid
from emulators.physics.moisture import saturation_humidity
from emulators.sphere.spectra import power
from emulators.sphere.transform import SphericalHarmonics

sys.path.insert(0, str(Path(__file__).parents[1]))
import baroclinic_wave

BAR = 700.0  # simulated days a minute
YEAR = 4 * 360  # samples
FLUXES = ("sensible_heat_flux_6hr", "net_radiation_6hr", "friction_6hr")


class Row(NamedTuple):
    """One line of the table; low and high: what is asked for."""

    name: str
    value: float
    units: str
    low: float = -np.inf
    high: float = np.inf

    @property
    def holds(self) -> bool:
        return bool(self.low <= self.value <= self.high)

    def __str__(self) -> str:
        ends = [f"{end:g}" if np.isfinite(end) else "" for end in (self.low, self.high)]
        asked = "" if ends == ["", ""] else f"({ends[0]} to {ends[1]})" if all(ends) else f"(at most {ends[1]})"
        asked = asked if ends[1] or not ends[0] else f"(at least {ends[0]})"
        return f"{self.name:46s} {self.value:10.3g} {self.units:9s} {asked:20s} {'' if self.holds else 'FAILS'}"


def made(option: str, folder: str, overrides: list[str]) -> tuple[Planet, float]:
    """A planet made in `folder` (or found there), and simulated days a minute that it took."""
    texts = [f"data={option}", f"data.folder={folder}", *(f"data.{text}" for text in overrides)]
    planet = build(compose("train", texts).data)
    start = time.perf_counter()
    planet.prepare()
    minutes = (time.perf_counter() - start) / 60.0
    return planet, planet.trajectories * (planet.days + planet.spinup_days) / minutes


def budgets(dataset: xr.Dataset, samples: int) -> Iterator[Row]:
    """What is missing in the stored fields of the first `samples` of a trajectory."""
    grid, thickness = grid_of(dataset), np.diff(dataset.attrs["vertical_b"])[:, None, None]
    weights, ground = grid.weights / grid.weights.size, dataset.geopotential_at_surface.values.astype(np.float64)
    rows = []
    for start in range(0, samples, 40):  # a chunk at a time, in float64
        block = dataset.isel(time=slice(start, min(start + 40, samples))).astype(np.float64)
        mass = block.surface_pressure.values / GRAVITY
        kinetic = 0.5 * (block.u_component_of_wind.values**2 + block.v_component_of_wind.values**2)
        rain, evaporation = (
            WATER_DENSITY * block[f"{name}_6hr"].values for name in ("total_precipitation", "evaporation")
        )
        water = (block.specific_humidity.values * thickness).sum(axis=1) * mass
        heat = ((HEAT_CAPACITY_DRY * block.temperature.values + kinetic) * thickness).sum(axis=1) * mass + ground * mass
        gain = sum(block[name].values for name in FLUXES) + LATENT_HEAT_VAPORISATION * rain
        rows.append([(field * weights).sum(axis=(1, 2)) for field in (mass, water, heat, rain, evaporation, gain)])
    mass, water, heat, rain, evaporation, gain = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    yield Row("dry mass, largest departure", np.abs(mass / mass.mean() - 1.0).max(), "relative", high=1e-7)
    missing = np.diff(water) - (evaporation - rain)[1:]
    if rain.any():
        yield Row("water, rms of 6 hours", np.sqrt(np.mean(missing**2)) / rain.mean(), "of rain", high=5e-6)
    missing = (np.diff(heat) - gain[1:]) / 21600.0
    yield Row("energy, rms of 6 hours", np.sqrt(np.mean(missing**2)), "W m-2", high=0.05)
    yield Row("energy, mean", np.abs(missing.mean()), "W m-2", high=0.05)
    fixer = dataset.energy_fixer_6hr.values[:samples, 0, 0] / 21600.0
    yield Row("energy, by the fixer, mean", fixer.mean(), "W m-2", -0.3, 0.3)
    yield Row("energy, by the fixer, rms of 6 hours", np.sqrt(np.mean(fixer**2)), "W m-2", high=0.3)


def saturation(dataset: xr.Dataset) -> Iterator[Row]:
    """Supersaturated and dry air in the stored fields, every other sample."""
    weights, highest, over, dry, count = grid_of(dataset).weights, 0.0, 0.0, 0.0, 0
    sigma = torch.from_numpy(dataset.level.values / 1000.0)[:, None, None]
    for step in range(0, dataset.sizes["time"], 2):
        now = dataset.isel(time=step)
        temperature, humidity, ground = (
            torch.from_numpy(now[name].values).double()
            for name in ("temperature", "specific_humidity", "surface_pressure")
        )
        relative = (humidity / saturation_humidity(temperature, sigma * ground)).numpy()
        highest, count = max(highest, float(relative.max())), count + 1
        over, dry = over + ((relative > 1.01) * weights).mean(), dry + float((humidity <= 0.0).double().mean())
    yield Row("relative humidity, largest", 100.0 * highest, "%", high=101.0)
    yield Row("relative humidity above 101 %, share of the air", 100.0 * over / count, "%", high=0.0)
    yield Row("humidity 0 or less, share of the points", 100.0 * dry / count, "%", high=0.1)


def equator(dataset: xr.Dataset) -> Iterator[Row]:
    """Rain and what it leaves after evaporation, at the two rows beside the equator and at the wettest row."""
    rain, evaporation = (
        4000.0 * dataset[f"{name}_6hr"].mean(("time", "longitude")).values
        for name in ("total_precipitation", "evaporation")
    )
    middle = np.abs(dataset.latitude.values) < 5.0
    yield Row("equator: rain", rain[middle].mean(), "mm / day")
    yield Row("equator: rain minus evaporation", (rain - evaporation)[middle].mean(), "mm / day")
    yield Row("latitude of most rain", abs(float(dataset.latitude[rain.argmax()])), "degrees")


class Circulation(NamedTuple):
    """Means over time: zonal wind and eddy heat flux (level, lat), eddy kinetic energy (level, lat)."""

    wind: np.ndarray
    heat_flux: np.ndarray
    eddies: np.ndarray


def circulation(dataset: xr.Dataset) -> Circulation:
    """From every fourth sample; eddies are departures from the zonal mean."""
    sums = [np.zeros((dataset.sizes["level"], dataset.sizes["latitude"])) for _ in range(3)]
    steps = range(0, dataset.sizes["time"], 4)
    for step in steps:
        now = dataset.isel(time=step)
        u, v, t = (now[name].values for name in ("u_component_of_wind", "v_component_of_wind", "temperature"))
        du, dv, dt = (field - field.mean(axis=-1, keepdims=True) for field in (u, v, t))
        for total, field in zip(sums, (u, dv * dt, 0.5 * (du**2 + dv**2)), strict=True):
            total += field.mean(axis=-1) / len(steps)
    return Circulation(*sums)


def jets(name: str, found: Circulation, latitude: np.ndarray, low: float, high: float) -> Iterator[Row]:
    for side, half in (("north", latitude > 0.0), ("south", latitude < 0.0)):
        wind = np.where(half, found.wind, -np.inf)
        place = np.unravel_index(wind.argmax(), wind.shape)[1]
        yield Row(f"{name}: jet, {side}", wind.max(), "m s-1", low, high)
        yield Row(f"{name}: its latitude, {side}", abs(latitude[place]), "degrees", 30.0, 50.0)


def tails(dataset: xr.Dataset, truncation: int) -> Iterator[Row]:
    """The largest ratio of the power of a degree, mean over the air's mass, to that of the degree before it.

    Over the last third of the spectrum, every other day.
    """
    sphere = SphericalHarmonics(grid_of(dataset), truncation + 1, truncation + 1, torch.float64)
    thickness = torch.from_numpy(np.diff(dataset.attrs["vertical_b"]))
    names = {"kinetic energy": ("u_component_of_wind", "v_component_of_wind"), "humidity": ("specific_humidity",)}
    for label, variables in names.items():
        total = torch.zeros(truncation + 1, dtype=torch.float64)
        for step in range(0, dataset.sizes["time"], 8):
            for name in variables:
                field = torch.from_numpy(dataset[name][step].values.astype(np.float64)).permute(2, 1, 0)
                total += power(sphere.analysis(field)) @ thickness
        last = total[truncation - truncation // 3 :]
        if last.any():
            yield Row(
                f"spectrum of {label}, largest rise at the tail", float((last[1:] / last[:-1]).max()), "", high=1.0
            )


def climate(planet: Planet) -> Iterator[Row]:
    """The moist planet's climate and predictability."""
    dataset = planet.dataset()
    grid = grid_of(dataset)
    rain = (dataset.total_precipitation_6hr.values.mean(axis=0) * grid.weights).mean() * 4000.0
    yield Row("precipitation", rain, "mm / day", 2.3, 3.2)
    yield from jets("moist", circulation(dataset), grid.latitude, 25.0, 45.0)
    yield from tails(dataset.isel(time=slice(0, 4 * planet.days)), planet.truncation)
    middle = dataset.temperature.isel(time=slice(0, 4 * planet.days), level=planet.levels // 2).values.astype(float)
    change = np.sqrt(((middle[20:] - middle[:-20]) ** 2 * grid.weights).mean())
    spread = np.sqrt(((middle - middle.mean(axis=0)) ** 2 * grid.weights).mean())
    yield Row("persistence at 5 days / spread of the climate", change / spread, "", low=0.8)
    yield from saturation(dataset)
    yield from equator(dataset)


def doubling(planet: Planet, cases: int) -> Row:
    found = predictability(planet, cases=cases, days=20, perturbation=0.05)
    field = found.temperature.sel(region="global").isel(level=planet.levels // 2)
    return Row("doubling time of small errors", predictability_limits(field).doubling, "days", 1.5, 3.5)


def held_suarez(planet: Planet) -> Iterator[Row]:
    """The zonal-mean state of Held & Suarez 1994 (figures 1 and 2), wider where few levels and waves cost strength."""
    dataset = planet.dataset()
    found = circulation(dataset)
    yield from jets("Held-Suarez", found, dataset.latitude.values, 25.0, 36.0)
    yield Row("Held-Suarez: v'T', largest", np.abs(found.heat_flux).max(), "K m s-1", 12.0, 26.0)
    yield Row("Held-Suarez: eddy kinetic energy, largest", found.eddies.max(), "m2 s-2", 150.0, 450.0)


def wave() -> Iterator[Row]:
    """Jablonowski & Williamson 2006 at T42 with 18 levels, 9 days: steady state and deepest low."""
    grid = gaussian_grid(64)
    ground = baroclinic_wave.surface_geopotential(grid)
    equations = PrimitiveEquations(
        grid, 42, half_levels(18), 1800.0, surface_geopotential=ground, diffusion_time=43200.0
    )
    with one_thread():
        for push in (0.0, 1.0):
            state = baroclinic_wave.state(equations, push)
            start = equations.fields(state)
            for _ in range(9 * 48):
                state = equations.step(state)
            end = equations.fields(state)
            if not push:
                drift = float((end.u - start.u).abs().max())
                yield Row("baroclinic wave: drift of the steady state", drift, "m s-1", high=0.5)
    yield Row("baroclinic wave: deepest low, day 9", float(end.surface_pressure.min()) / 100.0, "hPa", 940.0, 950.0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="90 days, no climate: the speed says little then")
    parser.add_argument("--wave", action="store_true", help="also the baroclinic wave, some minutes")
    parser.add_argument("--folder", help="keep the planets here; what is there is not made (nor timed) again")
    options = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or scratch
        moist, speed = made("planet", folder, ["days=60", "spinup_days=30"] if options.quick else [])
        dry, dry_speed = made("planet_dry", folder, ["days=30", "spinup_days=15"] if options.quick else ["days=300"])
        rows.append(Row("speed, moist", speed, "days/min", low=BAR))
        rows.append(Row(f"speed, dry ({dry.timestep_minutes} minutes)", dry_speed, "days/min"))
        for planet in (moist, dry):
            for trajectory in range(planet.trajectories):
                first = trajectory * 4 * planet.days
                segment = planet.dataset().isel(time=slice(first, first + 4 * planet.days))
                name = f"{'moist' if planet is moist else 'dry'} {trajectory + 1}"
                found = budgets(segment, min(YEAR, 4 * planet.days))
                rows.extend(row._replace(name=f"{name}: {row.name}") for row in found)
        if not options.quick:
            rows.extend(climate(moist))
            rows.append(doubling(moist, cases=6))
            rows.extend(held_suarez(dry))
        if options.wave:
            rows.extend(wave())
    print(*rows, sep="\n")
    print(f"planet: {speed:.0f} days a minute (bar {BAR:g})")
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
