"""Every constraint in conf/constraint: idempotent, differentiable, blind to the batch, at home on every device."""

from __future__ import annotations

import inspect
from dataclasses import replace
from importlib import import_module

import pytest
import torch
from omegaconf import OmegaConf

from emulators.steps.step import Step
from places import CONF

FILES = sorted((CONF / "constraint").glob("*.yaml"))
GIVEN = {
    "shallow_water": {"depth": "depth"},
    "prescribed": {"variables": {"skin_temperature": "sea_surface_temperature"}, "mask": "land_sea_mask"},
    "masked": {"variables": {"skin_temperature": ["land_sea_mask", 270.0], "temperature": ["land_sea_mask", 0.0]}},
}


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def constraint(request, column_world):
    ((name, options),) = OmegaConf.to_container(OmegaConf.load(request.param), resolve=True).items()
    assert name == request.param.stem
    module, target = options.pop("_target_").rsplit(".", 1)
    target = getattr(import_module(module), target)
    options |= GIVEN.get(name, {})
    assert set(options) <= set(inspect.signature(target).parameters), f"{request.param} names unknown options"
    return target(column_world(), **options)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["single", "double"])
def states(request, column_world, weather):
    """before, after, forcing of two cases: a plausible `before`, and an `after` with some unlawful values."""
    world = column_world()
    before, after, forcing = (
        weather(world, variables, seed, dtype=request.param)
        for seed, variables in enumerate((world.prognostic, world.predicted, world.forcing))
    )
    wet = after["specific_humidity"].clone()
    wet[..., ::3, ::2] *= -0.1
    return before, after.with_(specific_humidity=wet), forcing


def test_idempotent(constraint, states):
    before, after, forcing = states
    once = constraint(before, after, forcing)
    twice = constraint(before, once, forcing)
    assert (once.variables, once.values.dtype) == (after.variables, after.values.dtype)
    torch.testing.assert_close(
        twice.values, once.values, rtol=2e-7 if once.values.dtype == torch.float32 else 1e-12, atol=1e-12
    )


def test_changes_what_it_says_and_nothing_else(constraint, states):
    before, after, forcing = states
    lawful = constraint(before, after, forcing)
    changed = {v.name for v in after.variables if not torch.equal(lawful[v.name], after[v.name])}
    assert changed
    assert changed <= set(constraint.changes)


def test_differentiable(constraint, states):
    before, after, forcing = states
    values = after.values.clone().requires_grad_()
    constraint(before, replace(after, values=values), forcing).values.square().sum().backward()
    assert torch.isfinite(values.grad).all()
    assert (values.grad != 0).any()


def test_gradients(constraint, states):
    """Along random directions the gradient is that of finite differences; steps are shares of a field's spread."""
    before, after, forcing = (state.to(torch.float64) for state in states)
    spread = after.values.std((0, 2, 3), keepdim=True)

    def value(values):
        lawful = constraint(before, replace(after, values=values), forcing).values
        return (lawful / spread).tanh().sum()

    values = after.values.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(values), values)
    generator = torch.Generator().manual_seed(7)
    for _ in range(3):
        direction = spread * torch.randn(values.shape, generator=generator, dtype=torch.float64)
        difference = (value(values + 1e-6 * direction) - value(values - 1e-6 * direction)) / 2e-6
        torch.testing.assert_close((gradient * direction).sum(), difference.detach(), rtol=1e-4, atol=1e-3)


def test_cases_of_a_batch_do_not_meet(constraint, states):
    before, after, forcing = states
    whole = constraint(before, after, forcing).values[:1]
    parts = [replace(s, values=s.values[:1], time=s.time[:1]) for s in (before, after, forcing)]
    torch.testing.assert_close(constraint(*parts).values, whole)


def test_members_are_cases_of_their_own(constraint, states):
    before, after, forcing = states
    members = [replace(s, values=torch.stack([s.values, s.values.flip(0)])) for s in (before, after, forcing)]
    ensemble = constraint(*members).values
    torch.testing.assert_close(ensemble[0], constraint(before, after, forcing).values)
    torch.testing.assert_close(ensemble[1], ensemble[0].flip(0))


def test_autocast_changes_nothing(constraint, states):
    plain = constraint(*states).values
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(constraint(*states).values, plain)


def test_goes_where_the_step_goes(constraint, column_world, states):
    class Nothing(torch.nn.Module):
        def forward(self, fields, time):
            return fields.new_zeros(len(fields), column_world().output_channels, *fields.shape[2:])

    step = Step(column_world(), Nothing(), {"law": constraint}).to("meta")
    assert not step.state_dict(), "a law has nothing to remember"
    tables = [table for module in step.constraint_modules for table in module.buffers()]
    assert all(table.device.type == "meta" for table in tables)
    before, after, forcing = (replace(state, values=state.values.to("meta")) for state in states)
    assert constraint(before, after, forcing).values.is_meta, "nothing is made on another device"
