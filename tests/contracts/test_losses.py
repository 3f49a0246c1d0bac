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

from emulators.state import State

FILES = sorted((Path(__file__).parents[2] / "conf" / "loss").glob("*.yaml"))


def part(file: Path, world):
    """The one part that `file` describes under its own name."""
    ((name, options),) = OmegaConf.to_container(OmegaConf.load(file), resolve=True).items()
    assert name == file.stem
    module, target = options.pop("_target_").rsplit(".", 1)
    target = getattr(import_module(module), target)
    assert set(options) <= set(inspect.signature(target).parameters), f"{file} names unknown options"
    return target(world, **options)


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def loss(request, small_world):
    return part(request.param, small_world())


def state(world, seed: int, batch: int = 2, dtype=torch.float64) -> State:
    values = torch.randn(
        batch,
        world.output_channels,
        *world.grid.shape,
        generator=torch.Generator().manual_seed(seed),
        dtype=torch.float64,
    )
    return State(values.to(dtype), world.predicted, np.zeros(batch, "datetime64[s]"))


def test_zero_at_the_truth_and_positive_elsewhere(loss, small_world):
    truth, other = state(small_world(), 1), state(small_world(), 2)
    assert (loss(truth, truth).abs() < 1e-12).all()
    assert (loss(other, truth) > 0).all()


def test_one_number_a_lead_element(loss, small_world):
    truth, other = state(small_world(), 1, batch=3), state(small_world(), 2, batch=3)
    values = loss(other, truth)
    assert values.shape == (3,)
    first = loss(replace(other, values=other.values[:1]), replace(truth, values=truth.values[:1]))
    torch.testing.assert_close(values[:1], first)


def test_gradients(loss, small_world):
    truth, other = state(small_world(), 1, batch=1), state(small_world(), 2, batch=1)

    def value(values):
        return loss(replace(other, values=values), truth).sum()

    values = other.values.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(values), values)
    generator = torch.Generator().manual_seed(3)
    for _ in range(4):
        direction = torch.randn(values.shape, generator=generator, dtype=torch.float64)
        difference = (value(values + 1e-6 * direction) - value(values - 1e-6 * direction)) / 2e-6
        torch.testing.assert_close((gradient * direction).sum(), difference.detach(), rtol=1e-5, atol=1e-8)


def test_single_precision_is_enough(loss, small_world):
    exact = loss(state(small_world(), 2), state(small_world(), 1))
    single = loss(state(small_world(), 2, dtype=torch.float32), state(small_world(), 1, dtype=torch.float32))
    torch.testing.assert_close(single.double(), exact, rtol=1e-4, atol=0)
