"""Simulate the trajectories of an ocean under a planet's air, a year at a time, in parallel processes, resumable.

Each year leaves the state of its trajectory beside the store. A run that was killed goes on after the last year that it
wrote, and its store is the same bit for bit. The air is given by means of five days, from a store of the planet:

    tau = rho_a C_d |v| v,       v the wind of the lowest layer
    heat = -(H + L E) less its mean over all years, and restoring to the planet's own temperature of the sea surface
    water = P - E, less its mean over the sea, so that the volume of the ocean does not drift

Means by day of the year let one year follow another. Drag: Large & Pond 1981,
doi 10.1175/1520-0485(1981)011<0324:OOMFMI>2.0.CO;2; restoring: Haney 1971, doi
10.1175/1520-0485(1971)001<0241:STBCFO>2.0.CO;2.
"""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from data_pipelines.files.atomic import atomic_file
from data_pipelines.interfaces import Progress
from data_pipelines.reading.threads import one_thread, processors
from data_pipelines.simulators.ocean.layers import DENSITY, HEAT_CAPACITY, LayeredOcean, OceanConstants, SurfaceFluxes
from data_pipelines.simulators.stores import create_store, open_arrays
from emulators.grid import LatLonGrid

RESTART = "restart"  # folder of saved states; it is created after the arrays of the store
SALINITY = 35.0  # g kg-1, of the surface at the start
LAND_THICKNESS = 100.0  # m, of all layers where there is land
FIVE_DAYS = np.timedelta64(5, "D")


@dataclass(frozen=True)
class OceanRun:
    """Hold what one trajectory is made from: picklable, for other processes.

    sea: (lat, lon). years: forcing of `pentads`, on the grid `source`. spinup: years before the first that is stored.
    start: of the first stored year of the first trajectory. restoring: W m-2 K-1. step: s. single: whether states have
    single precision.
    """

    grid: LatLonGrid
    sea: np.ndarray
    constants: OceanConstants
    years: Mapping[str, np.ndarray]
    source: LatLonGrid
    spinup: int
    stored: int
    starts: tuple[np.datetime64, ...]
    restoring: float
    step: float
    single: bool

    def model(self) -> LayeredOcean:
        """Return the equations on this grid."""
        dtype = torch.float32 if self.single else torch.float64
        return LayeredOcean(self.grid, self.sea, self.step, self.constants, dtype)

    def forcing(self, trajectory: int, dtype: torch.dtype) -> Forcing:
        """Return the forcing of a trajectory, which begins with a year of its own."""
        turned = {name: np.roll(field, -trajectory, axis=0) for name, field in self.years.items()}
        return Forcing(turned, self.source, self.grid, self.sea, self.restoring, 1, dtype)


def fill_store(
    run: OceanRun, folder: Path, template: xr.Dataset, static: Mapping[str, np.ndarray], progress: Progress
) -> None:
    """Fill `folder` with the store, or continue an interrupted run."""
    if not (folder / RESTART).exists():
        shutil.rmtree(folder, ignore_errors=True)
        create_store(folder, template, PENTADS)
        for name, field in static.items():
            open_arrays(folder, [name])[name][...] = field
        (folder / RESTART).mkdir()
    number, total = len(run.starts), run.spinup + run.stored
    done = sum(_years_done(folder, n) for n in range(number))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(number, processors()), mp_context=context) as pool:
        while done < number * total:
            progress("ocean", done / (number * total))
            unfinished = [n for n in range(number) if _years_done(folder, n) < total]
            done += len(list(pool.map(simulate_year, [run] * len(unfinished), [folder] * len(unfinished), unfinished)))
    shutil.rmtree(folder / RESTART)


def _years_done(folder: Path, trajectory: int) -> int:
    return max((int(file.stem.split("-")[1]) for file in (folder / RESTART).glob(f"{trajectory}-*.pt")), default=0)


