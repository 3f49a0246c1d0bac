"""Coupled components against the coupled stepper of ACE (fme 2026.10.0) on stubs: the order of SamudrACE, step by step.

In fme the atmosphere's surface temperature is overwritten with that of the water, before the first step and after each;
here the temperature of the water is a forcing, which says the same.
"""

from __future__ import annotations

import dataclasses
import datetime
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from emulators.grid import equiangular_grid
from emulators.models.persistence import Persistence
from emulators.rollout import Rollout
from emulators.state import State
from emulators.steps.coupled import CoupledStep
from emulators.steps.step import Step
from emulators.variables import Variable, VariableSet
from emulators.world import Scale, World

GRID, OUTER, BATCH = equiangular_grid(6), 3, 2
AIR, FLUX, SST, SUN = "air", "flux", "sst", "sun"
TIME = np.datetime64("2001-01-01", "s")


def atmosphere(air: Tensor, water: Tensor, sun: Tensor) -> tuple[Tensor, Tensor]:
    """Air and flux after six hours."""
    flux = torch.tanh(water - air) + 0.1 * sun
    return 0.9 * air.roll(1, dims=-1) + 0.2 * flux, flux


def ocean(water: Tensor, air: Tensor, flux: Tensor, sun: Tensor) -> Tensor:
    """Water after a timestep of the ocean."""
    return water - 0.3 * flux + 0.05 * torch.sin(air) + 0.01 * sun


def channels(*fields: Tensor) -> Tensor:
    return torch.stack(fields, dim=1)


class OurAtmosphere(nn.Module):
    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        return channels(*atmosphere(*fields.unbind(1)))


class OurOcean(nn.Module):
    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        return channels(ocean(*fields.unbind(1)))


class TheirAtmosphere(nn.Module):
    """Reads air, surface temperature, sun and the fraction of ocean; writes air, surface temperature and flux."""

    def forward(self, fields: Tensor) -> Tensor:
        air, water, sun, _ = fields.unbind(1)
        after, flux = atmosphere(air, water, sun)
        return channels(after, torch.zeros_like(air), flux)


class TheirOcean(nn.Module):
    def forward(self, fields: Tensor) -> Tensor:
        return channels(ocean(*fields.unbind(1)))


def made_world(timestep: np.timedelta64, **roles: tuple[str, ...]) -> World:
    sets = {role: VariableSet(tuple(map(Variable, names))) for role, names in roles.items()}
    scales = {name: Scale(0.0, 1.0, 1.0) for names in roles.values() for name in names}
    return World(GRID, timestep=timestep, scales=scales, **sets)


def fields(inner: int) -> SimpleNamespace:
    """Initial air and water, and the sun at all times, (batch, time, lat, lon)."""
    draws = torch.Generator().manual_seed(0)
    sun = torch.rand(BATCH, OUTER * inner + 1, *GRID.shape, generator=draws)
    air, water = torch.randn(2, BATCH, *GRID.shape, generator=draws)
    return SimpleNamespace(air=air, water=water, sun=sun)


def ours(inner: int) -> tuple[Tensor, Tensor]:
    """Air at all timesteps after the start, (batch, time, ...), and water at those of the ocean."""
    six, given = np.timedelta64(6, "h"), fields(inner)
    air_world = made_world(six, prognostic=(AIR,), diagnostic=(FLUX,), forcing=(SST, SUN))
    sea_world = made_world(inner * six, prognostic=(SST,), forcing=(AIR, FLUX, SUN))
    world = made_world(six, prognostic=(AIR, SST), diagnostic=(FLUX,), forcing=(SUN,))
    step = CoupledStep(
        world,
        Persistence(world),
        exchange={"ocean": {SUN: {"mean": SUN}}},
        atmosphere=Step(air_world, OurAtmosphere(), output="absolute"),
        ocean=Step(sea_world, OurOcean(), output="absolute"),
    )
    time = np.full(BATCH, TIME)
    start = State(channels(given.air, given.water), world.prognostic, time)
    suns = [State(given.sun[:, n, None], world.forcing, world.after(time, n)) for n in range(1, OUTER * inner + 1)]
    states = list(Rollout(step, world, (start,)).states(suns))
    return torch.stack([s[AIR] for s in states], 1), torch.stack([s[SST] for s in states[inner - 1 :: inner]], 1)


def theirs(inner: int) -> tuple[Tensor, Tensor]:
    """What fme makes of the same."""
    coupled = pytest.importorskip("fme.coupled.stepper")
    stepper = configuration(coupled, inner).get_stepper(dataset_info(inner))
    start, window = batches(inner)
    made: dict[str, list[Tensor]] = {"atmosphere": [], "ocean": []}
    from fme.core.optimization import NullOptimization

    with torch.no_grad():
        for part in stepper.get_prediction_generator(start, window, NullOptimization()):
            made[part.realm].append(part.data[AIR if part.realm == "atmosphere" else SST])
    return torch.stack(made["atmosphere"], 1), torch.stack(made["ocean"], 1)


