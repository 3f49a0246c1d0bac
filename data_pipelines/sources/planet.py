"""The embedded planet as a dataset: weather simulated with the moist primitive equations on first use.

The Zarr store has the layout of WeatherBench 2 (Rasp et al. 2024, arXiv 2308.15560): time, level, latitude, longitude,
with level = 1000 sigma; geopotential is above sea level. The air is nowhere supersaturated by more than 1 %. Dry mass,
water and energy budgets close in the stored values:

    d<sum q ps dsigma> / g                         = E - P
    d<sum (cp T + K) ps dsigma + ps Phi_s> / g     = H + net radiation + friction + L P
    c d(Ts)                                        = surface heat supply - H - L E         (land, and water of a slab)

Several trajectories follow each other on one time axis, each with its own dates, with a gap between them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import xarray as xr

from data_pipelines.simulators.planet import geography
from data_pipelines.simulators.planet.climate import DOUBLINGS, CarbonDioxide, Climate, Ocean, Switches, refuse_amounts
from data_pipelines.simulators.planet.geography import Geography
from data_pipelines.simulators.stores import (
    COLUMN,
    SURFACE,
    empty_dataset,
    make_once,
    open_store,
    require_at_least,
    store_path,
)
from emulators.constants import GRAVITY, LATENT_HEAT_VAPORISATION
from emulators.grid import LatLonGrid, alias_free_grid

if TYPE_CHECKING:
    from data_pipelines.interfaces import Progress, Sample, TwinCase
    from data_pipelines.simulators.planet.simulation import Simulation

EDITION = 7  # of the equations; a new edition makes new stores
INTERVAL = np.timedelta64(6, "h")
GAP_DAYS = 10  # between trajectories
LEAST = {"truncation": 5, "levels": 2}

# sigma between the 8 layers of Molteni 2003, doi 10.1007/s00382-002-0268-2
HALF_LEVELS = (0.0, 0.05, 0.14, 0.26, 0.42, 0.60, 0.77, 0.90, 1.0)
GROUND = ("latitude", "longitude")
# name: (dimensions, units, CF standard name or "", long name)
VARIABLES = {
    "temperature": (COLUMN, "K", "air_temperature", "Temperature"),
    "u_component_of_wind": (COLUMN, "m s**-1", "eastward_wind", "U component of wind"),
    "v_component_of_wind": (COLUMN, "m s**-1", "northward_wind", "V component of wind"),
    "specific_humidity": (COLUMN, "kg kg**-1", "specific_humidity", "Specific humidity"),
    "geopotential": (COLUMN, "m**2 s**-2", "geopotential", "Geopotential"),
    "surface_pressure": (SURFACE, "Pa", "surface_air_pressure", "Surface pressure"),
    "sea_surface_temperature": (SURFACE, "K", "sea_surface_temperature", "Sea surface temperature"),
    "skin_temperature": (SURFACE, "K", "surface_temperature", "Temperature of the surface, mean of land and water"),
    "toa_incident_solar_radiation": (
        SURFACE,
        "W m**-2",
        "toa_incoming_shortwave_flux",
        "Incident solar radiation at the top of the atmosphere, instantaneous",
    ),
    "total_precipitation_6hr": (SURFACE, "m", "", "Precipitation in the 6 hours before, depth of water"),
    "evaporation_6hr": (SURFACE, "m", "", "Evaporation in the 6 hours before, depth of water, upward positive"),
    "sensible_heat_flux_6hr": (SURFACE, "J m**-2", "", "Sensible heat from the surface in the 6 hours before"),
    "net_radiation_6hr": (SURFACE, "J m**-2", "", "Radiative heating of the column in the 6 hours before"),
    "friction_6hr": (SURFACE, "J m**-2", "", "Kinetic energy gained by friction in the 6 hours before (negative)"),
    "surface_heat_supply_6hr": (
        SURFACE,
        "J m**-2",
        "",
        "Heat brought to the surface by radiation and from beneath in the 6 hours before",
    ),
    "energy_fixer_6hr": (
        SURFACE,
        "J m**-2",
        "",
        "Energy that timestep and truncation lost in the 6 hours before, given back; no term of the budget",
    ),
    "geopotential_at_surface": (GROUND, "m**2 s**-2", "surface_geopotential", "Geopotential at the surface"),
    "land_sea_mask": (GROUND, "1", "land_area_fraction", "Share of land"),
}
DOUBLED = (SURFACE, "1", "", "Doublings of CO2 beyond its usual amount, the same everywhere")
FLUXES = {  # direction in which they are positive; all are sums over the interval
    "total_precipitation_6hr": "down",
    "evaporation_6hr": "up",
    "sensible_heat_flux_6hr": "up",
    "net_radiation_6hr": "in",
    "friction_6hr": "in",
}
SLAB_RANGE = [240.0, 330.0]  # K: the water of a slab does not freeze, and is colder than seas are at a pole
SPECTRAL = ("temperature", "u_component_of_wind", "v_component_of_wind", "surface_pressure")
# (largest truncation, timestep in minutes that is stable with mountains and jets)
TIMESTEPS = ((21, 120), (31, 60), (42, 45), (63, 30), (85, 20), (1000, 5))
MANY_LEVELS = (16, 60)  # with more levels than this, at most so many minutes
Device = Literal["auto", "cpu", "cuda"]


class Planet:
    """Simulate the planet on first use, and cache the store in `folder` (default: the user's cache).

    splits: first and last time of train, validation and test. days: length of each trajectory. seed: of the initial
    noise of the first trajectory. spinup_days: simulated before the first stored sample. truncation: largest degree
    of the spherical harmonics. levels: number of sigma levels. timestep_minutes: null for the default of truncation
    and levels. start: date of the first stored sample. geography: `continents`, `water`, or a file with
    land_sea_mask and geopotential_at_surface (or orography). orography: if false, land is flat. device: `cpu`,
    `cuda`, or `auto` for a GPU if there is one. compile: see
    `data_pipelines.simulators.planet.simulation.Simulation`. co2: multiples of the usual amount for each trajectory,
    during spin-up, at the start and at the end of what is stored, growing at a constant rate between; null: the usual
    amount. sensitivity: K that a doubling adds to what ocean, land and air relax to. The other switches are those of
    `data_pipelines.simulators.planet.climate.Switches`; climate: the parameters of `Climate` there.
    """

    hidden: Collection[str] = ("skin_temperature",)  # beside its own state, the air feels that of the land

    def __init__(
        self,
        *,
        splits: Mapping[str, Sequence[str | int]],
        folder: str | None = None,
        days: int = 450,
        trajectories: int = 2,
        seed: int = 0,
        spinup_days: int = 60,
        truncation: int = 21,
        levels: int = 8,
        timestep_minutes: int | None = None,
        start: str = "2001-01-01",
        geography: str = "continents",
        orography: bool = True,
        ocean: Ocean = "prescribed",
        warming: float = 0.0,
        moist: bool = True,
        virtual_temperature: bool = True,
        season: bool = True,
        diurnal: bool = True,
        energy_fixer: bool = True,
        climate: Climate | None = None,
        device: Device = "cpu",
        compile: bool = False,
        co2: Sequence[Sequence[float]] | None = None,
        sensitivity: float = 2.0,
    ) -> None:
        numbers = {
            "days": days,
            "trajectories": trajectories,
            "spinup_days": spinup_days,
            "truncation": truncation,
            "levels": levels,
            "timestep_minutes": timestep_minutes or default_timestep(truncation, levels),
        }
        require_at_least("The planet", {name: (value, LEAST.get(name, 1)) for name, value in numbers.items()})
        if 360 % numbers["timestep_minutes"]:
            raise ValueError(
                f"timestep_minutes must divide 6 hours; got {timestep_minutes}. Take "
                f"{default_timestep(truncation, levels)}, stable at truncation {truncation}, or fewer."
            )
        if compile:
            _require_compiler()
        if co2 is not None:
            refuse_amounts(co2, trajectories)
        self.co2, self.sensitivity = None if co2 is None else [list(map(float, row)) for row in co2], sensitivity
        self.splits = {name: list(period) for name, period in splits.items()}
        self.days, self.trajectories, self.spinup_days = days, trajectories, spinup_days
        self.truncation, self.levels, self.timestep_minutes = truncation, levels, numbers["timestep_minutes"]
        self.seed, self.start = seed, np.datetime64(start, "s")
        self.geography_name, self.orography = str(Path(geography).expanduser()), orography
        self.switches = Switches(moist, virtual_temperature, season, diurnal, energy_fixer, ocean, warming)
        self.climate, self.device, self.compile = climate or Climate(), resolved_device(device), compile
        settings = {**numbers, "seed": seed, "start": str(self.start), "edition": EDITION, "orography": orography}
        settings |= {"compile": True} if compile else {}  # compiled code rounds differently, which makes other weather
        settings |= {} if self.co2 is None else {"co2": self.co2, "sensitivity": sensitivity}
        settings |= {"geography": _fingerprint(self.geography_name), **asdict(self.switches), **asdict(self.climate)}
        self.path = store_path(folder, "planet", settings)

    @property
    def grid(self) -> LatLonGrid:
        """Return the Gaussian grid on which products of fields of this truncation do not alias."""
        return alias_free_grid(self.truncation)

    @property
    def variables(self) -> dict[str, tuple[tuple[str, ...], str, str, str]]:
        """Return the fields of the store as VARIABLES has them."""
        return VARIABLES if self.co2 is None else {**VARIABLES, DOUBLINGS: DOUBLED}

    @cached_property
    def geography(self) -> Geography:
        """Return land fraction and surface geopotential on the grid."""
        if self.geography_name == "water":
            return geography.water(self.grid)
        if self.geography_name == "continents":
            surface = geography.continents(self.grid, self.truncation)
        else:
            surface = geography.from_file(self.geography_name, self.grid, self.truncation)
        return surface if self.orography else Geography(surface.land, np.zeros(self.grid.shape))

    def times(self, trajectory: int) -> np.ndarray:
        """Return the valid times of a trajectory, datetime64[s]."""
        first = self.start + trajectory * np.timedelta64(self.days + GAP_DAYS, "D")
        return first + np.arange(4 * self.days) * INTERVAL.astype("timedelta64[s]")

    def template(self) -> xr.Dataset:
        """Return the coordinates, attributes and shapes of the dataset, without its values."""
        half = half_levels(self.levels)
        full = np.round(500.0 * (half[1:] + half[:-1]), 2)
        times = np.concatenate([self.times(trajectory) for trajectory in range(self.trajectories)])
        level = {"long_name": "1000 * pressure / surface pressure", "positive": "down", "axis": "Z"}
        attributes = {
            "title": f"emul planet T{self.truncation}L{self.levels}",
            "vertical_kind": "sigma",
            "vertical_a": [0.0] * (self.levels + 1),
            "vertical_b": half.tolist(),
            "vertical_dry": 1,  # surface pressure is that of dry air: it does not change with the water in the column
            "gravity": GRAVITY,
            "latent_heat_of_vaporisation": LATENT_HEAT_VAPORISATION,
            "edition": EDITION,
            "land_heat_capacity": self.climate.land_capacity,
            "water_heat_capacity": self.climate.slab_capacity if self.switches.ocean == "slab" else 0.0,
        }
        dataset = empty_dataset(self.variables, self.grid, times, (full, level), attributes)
        return _with_declared_attributes(dataset, self.truncation, self.has_prescribed_sea)

    def prepare(self, progress: Progress | None = None) -> None:
        """Make the store if it is missing, or continue an interrupted run."""

        def make(folder: Path) -> None:
            from data_pipelines.simulators.planet.trajectories import fill_store

            fill_store(self, folder, progress or (lambda label, share: None))

        make_once(self.path, make, resumable=True)

    def static(self) -> dict[str, np.ndarray]:
        """Return the fields without time by name, float32, (lat, lon)."""
        fields = {"geopotential_at_surface": self.geography.geopotential, "land_sea_mask": self.geography.land}
        return {name: field.astype(np.float32) for name, field in fields.items()}

    @property
    def has_prescribed_sea(self) -> bool:
        """Return whether the temperature of the sea is a function of the season, which is known beforehand."""
        return self.switches.ocean == "prescribed"

    def dataset(self) -> xr.Dataset:
        """Open the dataset lazily; FileNotFoundError if the store is not made yet."""
        dataset = open_store(self.path, list(self.variables), "The planet's")
        return _with_declared_attributes(dataset, self.truncation, self.has_prescribed_sea)

    def twins(
        self, cases: int, leads: int, perturbation: float, report: Progress, forgotten: Collection[str] = ()
    ) -> Iterator[TwinCase]:
        """Simulate the first trajectory again, with twins; see `data_pipelines.interfaces.TwinSource`."""
        from data_pipelines.simulators.planet.trajectories import SkinEstimate, planet_twins

        return planet_twins(
            self.simulation(0),
            360 // self.timestep_minutes,
            spinup=4 * self.spinup_days,
            cases=cases,
            leads=leads,
            perturbation=perturbation,
            seed=self.seed,
            report=report,
            skin=SkinEstimate(self.dataset()) if "skin_temperature" in forgotten else None,
        )

    @property
    def state_variables(self) -> tuple[str, ...]:
        """Return the names of the fields of the air that make a state; of the ground no errors are made."""
        return (*SPECTRAL, "specific_humidity") if self.switches.moist else SPECTRAL

    def continued(self, first: Sample, start: np.datetime64) -> Iterator[Sample]:
        """Yield what follows; see `data_pipelines.interfaces.RestartableSource`."""
        from data_pipelines.simulators.planet.simulation import continued_members

        return continued_members(self.simulation(0), first, start, 360 // self.timestep_minutes)

    def simulation(self, trajectory: int) -> Simulation:
        """Return the simulation of a trajectory, before its spin-up."""
        from data_pipelines.simulators.planet.simulation import Simulation

        return Simulation(
            self.grid,
            self.truncation,
            half_levels(self.levels),
            60 * self.timestep_minutes,
            self.times(trajectory)[0] - np.timedelta64(self.spinup_days, "D"),
            seed=self.seed + trajectory,
            geography=self.geography,
            climate=self.climate,
            switches=self.switches,
            device=self.device,
            compile=self.compile,
            co2=self._co2(trajectory),
        )

    def _co2(self, trajectory: int) -> CarbonDioxide | None:
        if self.co2 is None:
            return None
        times = self.times(trajectory)
        before, first, last = self.co2[trajectory]
        return CarbonDioxide(before, first, last, times[0], times[-1], self.sensitivity)


def half_levels(levels: int) -> np.ndarray:
    """Return sigma at half levels, top first: Molteni's for 8 layers, else interpolated smoothly between them."""
    table, place = np.array(HALF_LEVELS), np.linspace(0.0, len(HALF_LEVELS) - 1.0, levels + 1)
    slope, k = np.gradient(table), np.minimum(place.astype(int), len(table) - 2)
    t = place - k
    cubic = (1 + 2 * t) * (1 - t) ** 2 * table[k] + t**2 * (3 - 2 * t) * table[k + 1]
    cubic += t * (1 - t) ** 2 * slope[k] - t**2 * (1 - t) * slope[k + 1]  # cubic Hermite interpolation
    return np.round(cubic, 4)


def default_timestep(truncation: int, levels: int = 8) -> int:
    """Return the timestep in minutes for a truncation and a number of levels."""
    minutes = next(minutes for limit, minutes in TIMESTEPS if truncation <= limit)
    return min(minutes, MANY_LEVELS[1]) if levels > MANY_LEVELS[0] else minutes


def _require_compiler() -> None:
    """Raise ValueError if there is no C++ compiler for `torch.compile`."""
    compilers = [os.environ.get("CXX", ""), "g++", "clang++"]
    if not any(shutil.which(name) for name in compilers if name):
        raise ValueError(
            "compile=true needs a C++ compiler; expected g++, clang++ or what the variable CXX names on the PATH, got "
            "none. Install one, or set compile=false."
        )


def resolved_device(device: Device) -> str:
    """Return `cpu` or `cuda`; ValueError if `cuda` is requested and there is no GPU."""
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device is auto, cpu or cuda; got '{device}'.")
    if device == "cpu":
        return device
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise ValueError("device=cuda, but torch sees no GPU here; choose device=cpu or auto.")
    return "cpu"


def _fingerprint(geography: str) -> str:
    """Return the name of a geography, or a digest of its file; FileNotFoundError if there is none."""
    if geography in ("continents", "water"):
        return geography
    path = Path(geography)
    if not path.is_file():
        raise FileNotFoundError(f"geography is continents, water or a file; there is no file {geography}.")
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _with_declared_attributes(dataset: xr.Dataset, truncation: int, prescribed: bool) -> xr.Dataset:
    """Add the attributes of fluxes (positive direction, sums), of spectral fields, and of a prescribed sea."""
    for name, way in FLUXES.items():
        dataset[name].attrs |= {"positive": way, "cell_methods": "time: sum (interval: 6 hours)"}
    for name in SPECTRAL:
        dataset[name].attrs |= {"spectral_truncation": truncation}
    if not prescribed:
        dataset.attrs["ranges"] = json.dumps({"sea_surface_temperature": SLAB_RANGE})
    dataset["sea_surface_temperature"].attrs["known_beforehand"] = int(prescribed)
    if DOUBLINGS in dataset:
        dataset[DOUBLINGS].attrs["known_beforehand"] = 1
    return dataset
