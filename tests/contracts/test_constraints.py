"""Every constraint in conf/constraint: idempotent, differentiable, and blind to the batch."""

from __future__ import annotations

import inspect
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from emulators.state import State

FILES = sorted((Path(__file__).parents[2] / "conf" / "constraint").glob("*.yaml"))


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def constraint(request, small_world):
    ((name, options),) = OmegaConf.to_container(OmegaConf.load(request.param), resolve=True).items()
    assert name == request.param.stem
    module, target = options.pop("_target_").rsplit(".", 1)
    target = getattr(import_module(module), target)
    assert set(options) <= set(inspect.signature(target).parameters), f"{request.param} names unknown options"
    return target(small_world(), **options)


@pytest.fixture
def states(small_world):
    """before, after, forcing of two cases with plausible means and some unlawful values."""
    world, generator = small_world(), torch.Generator().manual_seed(0)
    time = np.array(["2000-01-01", "2000-07-01"], "datetime64[s]")

    def state(variables):
        return State(torch.randn(2, variables.size, *world.grid.shape, generator=generator), variables, time)

    return state(world.prognostic), state(world.predicted), state(world.forcing)


def test_idempotent(constraint, states):
    before, after, forcing = states
    once = constraint(before, after, forcing)
    twice = constraint(before, once, forcing)
    assert once.variables == after.variables
    torch.testing.assert_close(twice.values, once.values, rtol=1e-6, atol=1e-6)


def test_differentiable(constraint, states):
    before, after, forcing = states
    values = after.values.clone().requires_grad_()
    constraint(before, replace(after, values=values), forcing).values.square().sum().backward()
    assert torch.isfinite(values.grad).all()
    assert (values.grad != 0).any()


def test_cases_of_a_batch_do_not_meet(constraint, states):
    before, after, forcing = states
    whole = constraint(before, after, forcing).values[:1]
    parts = [replace(s, values=s.values[:1], time=s.time[:1]) for s in (before, after, forcing)]
    torch.testing.assert_close(constraint(*parts).values, whole)
