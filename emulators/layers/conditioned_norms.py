"""Norms whose scale and shift follow from numbers that are told to the whole network, such as a noise level.

    y = (1 + s) norm(x) + b,     (s, b) = W c + d

with W near zero at the start, so that all norms begin as plain ones. As in GenCast, where c tells the noise level
(Price et al. 2025, doi 10.1038/s41586-024-08252-9), and FGN, where c is drawn (Alet et al. 2025, arXiv 2506.10772).

The norms that a network has may be moved alike, with c a vector or a field and W zero at the start: Chen et al. 2021,
arXiv 2103.00993. A norm on a coarser level sees the means of a field over its cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from emulators.interfaces import Network, optional
from emulators.layers.field_norms import InstanceNorm
from emulators.layers.noise_levels import LevelEmbedding

START = 1e-8  # deviation of the first weights
CHANNELS_FIRST = (nn.GroupNorm, nn.BatchNorm2d, nn.InstanceNorm2d)
NORMS = (nn.LayerNorm, nn.RMSNorm, *CHANNELS_FIRST, InstanceNorm)


class ConditionedNorm(nn.LayerNorm):
    """Normalise the channels of (batch, node, channel), then scale and shift them by what was told last.

    features: how many numbers are told. A batch of one is normalised once for all cases.
    """

    def __init__(self, channels: int, features: int) -> None:
        super().__init__(channels, elementwise_affine=False)
        self.linear = nn.Linear(features, 2 * channels)
        nn.init.trunc_normal_(self.linear.weight, std=START, a=-2.0 * START, b=2.0 * START)
        nn.init.zeros_(self.linear.bias)
        self.condition: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.condition is None:
            raise RuntimeError("A ConditionedNorm works after `tell`, which gives it its numbers.")
        normed = super().forward(x)
        scale, shift = self.linear(self.condition)[:, None].to(normed.dtype).chunk(2, -1)
        return torch.addcmul(normed + shift, normed, scale)


class AdaptiveNorm(nn.Module):
    """Normalise the channels of (batch, level, lat, lon, channel), then scale and shift them by W silu(c) + d.

    The condition c has `condition` channels and one value for each case or each token, (batch, level or 1, lat or 1,
    lon or 1, channel). There is no 1 beside the scale: a norm gives zero at first, and a block the identity, as in
    Aurora (Bodnar et al. 2025, doi 10.1038/s41586-025-09005-y).
    """

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(condition, 2 * channels)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.modulation(F.silu(condition)).chunk(2, -1)
        return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]), scale)


def recomputed(module: nn.Module, function: Callable[..., Any], *inputs: Any) -> Any:
    """Call a function of a module, whose activations are computed again for the gradient with what norms are told now.

    By then they may have been told what belongs to a later call.
    """
    norms = [norm for norm in module.modules() if isinstance(norm, ConditionedNorm)]
    conditions = [norm.condition for norm in norms]

    def run(*inputs: Any) -> Any:
        for norm, condition in zip(norms, conditions, strict=True):
            norm.condition = condition
        return function(*inputs)

    return checkpoint(run, *inputs, use_reentrant=False)


def tell(network: nn.Module, condition: Tensor) -> None:
    """Give all norms of a network the numbers of this call, (batch, feature)."""
    for module in network.modules():
        if isinstance(module, ConditionedNorm):
            module.condition = condition


def norm_shifts(
    network: nn.Module, features: int, names: Sequence[str] | None = None, scale: bool = True
) -> nn.ModuleList:
    """Let each norm of a network, but for those of queries and keys, be moved by `features` numbers; see NormShift.

    names: words in the names of the norms that are moved; None: all. Raises ValueError for a network without norms, or
    without these.
    """
    grid_first, shifts, norms = optional(network, Network, "grid_first"), nn.ModuleList(), norms_of(network)
    chosen = {path: norm for path, norm in norms.items() if names is None or any(name in path for name in names)}
    if not chosen:
        raise ValueError(
            f"noise.norms names none of the norms of {type(network).__name__}; these are {', '.join(norms)}."
        )
    for path, norm in chosen.items():
        shift = NormShift(path, features, norm_channels(norm), norm_layout(norm, grid_first), scale)
        norm.register_forward_hook(shift.changed)
        shifts.append(shift)
    return shifts


class NumberInNorms(nn.Module):
    """Let a number of each row, such as a time or the logarithm of a noise level, move the norms of a network.

    size: how many numbers the norms see of it.
    """

    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        self.embedding, self.shifts = LevelEmbedding(size), norm_shifts(network, size)

    def forward(self, number: Tensor) -> None:
        """Tell the norms, for the next call of the network, the number of each row, (row,)."""
        values = Pooled(self.embedding(number))
        for shift in self.shifts:
            shift.values = values  # type: ignore[assignment]


def norms_of(network: nn.Module) -> dict[str, nn.Module]:
    """Return the norms of a network by name, but for those of queries and keys. ValueError where there are none."""
    within = [path for path, module in network.named_modules() if type(module).__name__.endswith("Attention")]
    norms: dict[str, nn.Module] = {
        path: module
        for path, module in network.named_modules()
        if isinstance(module, NORMS) and not any(path.startswith(f"{outer}.") for outer in within)
    }
    if not norms:
        name = type(network).__name__
        raise ValueError(f"{name} has no norms through which noise could act; choose another, such as sfno or unet.")
    return norms


class Pooled:
    """Hold the noise of a call, (batch, channel) or (batch, channel, lat, lon), and its means on coarser levels."""

    def __init__(self, values: Tensor) -> None:
        self.levels = {tuple(values.shape[2:]): values}
        self.values = values

    def on(self, shape: tuple[int, int]) -> Tensor:
        """Return the noise on a level of `shape`, (batch, row, column, channel); of a vector (batch, 1, 1, channel)."""
        if self.values.ndim == 2:
            return self.values[:, None, None]
        if shape not in self.levels:
            self.levels[shape] = F.interpolate(self.values, size=shape, mode="area")
        return self.levels[shape].movedim(1, -1)


class NormShift(nn.Module):
    """Scale and shift the output of one norm by the noise at hand; nothing at first, and nothing without noise.

    scale: False: shift it alone, which costs a fraction where the noise has a value for each point.
    """

    def __init__(self, name: str, features: int, channels: int, layout: str, scale: bool = True) -> None:
        super().__init__()
        self.name, self.layout, self.scale = name, layout, scale
        self.linear = nn.Linear(features, (2 if scale else 1) * channels, bias=False)
        nn.init.zeros_(self.linear.weight)
        self.values: Pooled | None = None

    def changed(self, norm: nn.Module, inputs: Any, normed: Tensor) -> Tensor:
        """Return what stands in place of the norm's output, as a hook of the norm."""
        return self(normed)

    def forward(self, normed: Tensor) -> Tensor:
        if self.values is None:
            return normed
        batch = normed.shape[2 if self.layout == "grid_first" else 0]
        if batch not in (1, len(self.values.values)):  # one row is the same for all cases
            raise ValueError(
                f"{self.name} is given {batch} rows for a batch of {len(self.values.values)}; noise cannot act through "
                "it. Choose a network whose norms see whole fields, such as sfno, swin, vit or unet."
            )
        noise = self.values.on(self._shape(normed))
        if self.scale:
            change = self._placed(self.linear(noise), normed).to(normed.dtype)
            scale, shift = change.chunk(2, 1 if self.layout == "channels_first" else -1)
            return torch.addcmul(normed + shift, normed, scale)
        return self._shifted(normed, noise)

    def _shifted(self, normed: Tensor, noise: Tensor) -> Tensor:
        """Return the norm's output plus the map of (batch, row, column, channel), by one product where it may be."""
        placed, weight = self._placed(noise, normed), self.linear.weight
        is_one = self.layout != "channels_first" and placed.shape[:-1] == normed.shape[:-1]
        if not is_one or normed.dtype != weight.dtype or torch.is_autocast_enabled(normed.device.type):
            return normed + self._placed(self.linear(noise), normed).to(normed.dtype)
        flat, points = normed.flatten(0, -2), placed.flatten(0, -2)
        add = flat.addmm if torch.is_grad_enabled() else flat.addmm_
        return add(points, weight.t()).view(normed.shape)

    def _shape(self, normed: Tensor) -> tuple[int, int]:
        """Return rows and columns of the points that the norm is given."""
        if self.layout == "grid_first":
            return normed.shape[1], normed.shape[0]
        if self.layout == "channels_first":
            return normed.shape[2], normed.shape[3]
        if normed.ndim > 3:
            return normed.shape[-3], normed.shape[-2]
        assert self.values is not None
        return token_grid(normed.shape[1], next(iter(self.values.levels)))

    def _placed(self, change: Tensor, normed: Tensor) -> Tensor:
        """Return (batch, row, column, channel) in the layout of the norm, ready to broadcast."""
        if self.layout == "grid_first":
            return change.permute(2, 1, 0, 3)
        if self.layout == "channels_first":
            return change.movedim(-1, 1)
        if normed.ndim == 3:
            return change.flatten(1, 2)
        return change.reshape(len(change), *[1] * (normed.ndim - 4), *change.shape[1:])


def token_grid(tokens: int, grid: tuple[int, ...]) -> tuple[int, int]:
    """Return rows and columns of tokens that lie as the points of `grid` do, which tells their proportion."""
    if len(grid) != 2:
        return 1, tokens
    rows = [n for n in range(1, tokens + 1) if tokens % n == 0]
    best = min(rows, key=lambda n: abs(math.log(n * n / tokens * grid[1] / grid[0])))
    return best, tokens // best


def norm_channels(norm: nn.Module) -> int:
    if isinstance(norm, nn.LayerNorm | nn.RMSNorm):
        return norm.normalized_shape[-1]
    if isinstance(norm, nn.GroupNorm):
        return norm.num_channels
    return norm.channels if isinstance(norm, InstanceNorm) else norm.num_features  # type: ignore[return-value]


def norm_layout(norm: nn.Module, grid_first: bool) -> str:
    if isinstance(norm, CHANNELS_FIRST):
        return "channels_first"
    return "grid_first" if grid_first else "channels_last"
