"""Every constraint in conf/constraint: idempotent, differentiable, blind to the batch, at home on every device."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from omegaconf import OmegaConf

from emul.contracts import built
from emulators.contracts.example_worlds import column_world, example_state
from emulators.contracts.parts import CONSTRAINT
from emulators.steps.step import Step
from places import CONF

FILES = sorted((CONF / "constraint").glob("*.yaml"))
GIVEN = {
    "shallow_water": {"depth": "depth"},
    "prescribed": {"variables": {"skin_temperature": "sea_surface_temperature"}, "mask": "land_sea_mask"},
    "slab_ocean": {"temperature": "skin_temperature", "mask": "land_sea_mask", "invert": True},
    "masked": {"variables": {"skin_temperature": ["land_sea_mask", 270.0], "temperature": ["land_sea_mask", 0.0]}},
}


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def constraint(request):
    ((name, options),) = OmegaConf.to_container(OmegaConf.load(request.param), resolve=True).items()
    assert name == request.param.stem
    return built(options | GIVEN.get(name, {}), column_world())


@pytest.mark.parametrize("contract", CONSTRAINT, ids=lambda contract: contract.__name__)
def test_contract(constraint, contract):
    contract(constraint, column_world())


def test_goes_where_the_step_goes(constraint):
    world = column_world()
    kinds = (world.prognostic, world.predicted, world.forcing)
    states = [example_state(world, variables, seed) for seed, variables in enumerate(kinds)]

    class Nothing(torch.nn.Module):
        def forward(self, fields, time):
            return fields.new_zeros(len(fields), world.output_channels, *fields.shape[2:])

    step = Step(world, Nothing(), {"law": constraint}).to("meta")
    assert not step.state_dict(), "a law has nothing to remember"
    tables = [table for module in step.constraint_modules for table in module.buffers()]
    assert all(table.device.type == "meta" for table in tables)
    before, after, forcing = (replace(state, values=state.values.to("meta")) for state in states)
    assert constraint(before, after, forcing).values.is_meta, "nothing is made on another device"