def simulate_year(run: OceanRun, folder: Path, trajectory: int) -> None:
    """Simulate the next year of a trajectory, write it if it is one to be stored, and save the state after it."""
    done = _years_done(folder, trajectory)
    restart = folder / RESTART
    with one_thread(), torch.inference_mode():
        model = run.model()
        forcing = run.forcing(trajectory, model.dtype)
        year = done - run.spinup
        begin = run.starts[trajectory] + year * PENTADS * FIVE_DAYS
        if done:
            state = torch.load(restart / f"{trajectory}-{done}.pt", weights_only=True)
        else:
            state = model.at_rest(forcing.at(begin, 0.0).target[0].double().numpy(), SALINITY)
        means = []
        for pentad in range(PENTADS):
            state, fields = five_days(model, forcing, state, begin + pentad * FIVE_DAYS)
            means.append(fields)
        if not torch.isfinite(state).all():
            raise ValueError("The ocean grew without bound; choose a shorter timestep or more viscosity.")
    if year >= 0:
        first = (trajectory * run.stored + year) * PENTADS
        for name, array in open_arrays(folder, list(means[0])).items():
            array[first : first + PENTADS] = np.stack([fields[name] for fields in means])
    with atomic_file(restart / f"{trajectory}-{done + 1}.pt") as path:
        torch.save(state, path)
    (restart / f"{trajectory}-{done}.pt").unlink(missing_ok=True)


def five_days(
    model: LayeredOcean, forcing: Forcing, state: Tensor, begin: np.datetime64
) -> tuple[Tensor, dict[str, np.ndarray]]:
    """Return the state five days later, and means over them by name, float32; contents are those at the end."""
    steps = round(5 * 86400.0 / model.seconds)
    total: dict[str, Tensor] = {}
    for n in range(steps):
        fluxes = forcing.at(begin, (n + 0.5) * model.seconds)
        state, surface, abyss = model.step(state, fluxes)
        for name, field in described(model, state, fluxes, surface, abyss).items():
            total[name] = total[name] + field if name in total else field.double()
    fields = {name: (field / steps).float()[0].numpy() for name, field in total.items()}
    ends = {"ocean_heat_content": (state[:, 1], DENSITY * HEAT_CAPACITY), "ocean_salt_content": (state[:, 2], 1.0)}
    for name, (content, factor) in ends.items():
        fields[name] = (factor * content.double().sum(1) * model.sea).float()[0].numpy()
    return state, fields


def described(
    model: LayeredOcean, state: Tensor, fluxes: SurfaceFluxes, surface: Tensor, abyss: Tensor
) -> dict[str, Tensor]:
    """Return what is stored of a state and of the timestep before it by name, at the middles of cells."""
    u, v, sea = state[:, 3], state[:, 4], model.sea
    abyssal = dict(zip(("sea_water_potential_temperature", "sea_water_salinity"), model.constants.abyss, strict=True))
    heat = DENSITY * HEAT_CAPACITY
    fields = {
        "sea_water_potential_temperature": model.temperature(state),
        "sea_water_salinity": model.salinity(state),
    }
    fields = {name: torch.where(sea > 0, field, abyssal[name]) for name, field in fields.items()}
    return fields | {
        "eastward_sea_water_velocity": 0.5 * (u + torch.roll(u, 1, -1)) * sea,
        "northward_sea_water_velocity": 0.5 * (v + torch.roll(v, -1, -2)) * sea,
        "sea_water_layer_thickness": torch.where(sea > 0, state[:, 0], LAND_THICKNESS),
        "sea_surface_height": model.surface_height(state) * sea,
        "surface_eastward_stress": fluxes.east * sea,
        "surface_northward_stress": fluxes.north * sea,
        "surface_weather_heat_flux": fluxes.heat * sea,
        "surface_fresh_water_flux": fluxes.water * sea,
        "air_sea_surface_temperature": torch.where(sea > 0, fluxes.target, model.constants.abyss[0]),
        "surface_heat_gain": heat * surface[:, 1] * sea,
        "abyssal_heat_gain": heat * abyss[:, 1] * sea,
        "surface_salt_gain": surface[:, 2] * sea,
        "abyssal_salt_gain": abyss[:, 2] * sea,
    }


PENTADS, DAYS = 73, 5.0  # of a year, and of each
AIR_DENSITY, DRAG, WATER = 1.2, 1.3e-3, 1000.0  # kg m-3; 1; kg m-3
NAMES = ("east", "north", "heat", "water", "target")


