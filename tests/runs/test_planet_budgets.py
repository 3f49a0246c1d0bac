"""What the embedded planet stores closes its budgets as the constraints and losses count them."""

from dataclasses import replace

import pytest
import torch

from data_pipelines.batches.archive import Archive
from data_pipelines.batches.world import world_from_dataset
from emul.config.build import build
from emul.config.compose import compose
from emulators.constraints.total_energy import TotalEnergy
from emulators.physics.budgets import DryAir, Energy, Water
from emulators.physics.hydrostatics import Hydrostatics

DIAGNOSTIC = [
    "total_precipitation_6hr", "evaporation_6hr", "sensible_heat_flux_6hr", "net_radiation_6hr", "friction_6hr",
    "geopotential",
]  # fmt: skip


@pytest.fixture(scope="module")
def planet():
    """The World, and nineteen timesteps: States before and after, and the forcing."""
    chosen = ["data=planet_tiny", "variables=planet_budgets", f"variables.diagnostic=[{','.join(DIAGNOSTIC)}]"]
    config = compose("train", chosen)
    source = build(config.data)
    source.prepare()
    made = world_from_dataset(source.dataset(), build(config.variables))
    archive = Archive(source.dataset(), made, cache_gigabytes=0.0)
    times = archive.times[:20].astype("datetime64[s]")
    states, forcing = archive.states(times, made.predicted), archive.forcing(times[1:])

    def stretch(part: slice):
        return replace(states, values=states.values[part], time=states.time[part])

    return made, stretch(slice(0, -1)), stretch(slice(1, None)), forcing


@pytest.mark.slow
def test_water_and_energy(planet):
    made, before, after, forcing = planet
    for budget, bar in ((Water(made), 2e-6), (Energy(made), 1e-4)):
        missed = budget.mean(budget.residual(before, after, forcing)) / budget.mean(budget.turnover(after, forcing))
        assert missed.abs().max() < bar


@pytest.mark.slow
def test_the_weight_of_dry_air(planet):
    made, before, after, _ = planet
    air = DryAir(made)
    dry = [air.mean(air.content(state)) for state in (before, after)]
    assert ((dry[1] - dry[0]) / dry[0]).abs().max() < 1e-7
    mean = [air.mean(state["surface_pressure"].double()) for state in (before, after)]
    torch.testing.assert_close(dry[1] / dry[0], mean[1] / mean[0], rtol=1e-12, atol=0.0)


@pytest.mark.slow
def test_heights(planet):
    made, _, after, _ = planet
    assert Hydrostatics(made).imbalance(after).abs().max() < 0.2  # m2 s-2, of 3e5


@pytest.mark.slow
def test_the_truth_needs_next_to_no_correction(planet):
    made, before, after, forcing = planet
    warmed = TotalEnergy(made)(before, after, forcing)["temperature"] - after["temperature"]
    assert warmed.abs().max() < 1e-3
    assert torch.isfinite(warmed).all()
