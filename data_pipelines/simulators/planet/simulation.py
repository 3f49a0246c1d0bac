"""Simulation of the planet: dynamics, transport of water, physics and an energy fixer.

A timestep moves the air, then its water, then applies the physics, and condenses what exceeds saturation last. Winds,
temperature and surface pressure are truncated; humidity lives on the grid. Condensation ends at the truncated
temperature, so that the state, as it is stored, is nowhere supersaturated.

In each timestep the global energy cp T + K + ps Phi_s should change only by the fluxes of the physics. The kinetic
energy that hyperdiffusion takes becomes heat where it is lost (as in Becker 2001, doi
10.1175/1520-0469(2001)058<0269:SSTFOH>2.0.CO;2). What timestep, truncation and round-off still add or remove is
compensated by a uniform warming, and recorded as the energy fixer.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_pipelines.interfaces import Sample
from data_pipelines.reading.threads import one_thread
from data_pipelines.simulators.planet.climate import DOUBLINGS, CarbonDioxide, Climate, Switches
from data_pipelines.simulators.planet.geography import Geography, water
from data_pipelines.simulators.planet.physics import Fluxes, PlanetPhysics, Season
from data_pipelines.simulators.planet.primitive_equations import Fields, PrimitiveEquations
from data_pipelines.simulators.planet.surface import Ground
from data_pipelines.simulators.planet.water_transport import WaterTransport
from emulators.constants import (
    GAS_CONSTANT_DRY,
    GRAVITY,
    HEAT_CAPACITY_DRY,
    LATENT_HEAT_VAPORISATION,
    REFERENCE_PRESSURE,
    WATER_DENSITY,
)
from emulators.grid import LatLonGrid
from emulators.physics.moisture import saturation_humidity

LEAST_LAND = 1e-3  # share of a cell from which the temperature of its land is known to 0.1 K from that of the cell
STRATOSPHERIC_HUMIDITY = 8e-6  # kg kg-1, initially: what the model tends to


class Simulation:
    """Simulate one planet from `start`, beginning at rest with noise from `seed`.

    half: sigma at half levels. timestep: in seconds. geography: on `grid`; None for a flat planet of water.
    compile: use `torch.compile`, once a process; a timestep then takes half as long, and rounds differently. co2:
    None for the usual amount.
    """

    def __init__(
        self,
        grid: LatLonGrid,
        truncation: int,
        half: np.ndarray,
        timestep: int,
        start: np.datetime64,
        seed: int = 0,
        geography: Geography | None = None,
        climate: Climate | None = None,
        switches: Switches | None = None,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        compile: bool = False,
        co2: CarbonDioxide | None = None,
    ) -> None:
        geography, self.switches = geography or water(grid), switches or Switches()
        self.dynamics = PrimitiveEquations(
            grid,
            truncation,
            half,
            float(timestep),
            surface_geopotential=geography.geopotential,
            virtual_temperature=self.switches.moist and self.switches.virtual_temperature,
            dtype=dtype,
            device=device,
        )
        self.physics = PlanetPhysics(
            grid,
            half,
            float(timestep),
            self.dynamics.levels.geopotential,
            geography,
            climate,
            self.switches,
            dtype,
            device,
            co2,
        )
        self.transport = WaterTransport(grid, half, float(timestep), dtype, self.dynamics.device)
        self.timestep, self.time = np.timedelta64(timestep, "s"), start.astype("datetime64[s]")
        self.ground = self.physics.season(self.time).target
        self._advance = torch.compile(self._advanced, dynamic=False) if compile else self._advanced
        self.settle(*self._disturbed_rest(seed))

    def settle(self, coefficients: Tensor, humidity: Tensor | None) -> None:
        """Set the present state, and compute its fields and energy."""
        self.coefficients = coefficients
        self.fields = self.dynamics.fields(coefficients, humidity)
        self.energy = self.dynamics.energy(self.fields)

    def snapshot(self) -> dict[str, Any]:
        """Return all that the next timestep needs, as tensors and numbers; `restore` continues from it bit for bit."""
        return {
            "time": int(self.time.astype(np.int64)),
            "coefficients": self.coefficients,
            "fields": [*self.fields[:-1], *self.fields.pressure_gradient],
            "ground": list(self.ground),
            "energy": self.energy,
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Continue from a snapshot of a simulation with the same settings."""
        u, v, temperature, humidity, pressure, vorticity, divergence, *gradient = snapshot["fields"]
        self.time = np.datetime64(snapshot["time"], "s")
        self.coefficients = snapshot["coefficients"]
        self.fields = Fields(u, v, temperature, humidity, pressure, vorticity, divergence, (gradient[0], gradient[1]))
        self.ground, self.energy = Ground(*snapshot["ground"]), snapshot["energy"]

    def begin(self, sample: Sample, time: np.datetime64) -> None:
        """Continue from stored fields, ([level,] lat, lon), at `time`.

        The temperature of land follows from that of the whole surface; where there is no land it is what season and
        place make it.
        """
        dynamics, surface, self.time = self.dynamics, self.physics.surface, time.astype("datetime64[s]")
        water, skin = (surface.from_stored(sample[name]) for name in ("sea_surface_temperature", "skin_temperature"))
        land = (skin - surface.sea * water) / surface.land.clamp(min=LEAST_LAND)
        usual = self.physics.season(self.time).target.land
        self.ground = Ground(torch.where(surface.land > LEAST_LAND, land, usual), water)
        u, v, temperature, humidity = (
            dynamics.constant(sample[name].T)
            for name in ("u_component_of_wind", "v_component_of_wind", "temperature", "specific_humidity")
        )
        pressure = dynamics.constant(sample["surface_pressure"].T[..., None])
        coefficients = dynamics.coefficients(u, v, temperature, pressure)
        self.settle(coefficients, humidity.clamp(min=0.0) if self.switches.moist else None)

    def _disturbed_rest(self, seed: int) -> tuple[Tensor, Tensor | None]:
        """Return coefficients and humidity of air at rest in radiative equilibrium, with noise near the ground.

        The air is 60 % saturated below sigma 0.2, and dry above.
        """
        dynamics, physics = self.dynamics, self.physics
        nlat, nlon = dynamics.sphere.grid.shape
        pressure = REFERENCE_PRESSURE * torch.exp(-dynamics.surface_geopotential[..., :1] / (GAS_CONSTANT_DRY * 270.0))
        noise = torch.randn(nlon, nlat, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        temperature = physics.equilibrium(physics.season(self.time), pressure)
        temperature = temperature + noise.to(dynamics.device, dynamics.dtype) * physics.sigma
        humidity = 0.6 * saturation_humidity(temperature, pressure * physics.sigma)
        humidity = torch.where(physics.sigma > 0.2, humidity, STRATOSPHERIC_HUMIDITY)
        calm = torch.zeros_like(temperature)
        return dynamics.coefficients(calm, calm, temperature, pressure), humidity if self.switches.moist else None

    def step(self) -> tuple[Fluxes, Tensor]:
        """Advance by one timestep; return the fluxes of the physics, and the energy fixer (J m-2, a scalar)."""
        self.time = self.time + self.timestep
        season = self.physics.season(self.time)
        self.coefficients, self.fields, self.energy, self.ground, fluxes, fixer = self._advance(
            self.coefficients, self.fields, self.energy, self.ground, season
        )
        return fluxes, fixer

    def _advanced(
        self, coefficients: Tensor, fields: Fields, energy: Tensor, ground: Ground, season: Season
    ) -> tuple[Tensor, Fields, Tensor, Ground, Fluxes, Tensor]:
        """Return coefficients, fields, energy and ground after one timestep, its fluxes and the energy fixer."""
        dynamics, physics = self.dynamics, self.physics
        coefficients = dynamics.undamped_step(coefficients, fields)
        flown = dynamics.fields(coefficients, fields.humidity)
        humidity = self.transport(fields, flown) if self.switches.moist else fields.humidity
        u, v, temperature, humidity, ground, fluxes = physics(
            season, ground, flown.u, flown.v, flown.temperature, humidity, flown.surface_pressure
        )
        coefficients = dynamics.diffused(dynamics.slowed(coefficients, physics.slowing))
        fields = dynamics.fields(coefficients, humidity)
        warming = temperature - flown.temperature + dissipation(u, v, fields.u, fields.v) / HEAT_CAPACITY_DRY
        if self.switches.moist:
            coefficients, fields, fallen = self._condensed(coefficients, fields, warming, temperature)
            fluxes = fluxes._replace(precipitation=fallen)
        else:
            coefficients, fields = dynamics.heated(coefficients, fields, warming)
        gained = (
            fluxes.sensible_heat
            + fluxes.net_radiation
            + fluxes.friction
            + LATENT_HEAT_VAPORISATION * fluxes.precipitation
        )
        now = dynamics.energy(fields)
        if not self.switches.energy_fixer:
            return coefficients, fields, now, ground, fluxes, torch.zeros_like(now)
        expected = energy + dynamics.mean(gained[..., None])[0]
        fixer = expected - now
        mass = dynamics.mean(fields.surface_pressure)[0] / GRAVITY
        coefficients, fields = dynamics.warmed(coefficients, fields, fixer / (HEAT_CAPACITY_DRY * mass))
        return coefficients, fields, expected, ground, fluxes, fixer

    def _condensed(
        self, coefficients: Tensor, fields: Fields, warming: Tensor, temperature: Tensor
    ) -> tuple[Tensor, Fields, Tensor]:
        """Apply the warming of the physics and of condensation; return coefficients, fields and rain.

        Condensation acts on the temperature after the physics, then on the truncated one.
        """
        physics, dynamics, pressure = self.physics, self.dynamics, fields.surface_pressure
        latent, humidity, fallen = physics.rain(temperature, fields.humidity, pressure)
        coefficients, fields = dynamics.heated(coefficients, fields, warming + latent)
        latent, humidity, more = physics.rain(fields.temperature, humidity, pressure, last=True)
        coefficients, fields = dynamics.heated(coefficients, fields, latent)
        return coefficients, fields._replace(humidity=humidity), fallen + more

    def samples(self, count: int, steps: int) -> Iterator[dict[str, np.ndarray]]:
        """Yield `count` samples every `steps` timesteps; fields ([level,] lat, lon), float32."""
        for _ in range(count):
            fluxes, fixer = self.step()
            for _ in range(steps - 1):
                more, extra = self.step()
                fluxes, fixer = Fluxes(*(a + b for a, b in zip(fluxes, more, strict=True))), fixer + extra
            yield self.sample(fluxes, fixer)

    def atmosphere(self) -> dict[str, np.ndarray]:
        """Return the present atmospheric fields by WeatherBench 2 names, ([level,] lat, lon)."""
        fields, dynamics = self.fields, self.dynamics
        humidity = fields.humidity.expand_as(fields.temperature)
        virtual = dynamics.virtual_temperature(fields.temperature, humidity)
        return {
            "temperature": _array(fields.temperature),
            "u_component_of_wind": _array(fields.u),
            "v_component_of_wind": _array(fields.v),
            "specific_humidity": _array(humidity),
            "geopotential": _array(virtual @ dynamics.geopotential + dynamics.surface_geopotential),
            "surface_pressure": _array(fields.surface_pressure[..., 0]),
        }

    def sample(self, fluxes: Fluxes, fixer: Tensor) -> dict[str, np.ndarray]:
        """Return the present fields, the forcing, and the given fluxes accumulated since the last sample."""
        grid, co2 = self.dynamics.sphere.grid, self.physics.co2
        prescribed = {} if co2 is None else {DOUBLINGS: np.full(grid.shape, co2.doublings(self.time), dtype=np.float32)}
        return (
            self.atmosphere()
            | prescribed
            | {
                "sea_surface_temperature": _array(self.ground.water),
                "skin_temperature": _array(self.physics.surface.skin_temperature(self.ground)),
                "toa_incident_solar_radiation": self.physics.sunlight(self.time)[0].astype(np.float32),
                "total_precipitation_6hr": _array(fluxes.precipitation / WATER_DENSITY),
                "evaporation_6hr": _array(fluxes.evaporation / WATER_DENSITY),
                "sensible_heat_flux_6hr": _array(fluxes.sensible_heat),
                "net_radiation_6hr": _array(fluxes.net_radiation),
                "friction_6hr": _array(fluxes.friction),
                "surface_heat_supply_6hr": _array(fluxes.surface_supply),
                "energy_fixer_6hr": np.full(grid.shape, float(fixer), dtype=np.float32),
            }
        )


def dissipation(u: Tensor, v: Tensor, slower_u: Tensor, slower_v: Tensor) -> Tensor:
    """Return the kinetic energy lost from winds u, v to the slower ones, J kg-1."""
    return 0.5 * (u * u + v * v - slower_u * slower_u - slower_v * slower_v)


def _array(field: Tensor) -> np.ndarray:
    """Convert a tensor (lon, lat[, level]) to an array ([level,] lat, lon), float32."""
    return field.permute(*range(field.ndim)[::-1]).float().contiguous().cpu().numpy()


def continued_members(simulation: Simulation, first: Sample, start: np.datetime64, steps: int) -> Iterator[Sample]:
    """Yield the samples that follow stored fields of several members at `start`, (member, [level,] lat, lon), for ever.

    steps: timesteps between samples.
    """
    members = []
    for number in range(len(first["temperature"])):
        member = copy.copy(simulation)
        member.begin({name: field[number] for name, field in first.items()}, start)
        members.append(member)
    while True:
        with one_thread():
            samples = [next(member.samples(1, steps)) for member in members]
        yield {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
