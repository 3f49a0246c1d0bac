"""ClimODE, from a known state and the one before it to six hours later."""

from __future__ import annotations

import importlib
import types
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from case import Case, checkout, stub

GRID = (15, 30)
ITERATIONS, RIDGE = 12, 0.3


def euler(change: Callable[..., Tensor], start: Tensor, times: Tensor, **_: Any) -> Tensor:
    states = [start]
    for now, then in pairwise(times):
        states.append(states[-1] + (then - now) * change(now, states[-1]))
    return torch.stack(states)


def theirs() -> nn.Module:
    checkout("ClimODE")
    stub("torchdiffeq", odeint=euler)
    stub("utils")
    module = importlib.import_module("model_function")
    plain = {**vars(nn.functional), "normalize": lambda x: x}  # of the orography, which here is normalised already
    module.F = types.SimpleNamespace(**plain)
    net = module.Climate_encoder_free_uncertain(5, 2, 5, "euler", True, True, False)
    net.transport = [module.Optim_velocity(1, *GRID)]  # in a list: it is no part of the network
    return net


def velocity(transport: nn.Module, u: Tensor, change: Tensor) -> Tensor:
    """Conjugate gradients with what theirs says of the velocities, and its transpose by automatic differentiation."""

    def image(v: Tensor) -> Tensor:
        transport.v_x, transport.v_y = (nn.Parameter(part[None, None]) for part in v.split(5))
        return transport(u[None, None])[0][0, 0]

    def transposed(z: Tensor) -> Tensor:
        with torch.enable_grad():
            product = (image(torch.zeros(10, *GRID)) * z).sum()
            return torch.cat([g[0, 0] for g in torch.autograd.grad(product, [transport.v_x, transport.v_y])])

    z, residual, direction = torch.zeros_like(change), change, change
    for _ in range(ITERATIONS):
        product = image(transposed(direction)) + RIDGE * direction
        size = residual.square().sum((1, 2), keepdim=True)
        length = size / (direction * product).sum((1, 2), keepdim=True)
        z, residual = z + length * direction, residual - length * product
        direction = residual + residual.square().sum((1, 2), keepdim=True) / size * direction
    return transposed(z)


def run(net: nn.Module, x: Tensor) -> Tensor:
    """Case by case, as it has one set of static fields; at hours at which its two clocks agree."""
    latitude, longitude = (90.0 - 180.0 / GRID[0] * (np.arange(GRID[0]) + 0.5), np.arange(GRID[1]) * 360.0 / GRID[1])
    maps = [torch.tensor(m, dtype=torch.float32) for m in np.meshgrid(latitude, longitude, indexing="ij")]
    answers = []
    for before, u, fixed in zip(x[:, :5], x[:, 5:10], x[:, 10:], strict=True):
        with torch.no_grad():
            start = velocity(net.transport[0], u, (u - before) / 6.0)
        net.update_param([start[None], fixed.flip(0)[None], *maps])
        answers.append(net(torch.tensor([23.0, 24.0]), u[None, None])[0][1])
    return torch.cat(answers)


CASE = Case(
    "climode.ClimODE",
    {"as_published": True, "edges": "reflect", "iterations": ITERATIONS, "ridge": RIDGE},
    theirs,
    {"prognostic": 5, "forcing": 2},
    GRID,
    run,
    history=2,
)
