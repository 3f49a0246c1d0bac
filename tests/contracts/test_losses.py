"""Every loss in conf/loss: zero at the truth, positive elsewhere, one number a lead element, right gradients."""

from __future__ import annotations

import inspect
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from emul.config.signatures import wrapping
from emulators.state import State
from places import CONF

TERM = {parameter.name for parameter in wrapping("loss")}
FILES = sorted((CONF / "loss").glob("*.yaml"))


def part(file: Path, world):
    """The one part that `file` describes under its own name."""
    ((name, options),) = OmegaConf.to_container(OmegaConf.load(file), resolve=True).items()
    assert name == file.stem
    module, target = options.pop("_target_").rsplit(".", 1)
    target = getattr(import_module(module), target)
    assert set(options) >= TERM, f"{file} says nothing of {TERM - set(options)}"
    options = {key: value for key, value in options.items() if key not in TERM}
    assert set(options) <= set(inspect.signature(target).parameters), f"{file} names unknown options"
    return target(world, **options)


@pytest.fixture(scope="module")
def world(column_world):
    """Whole columns of air, with winds and fluxes."""
    return column_world()


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def loss(request, world):
    return part(request.param, world)


def state(world, seed: int, batch: int = 2, dtype=torch.float64) -> State:
    values = torch.randn(
        batch,
        world.output_channels,
        *world.grid.shape,
        generator=torch.Generator().manual_seed(seed),
        dtype=torch.float64,
    )
    values = scale(world, "mean") + scale(world, "std") * values
    return State(values.to(dtype), world.predicted, np.zeros(batch, "datetime64[s]"))


def scale(world, kind: str) -> torch.Tensor:
    return torch.as_tensor(world.scale(world.predicted, kind), dtype=torch.float64).reshape(-1, 1, 1)


def test_zero_at_the_truth_and_positive_elsewhere(loss, world):
    truth, other = state(world, 1), state(world, 2)
    assert (loss(truth, truth).abs() < 1e-12).all()
    assert (loss(other, truth) > 0).all()


def test_one_number_a_lead_element(loss, world):
    truth, other = state(world, 1, batch=3), state(world, 2, batch=3)
    values = loss(other, truth)
    assert values.shape == (3,)
    first = loss(replace(other, values=other.values[:1]), replace(truth, values=truth.values[:1]))
    torch.testing.assert_close(values[:1], first)


def test_gradients(loss, world):
    truth, other = state(world, 1, batch=1), state(world, 2, batch=1)

    def value(values):
        return loss(replace(other, values=values), truth).sum()

    values = other.values.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(values), values)
    generator = torch.Generator().manual_seed(3)
    for _ in range(4):
        direction = scale(world, "std") * torch.randn(values.shape, generator=generator, dtype=torch.float64)
        difference = (value(values + 1e-6 * direction) - value(values - 1e-6 * direction)) / 2e-6
        torch.testing.assert_close((gradient * direction).sum(), difference.detach(), rtol=1e-5, atol=1e-8)


def test_single_precision_is_enough(loss, world):
    exact = loss(state(world, 2), state(world, 1))
    single = loss(state(world, 2, dtype=torch.float32), state(world, 1, dtype=torch.float32))
    torch.testing.assert_close(single.double(), exact, rtol=1e-4, atol=0)


def test_autocast_changes_nothing(loss, world):
    prediction, target = state(world, 2, dtype=torch.float32), state(world, 1, dtype=torch.float32)
    values = prediction.values.requires_grad_()
    plain = loss(prediction, target)
    (slope,) = torch.autograd.grad(plain.sum(), values)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(prediction, target)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, plain, rtol=1e-6, atol=0)
    torch.testing.assert_close(torch.autograd.grad(found.sum(), values)[0], slope, rtol=1e-5, atol=1e-7)


def test_members_before_the_batch(loss, world):
    truth, other = state(world, 1), state(world, 2)
    both = replace(other, values=torch.stack([other.values, truth.values]))
    values = loss(both, replace(truth, values=truth.values.expand_as(both.values)))
    assert values.shape == (2, 2)
    torch.testing.assert_close(values[0], loss(other, truth))
    assert (values[1].abs() < 1e-12).all()