def pentads(planet: xr.Dataset, latent_heat: float) -> dict[str, np.ndarray]:
    """Return the forcing by name on the planet's grid, float32, (year, 73, lat, lon).

    planet: trajectories of at least a year each, one after the other with gaps between them. latent_heat: J kg-1.
    Raises ValueError if a trajectory is shorter than a year.
    """
    times = planet["time"].values
    interval = np.diff(times).min()
    seconds = float(interval / np.timedelta64(1, "s"))
    starts = np.flatnonzero(np.diff(times, prepend=times[:1] - 2 * interval) > interval)
    years = []
    for start, end in zip(starts, [*starts[1:], times.size], strict=True):
        trajectory = planet.isel(time=slice(start, end))
        day = (trajectory["time"].dt.dayofyear.values - 1) // int(DAYS)
        place = np.minimum(day, PENTADS - 1)
        counts = np.bincount(place, minlength=PENTADS)
        if not counts.all():
            raise ValueError(
                f"An ocean needs at least a year of each trajectory of the planet; got {end - start} times."
            )
        wind = [trajectory[name].isel(level=-1).values for name in ("u_component_of_wind", "v_component_of_wind")]
        speed = np.hypot(*wind) * (AIR_DENSITY * DRAG)
        evaporation = trajectory["evaporation_6hr"].values / seconds
        flux = trajectory["sensible_heat_flux_6hr"].values / seconds + WATER * latent_heat * evaporation
        fields = (
            speed * wind[0],
            speed * wind[1],
            -flux,
            trajectory["total_precipitation_6hr"].values / seconds - evaporation,
            trajectory["sea_surface_temperature"].values,
        )
        means = []
        for field in fields:
            total = np.zeros((PENTADS, *field.shape[1:]))
            np.add.at(total, place, field)
            means.append((total / counts[:, None, None]).astype(np.float32))
        years.append(means)
    forcing = {name: np.stack([year[n] for year in years]) for n, name in enumerate(NAMES)}
    forcing["heat"] -= forcing["heat"].mean(0)
    return forcing


class Forcing:
    """Interpolate the forcing to the grid of the ocean and to any time, for several members.

    Member m goes through the years m, m + 1, ... of the planet, again and again. sea: (lat, lon) of the ocean's grid.
    restoring: W m-2 K-1.
    """

    def __init__(
        self,
        years: dict[str, np.ndarray],
        source: LatLonGrid,
        grid: LatLonGrid,
        sea: np.ndarray,
        restoring: float,
        members: int,
        dtype: torch.dtype,
    ) -> None:
        fields = {name: between_grids(field, source, grid) for name, field in years.items()}
        weights = sea * grid.weights
        fields["water"] = fields["water"] - (fields["water"] * weights).sum((-2, -1), keepdims=True) / weights.sum()
        stacked = np.stack([fields[name] for name in NAMES], axis=2)  # (year, 73, field, lat, lon)
        self._table = torch.from_numpy(stacked).to(dtype) * torch.from_numpy(sea).to(dtype)
        self._restoring, self._first = restoring, torch.arange(members)

    def at(self, time: np.datetime64, seconds: float) -> SurfaceFluxes:
        """Return the fluxes `seconds` after `time`."""
        instant = time + np.timedelta64(round(seconds), "s")
        year = int(instant.astype("datetime64[Y]").astype(int))
        days = float((instant - instant.astype("datetime64[Y]")) / np.timedelta64(1, "D"))
        place = min(days / DAYS, PENTADS - 0.5) - 0.5
        index = int(np.floor(place))
        low, high = (self._pentad(year, n) for n in (index, index + 1))
        east, north, heat, water, target = torch.lerp(low, high, place - index).unbind(1)
        return SurfaceFluxes(east, north, heat, water, target, self._restoring)

    def _pentad(self, year: int, index: int) -> torch.Tensor:
        year, index = year + index // PENTADS, index % PENTADS
        return self._table[(self._first + year) % len(self._table), index]


def between_grids(fields: np.ndarray, source: LatLonGrid, target: LatLonGrid) -> np.ndarray:
    """Return fields (..., lat, lon) of a global grid on another, bilinearly; polewards of the last row as on it."""
    row = np.interp(-target.latitude, -source.latitude, np.arange(source.latitude.size))
    column = np.mod(target.longitude - source.longitude[0], 360.0) / 360.0 * source.longitude.size
    for axis, place in ((-2, row), (-1, column)):
        size = fields.shape[axis]
        low = np.floor(place).astype(int)
        share = (place - low).astype(fields.dtype)
        low_values, high_values = (np.take(fields, (low + n) % size, axis=axis) for n in (0, 1))
        share = share[:, None] if axis == -2 else share
        fields = low_values * (1 - share) + high_values * share
    return fields
