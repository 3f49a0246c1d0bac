"""Networks of google-deepmind/graphcast as torch modules: weights by their names in published files, and gradients.

Needs jax, dm-haiku, jraph, chex, dm-tree, trimesh, rtree, xarray and dinosaur-dycore, and checkouts of
google-deepmind/graphcast and google-deepmind/xarray_jax in the folder that EMUL_PEERS names.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from case import checkout


def modules() -> None:
    """Make their packages importable."""
    checkout("graphcast")
    checkout("xarray_jax")


def grid_coordinates(grid: tuple[int, int], east: float) -> types.SimpleNamespace:
    """Latitudes and longitudes of a case's grid, as their networks read them of a dataset. east: as of Case."""
    rows, columns = grid
    latitude = 90.0 - (np.arange(rows) + 0.5) * 180.0 / rows
    longitude = east + np.arange(columns) * 360.0 / columns
    return types.SimpleNamespace(lat=latitude.astype(np.float32), lon=longitude.astype(np.float32))


class JaxNetwork(nn.Module):
    """Run a haiku function of (point, batch, channel) to the same from (batch, channel, *grid)."""

    def __init__(self, function: Callable[[Any], Any], channels: int, points: int) -> None:
        super().__init__()
        import haiku
        import jax

        transformed, key = haiku.transform(function), jax.random.PRNGKey(0)
        example = np.zeros((points, 1, channels), np.float32)
        shapes = jax.eval_shape(transformed.init, key, example)
        for module, leaves in shapes.items():
            for leaf, value in leaves.items():
                parameter = nn.Parameter(torch.zeros(value.shape))
                self.register_parameter(f"params:{module}:{leaf}", parameter)

        def whole(params, x):
            return transformed.apply(params, key, x)  # some draw first weights that they do not use

        self.whole, self.run = whole, jax.jit(whole)

        def slopes(params, x, gradient):
            return jax.vjp(whole, params, x)[1](gradient)

        self.slopes = jax.jit(slopes)

    def state(self) -> dict[str, dict[str, np.ndarray]]:
        """Their tree of weights."""
        tree: dict[str, dict[str, np.ndarray]] = {}
        for name, value in self.named_parameters():
            _, module, leaf = name.split(":")
            tree.setdefault(module, {})[leaf] = value.detach().numpy()
        return tree

    def forward(self, fields: Tensor) -> Tensor:
        rows = fields.flatten(2).permute(2, 0, 1)
        out = _Run.apply(rows, self, *self.parameters())
        return out.permute(1, 2, 0).unflatten(-1, fields.shape[2:])


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor, net: JaxNetwork, *weights: Tensor) -> Tensor:
        ctx.net, ctx.rows = net, rows.detach().numpy()
        return torch.from_numpy(np.array(net.run(net.state(), ctx.rows)))

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        of_weights, of_rows = ctx.net.slopes(ctx.net.state(), ctx.rows, gradient.numpy())
        names = [name.split(":")[1:] for name, _ in ctx.net.named_parameters()]
        slopes = [torch.from_numpy(np.array(of_weights[module][leaf])) for module, leaf in names]
        return torch.from_numpy(np.array(of_rows)), None, *slopes
