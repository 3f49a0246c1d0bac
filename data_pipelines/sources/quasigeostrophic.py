"""Quasi-geostrophic weather in perpetual northern winter as a dataset: three levels, two oceans, two mountain ranges.

The model of Marshall & Molteni (1993) on the sphere has levels at 200, 500 and 800 hPa:

    dq_i/dt = -J(psi_i, q_i) - relaxation_i - friction_i - hyperdiffusion_i
    q_1 = lap psi_1 - (psi_1 - psi_2) / R1^2 + f
    q_2 = lap psi_2 + (psi_1 - psi_2) / R1^2 - (psi_2 - psi_3) / R2^2 + f
    q_3 = lap psi_3                          + (psi_2 - psi_3) / R2^2 + f (1 + h / H0)

The thickness streamfunctions psi_1 - psi_2 and psi_2 - psi_3 relax in 25 days towards those of a prescribed
equilibrium; friction slows the wind of the lowest level in 3 days (faster over mountains), and lap^4 damps the smallest
scale in 2 days. Marshall & Molteni 1993, doi 10.1175/1520-0469(1993)050<1792:TADUOP>2.0.CO;2. They diagnose the forcing
from analyses; here it is constructed: a winter hemisphere with strong temperature contrasts over two oceans, and a
weaker, zonally symmetric summer hemisphere. The geopotential follows from linear balance, lap phi = div(f grad psi).

All trajectories run side by side in one tensor and are stored as Zarr in the layout of WeatherBench 2 (Rasp et al.
2024, arXiv 2308.15560).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from data_pipelines.simulators.stores import (
    COLUMN,
    GAP,
    SimulatedSource,
    Trajectories,
    checked_intervals,
    empty_dataset,
    require_at_least,
    store_path,
)
from data_pipelines.simulators.time_schemes import ExponentialRungeKutta
from emulators.constants import EARTH_RADIUS, GRAVITY, ROTATION_RATE
from emulators.grid import LatLonGrid, alias_free_grid
from emulators.sphere.calculus import SphericalCalculus

EDITION = 1  # of the equations; a new edition makes new stores
LEVELS = (200.0, 500.0, 800.0)  # hPa
VARIABLES = {
    "streamfunction": (COLUMN, "m**2 s**-1", "atmosphere_horizontal_streamfunction", "Streamfunction"),
    "u_component_of_wind": (COLUMN, "m s**-1", "eastward_wind", "U component of wind"),
    "v_component_of_wind": (COLUMN, "m s**-1", "northward_wind", "V component of wind"),
    "geopotential": (COLUMN, "m**2 s**-2", "geopotential", "Geopotential, by linear balance"),
    "geopotential_at_surface": (("latitude", "longitude"), "m**2 s**-2", "surface_geopotential", "Mountains"),
}


class QuasiGeostrophic(SimulatedSource):
    """Simulate quasi-geostrophic weather on first use, and cache the store in `folder` (default: the user's cache).

    splits: first and last time of train, validation and test. days: length of each trajectory. seed: of the initial
    noise. spinup_days: simulated before the first stored sample. truncation: largest degree of the spherical harmonics.
    timestep_minutes: of the model. interval_hours: between stored samples. mountains: height in m of the higher of two
    ranges; 0: flat. oceans: temperature contrast of sea and land in winter; 0: none. start: date of the first stored
    sample.
    """

    def __init__(
        self,
        *,
        splits: Mapping[str, Sequence[str | int]],
        folder: str | None = None,
        days: int = 360,
        trajectories: int = 8,
        seed: int = 0,
        spinup_days: int = 90,
        truncation: int = 21,
        timestep_minutes: int = 120,
        interval_hours: int = 12,
        mountains: float = 3000.0,
        oceans: float = 0.4,
        start: str = "2001-01-01",
    ) -> None:
        require_at_least(
            "The quasi-geostrophic model",
            {
                "days": (days, 1),
                "trajectories": (trajectories, 1),
                "spinup_days": (spinup_days, 0),
                "truncation": (truncation, 5),
                "mountains": (mountains, 0),
            },
        )
        self.timestep, interval = checked_intervals("The quasi-geostrophic model", timestep_minutes, interval_hours)
        self.splits = {name: list(period) for name, period in splits.items()}
        self.label, self.seed, self.truncation = f"quasi-geostrophic T{truncation}", seed, truncation
        self.spinup: np.timedelta64 = np.timedelta64(spinup_days, "D")
        self.mountains, self.oceans = mountains, oceans
        samples = days * 24 // interval_hours
        self.trajectories = Trajectories(trajectories, samples, interval, np.datetime64(start, "s"), GAP)
        settings = {
            "seed": seed,
            "spinup_days": spinup_days,
            "truncation": truncation,
            "timestep_minutes": timestep_minutes,
            "mountains": mountains,
            "oceans": oceans,
            "edition": EDITION,
        }
        self.path = store_path(folder, "quasigeostrophic", settings | self.trajectories.plain())

    @property
    def grid(self) -> LatLonGrid:
        """Return the Gaussian grid on which products of fields of this truncation do not alias."""
        return alias_free_grid(self.truncation)

    def template(self) -> xr.Dataset:
        """Return the coordinates, attributes and shapes of the dataset, without its values."""
        level = {"standard_name": "air_pressure", "units": "hPa", "positive": "down", "axis": "Z"}
        title = f"emul quasi-geostrophic planet T{self.truncation}L{len(LEVELS)}"
        return empty_dataset(
            VARIABLES,
            self.grid,
            self.trajectories.times,
            (LEVELS, level),
            {"title": title, "edition": EDITION},
        )

    def initial_state(self, members: int) -> tuple[QuasiGeostrophicEquations, Tensor]:
        """Return the model, and the equilibrium of its forcing with a little noise."""
        forcing = Forcing(mountains=self.mountains, oceans=self.oceans)
        seconds = self.timestep / np.timedelta64(1, "s")
        model = QuasiGeostrophicEquations(self.grid, self.truncation, float(seconds), forcing)
        state, generator = model.equilibrium(members), torch.Generator().manual_seed(self.seed)
        return model, model.disturbed(state, 1.0, generator)


STANDARD_HEIGHTS = (11_784.0, 5_574.0, 1_949.0)  # m, of 200, 500 and 800 hPa in the ICAO standard atmosphere
DEFORMATION_RADII = (7.0e5, 4.5e5)  # m, between levels 1 and 2, 2 and 3
UPPER, LOWER = (1.0 / radius**2 for radius in DEFORMATION_RADII)
STRETCHING = np.array([[-UPPER, UPPER, 0.0], [UPPER, -UPPER - LOWER, LOWER], [0.0, LOWER, -LOWER]])
SCALE_HEIGHT = 9.0e3  # m
JET_LATITUDE, JET_WIDTH = 33.0, 16.0  # degrees, of the equilibrium's contrast
LAND_LONGITUDE = 95.0  # degrees east, the middle of one of the two continents
DAY = 86400.0


@dataclass(frozen=True)
class Forcing:
    """Hold the parameters of forcing and damping.

    contrasts: westerly shear of the equilibrium's jet between levels 1 and 2, 2 and 3 in the winter hemisphere (m s-1).
    summer: the shear of the summer hemisphere as a share of that. oceans: temperature contrast of sea and land in
    winter; 0: none. mountains: height in m of the higher of two ranges; 0: flat. relaxation_days, friction_days,
    diffusion_days: time scales in days.
    """

    contrasts: tuple[float, float] = (30.0, 25.0)
    summer: float = 0.6
    oceans: float = 0.4
    mountains: float = 3000.0
    relaxation_days: float = 25.0
    friction_days: float = 3.0
    diffusion_days: float = 2.0


class QuasiGeostrophicEquations:
    """Integrate the quasi-geostrophic equations for several members.

    A state holds the coefficients of q without f and mountains in s-1: (2 * orders, degrees, 3, members).
    step: timestep in seconds. forcing: None for a flat planet without forcing, friction and diffusion.
    """

    def __init__(
        self,
        grid: LatLonGrid,
        truncation: int,
        step: float,
        forcing: Forcing | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.grid, self.forcing, self.dtype = grid, forcing, dtype
        self.sphere = SphericalCalculus(grid, truncation + 1, truncation + 1, dtype)
        laplacian = self.sphere.laplacian.double().flatten().numpy()
        operator = laplacian[:, None, None] * np.eye(3) + STRETCHING
        inverse = np.zeros_like(operator)
        inverse[1:] = np.linalg.inv(operator[1:])
        self._to_vorticity, self._to_streamfunction = self._tensor(operator), self._tensor(inverse)
        coriolis = 2.0 * ROTATION_RATE * np.sin(np.deg2rad(grid.latitude))[:, None]
        self._coriolis = self._tensor(coriolis.T[..., None])
        self.mountains = heights = mountains(grid, forcing.mountains if forcing else 0.0)
        background = np.stack([coriolis + 0.0 * heights] * 2 + [coriolis * (1.0 + heights / SCALE_HEIGHT)])
        self.background = self.sphere.analysis(self._tensor(background.T)).unsqueeze(-1)
        damping = np.zeros_like(laplacian)
        if forcing:
            damping = -((laplacian / laplacian[-1]) ** 4) / (forcing.diffusion_days * DAY)
            friction = (1.0 + 0.5 * (1.0 - np.exp(-heights / 1000.0))) / (forcing.friction_days * DAY)
            self._friction = self._tensor(friction.T[..., None])
            equilibrium = self._tensor(equilibrium_streamfunction(grid, forcing).T)
            self._equilibrium = self.sphere.analysis(equilibrium).unsqueeze(-1)
            self._relaxation = self._tensor(STRETCHING / (forcing.relaxation_days * DAY))
        self._scheme = ExponentialRungeKutta(damping[None, :, None, None], step, dtype)

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.dtype)

    def streamfunction(self, vorticity: Tensor) -> Tensor:
        """Return the coefficients of psi (m2 s-1) from those of the state (s-1)."""
        return torch.matmul(self._to_streamfunction, vorticity)

    def vorticity(self, streamfunction: Tensor) -> Tensor:
        """Return the coefficients of the state (s-1) from those of psi (m2 s-1)."""
        return torch.matmul(self._to_vorticity, streamfunction)

    def field(self, coefficients: Tensor) -> Tensor:
        """Transform coefficients (2 * orders, degrees, 3, members) to the grid, (lon, lat, 3, members)."""
        return self.sphere.synthesis(coefficients.flatten(2)).view(*self.grid.shape[::-1], *coefficients.shape[2:])

    def winds(self, streamfunction: Tensor) -> tuple[Tensor, Tensor]:
        """Return u and v (m s-1), each (lon, lat, 3, members)."""
        shape = (*self.grid.shape[::-1], *streamfunction.shape[2:])
        east, north = self.sphere.gradient(streamfunction.flatten(2))
        return -north.view(shape), east.view(shape)

    def tendency(self, vorticity: Tensor) -> Tensor:
        """Return the tendency by advection, friction and relaxation in s-2, without the hyperdiffusion."""
        psi = self.streamfunction(vorticity)
        u, v = self.winds(psi)
        q = self.field(vorticity + self.background)
        east, north = v * q, -u * q  # whose curl is -J(psi, q)
        if self.forcing:
            east[:, :, 2] -= self._friction * u[:, :, 2]
            north[:, :, 2] -= self._friction * v[:, :, 2]
        turned, _ = self.sphere.vorticity_divergence(east.flatten(2), north.flatten(2))
        change = turned.view_as(vorticity)
        if self.forcing:
            change = change - torch.matmul(self._relaxation, psi - self._equilibrium)
        return change

    def step(self, vorticity: Tensor) -> Tensor:
        """Return the state one timestep later."""
        return self._scheme(self.tendency, vorticity)

    def equilibrium(self, members: int) -> Tensor:
        """Return the equilibrium of the forcing: steady without friction and advection, and unstable."""
        return self.vorticity(self._equilibrium).repeat(1, 1, 1, members)

    def geopotential(self, streamfunction: Tensor) -> Tensor:
        """Return the geopotential (m2 s-2) in linear balance about the standard atmosphere, (lon, lat, 3, members)."""
        sphere = self.sphere
        east, north = (self._coriolis * slope for slope in sphere.gradient(streamfunction.flatten(2)))
        _, divergence = sphere.vorticity_divergence(east, north)
        balanced = self.field((divergence * sphere.inverse_laplacian).view_as(streamfunction))
        return balanced + GRAVITY * self._tensor(np.array(STANDARD_HEIGHTS))[:, None]

    def disturbed(self, vorticity: Tensor, size: float, generator: torch.Generator) -> Tensor:
        """Return the state with a random wind of rms `size` (m s-1), equal in all degrees, added."""
        degree = torch.arange(self.sphere.degrees, dtype=self.dtype)[None, :, None, None]
        noise = torch.randn(*self.grid.shape[::-1], vorticity[0, 0].numel(), generator=generator, dtype=torch.float64)
        psi = self.sphere.analysis(noise.to(self.dtype)).view_as(vorticity) / (degree * (degree + 1.0)).sqrt().clamp(
            min=1.0
        )
        psi[:, 0] = 0.0
        speed = (-self._mean(psi.square() * self.sphere.laplacian[..., None]).mean()).sqrt()
        return vorticity + self.vorticity(psi * (size / speed))

    @property
    def state_variables(self) -> tuple[str, ...]:
        """Return the name of psi, of which all other fields follow."""
        return ("streamfunction",)

    def state(self, sample: Mapping[str, np.ndarray]) -> Tensor:
        """Return the state whose sample this is."""
        psi = self._tensor(sample["streamfunction"].transpose(3, 2, 1, 0).astype(np.float64))
        return self.vorticity(self.sphere.analysis(psi.flatten(2)).unflatten(2, psi.shape[2:]))

    def static(self) -> dict[str, np.ndarray]:
        """Return the geopotential of the mountains, (lat, lon)."""
        return {"geopotential_at_surface": GRAVITY * self.mountains}

    def sample(self, vorticity: Tensor) -> dict[str, np.ndarray]:
        """Return the fields by WeatherBench 2 names, float32, (member, level, lat, lon)."""
        psi = self.streamfunction(vorticity)
        u, v = self.winds(psi)
        fields = {
            "streamfunction": self.field(psi),
            "u_component_of_wind": u,
            "v_component_of_wind": v,
            "geopotential": self.geopotential(psi),
        }
        return {name: field.permute(3, 2, 1, 0).float().contiguous().numpy() for name, field in fields.items()}

    def energy(self, vorticity: Tensor) -> Tensor:
        """Return kinetic plus available potential energy summed over levels, -<psi q> / 2 in m2 s-2, (members,)."""
        return -0.5 * self._mean(self.streamfunction(vorticity) * vorticity).sum(0)

    def enstrophy(self, vorticity: Tensor) -> Tensor:
        """Return the potential enstrophy <q^2> / 2 of each level, with f and mountains, in s-2, (3, members)."""
        return 0.5 * self._mean((vorticity + self.background).square())

    def _mean(self, products: Tensor) -> Tensor:
        """Return the area mean of a product of two fields, from the products of their coefficients."""
        return (products[:2].sum((0, 1)) + 2.0 * products[2:].sum((0, 1))) / (4.0 * np.pi)


def mountains(grid: LatLonGrid, height: float) -> np.ndarray:
    """Return the height of two ranges of the winter hemisphere in m, (lat, lon): wide at 90 E, narrow at 250 E."""
    latitude, longitude = grid.latitude[:, None], grid.longitude[None]
    high = np.exp(-(((latitude - 38.0) / 12.0) ** 2) - ((longitude - 90.0) / 20.0) ** 2)
    slender = np.exp(-(((latitude - 48.0) / 14.0) ** 2) - ((longitude - 250.0) / 10.0) ** 2)
    return height * (high + 0.7 * slender)


def equilibrium_streamfunction(grid: LatLonGrid, forcing: Forcing) -> np.ndarray:
    """Return psi of the equilibrium in m2 s-1, (3, lat, lon); the lowest level is at rest: only thickness relaxes."""
    fine = np.linspace(-90.0, 90.0, 1801)
    jet = np.exp(-(((np.abs(fine) - JET_LATITUDE) / JET_WIDTH) ** 2)) * np.where(fine > 0.0, 1.0, forcing.summer)
    zonal = np.interp(grid.latitude, fine, -EARTH_RADIUS * np.deg2rad(fine[1] - fine[0]) * np.cumsum(jet))
    cold = np.exp(-(((grid.latitude - JET_LATITUDE - JET_WIDTH) / JET_WIDTH) ** 2))
    lands = np.cos(2.0 * np.deg2rad(grid.longitude - LAND_LONGITUDE))
    unit = zonal[:, None] - forcing.oceans * EARTH_RADIUS * np.deg2rad(JET_WIDTH) * np.outer(cold, lands)
    unit = unit - (unit * grid.weights).mean()
    upper, lower = forcing.contrasts
    return np.stack([(upper + lower) * unit, lower * unit, 0.0 * unit])