def configuration(coupled: Any, inner: int) -> Any:
    from fme.ace.stepper import StepperConfig
    from fme.core.normalizer import NetworkAndLossNormalizationConfig, NormalizationConfig
    from fme.core.ocean import OceanConfig
    from fme.core.registry.corrector import CorrectorSelector
    from fme.core.registry.module import ModuleSelector
    from fme.core.step.single_module import SingleModuleStepConfig
    from fme.core.step.step import StepSelector

    def component(hours: int, module: nn.Module, reads: list[str], writes: list[str], **options: Any) -> Any:
        names = {*reads, *writes}
        scales = NormalizationConfig(means=dict.fromkeys(names, 0.0), stds=dict.fromkeys(names, 1.0))
        config = SingleModuleStepConfig(
            builder=ModuleSelector(type="prebuilt", config={"module": module}),
            in_names=reads,
            out_names=writes,
            normalization=NetworkAndLossNormalizationConfig(network=scales, loss=scales),
            **options,
        )
        step = StepSelector(type="single_module", config=dataclasses.asdict(config))
        return coupled.ComponentConfig(timedelta=f"{hours}h", stepper=StepperConfig(step=step))

    surface = OceanConfig(surface_temperature_name="surface_temperature", ocean_fraction_name="ocean_fraction")
    air_reads = [AIR, "surface_temperature", SUN, "ocean_fraction"]
    air_writes = [AIR, "surface_temperature", FLUX]
    return coupled.CoupledStepperConfig(
        atmosphere=component(
            6, TheirAtmosphere(), air_reads, air_writes, ocean=surface, next_step_forcing_names=[SUN]
        ),
        ocean=component(
            6 * inner, TheirOcean(), [SST, AIR, FLUX, SUN], [SST],
            next_step_forcing_names=[AIR, FLUX, SUN], corrector=CorrectorSelector("ocean_corrector", {}),
        ),
        sst_name=SST,
    )  # fmt: skip


def dataset_info(inner: int) -> Any:
    from fme.core.coordinates import LatLonCoordinates, NullVerticalCoordinate
    from fme.core.dataset_info import DatasetInfo
    from fme.core.spatial_mask_provider import SpatialMaskProvider
    from fme.coupled.dataset_info import CoupledDatasetInfo

    where = LatLonCoordinates(torch.as_tensor(GRID.latitude[::-1].copy()), torch.as_tensor(GRID.longitude.copy()))
    parts = [
        DatasetInfo(
            horizontal_coordinates=where,
            vertical_coordinate=NullVerticalCoordinate(),
            spatial_mask_provider=SpatialMaskProvider({}),
            timestep=datetime.timedelta(hours=6 * count),
        )
        for count in (inner, 1)
    ]
    return CoupledDatasetInfo(ocean=parts[0], atmosphere=parts[1])


def batches(inner: int) -> tuple[Any, Any]:
    """The initial state and the window of forcings."""
    import xarray as xr
    from fme.ace.data_loading.batch_data import BatchData, PrognosticState
    from fme.coupled.data_loading.batch_data import CoupledBatchData, CoupledPrognosticState

    given, count = fields(inner), OUTER * inner + 1

    def batch(data: dict[str, Tensor], every: int) -> Any:
        number = next(iter(data.values())).shape[1]
        time = xr.date_range("2001-01-01", periods=number, freq=f"{6 * every}h", use_cftime=True)
        return BatchData(data=data, time=xr.DataArray(np.tile(np.array(time), (BATCH, 1)), dims=("sample", "time")))

    one = torch.ones(BATCH, count, *GRID.shape)
    start = CoupledPrognosticState(
        ocean_data=PrognosticState(batch({SST: given.water[:, None]}, inner)),
        atmosphere_data=PrognosticState(
            batch({AIR: given.air[:, None], "surface_temperature": torch.zeros_like(given.air)[:, None]}, 1)
        ),
    )
    window = CoupledBatchData(
        ocean_data=batch({SST: torch.zeros(BATCH, OUTER + 1, *GRID.shape)}, inner),
        atmosphere_data=batch({SUN: given.sun, "ocean_fraction": one}, 1),
    )
    return start, window


@pytest.mark.parametrize("inner", [1, 4, 20])
def test_every_step(inner):
    (air, water), (their_air, their_water) = ours(inner), theirs(inner)
    assert air.shape == their_air.shape == (BATCH, OUTER * inner, *GRID.shape)
    assert torch.allclose(air, their_air, atol=1e-6, rtol=1e-5)
    assert torch.allclose(water, their_water, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("inner", "expected"),
    [(4, (0.1668265, -0.0006422)), (20, (-0.4235452, -0.8164657))],
)
def test_recorded_numbers(inner, expected):
    """What fme gave at one point after three steps of the ocean."""
    air, water = ours(inner)
    found = air[1, -1, 2, 5].item(), water[1, -1, 2, 5].item()
    assert found == pytest.approx(expected, abs=1e-5)
