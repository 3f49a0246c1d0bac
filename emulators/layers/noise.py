"""Noise that makes a network stochastic: what is drawn, and how it moves the network's norms.

    y = (1 + s) norm(x) + b,     (s, b) = W embedding(noise),     W = 0 at the start

so that members of an ensemble begin alike and training draws them apart. The noise is drawn afresh for each case,
member and step:

    vector        one for the whole globe, as in FGN (Alet et al. 2025, arXiv 2506.10772)
    point         independent at all points, as in AIFS-CRPS (Lang et al. 2024, arXiv 2412.15832)
    degree        fields with equal power in every degree (GenCast: Price et al. 2025, doi 10.1038/s41586-024-08252-9)
    coefficient   fields with equal variance in every coefficient (ACE: Watt-Meyer et al. 2023, arXiv 2310.02074)

    dropout       channels of what each norm returns, left out at random, as in U-Cast (arXiv 2604.09041)

A norm on a coarser level sees the means of the fields over its cells. Conditional norms: Chen et al. 2021, arXiv
2103.00993.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.interfaces import Network, optional
from emulators.layers.field_norms import InstanceNorm, Noise
from emulators.layers.message_passing import Graph
from emulators.layers.noise_levels import LevelEmbedding
from emulators.layers.sample_draws import Generators, normal
from emulators.sphere.transform import SphericalHarmonics
from emulators.world import World

EMBEDDINGS = ("none", "linear", "mlp")
CHANNELS_FIRST = (nn.GroupNorm, nn.BatchNorm2d, nn.InstanceNorm2d)
NORMS = (nn.LayerNorm, nn.RMSNorm, *CHANNELS_FIRST, InstanceNorm)
NAME = "noise_in_norms"  # of the part that `condition` adds to a network


class VectorNoise(nn.Module):
    """Draw one vector a case, (batch, channel), which is the same at all points.

    channels: numbers drawn. embedding: what the norms see of them, `none`, `linear` or `mlp` (with one hidden layer).
    """

    def __init__(self, world: World, *, channels: int = 32, embedding: str = "linear", hidden: int = 32) -> None:
        super().__init__()
        self.channels = _at_least_one(channels)
        self.embedding, self.features = _embedding(embedding, channels, hidden)

    def forward(self, batch: int, device: torch.device, generator: Generators = None) -> Tensor:
        """Draw noise for `batch` cases and embed it. generator: as in `emulators.layers.sample_draws.normal`."""
        return self.embedding(torch.stack(normal(batch, (self.channels,), device, generator)))


class FieldNoise(nn.Module):
    """Draw fields of noise, (batch, channel, *grid), of variance 1.

    spectrum: `point`, `degree` or `coefficient`. channels, embedding: as of VectorNoise, at every point.
    """

    def __init__(
        self, world: World, *, spectrum: str, channels: int = 4, embedding: str = "none", hidden: int = 32
    ) -> None:
        super().__init__()
        kinds = {"point": None, "degree": "degree", "coefficient": "isotropic"}
        if spectrum not in kinds:
            raise ValueError(f"Expected noise.spectrum to be one of {', '.join(kinds)}; got '{spectrum}'.")
        self.channels, self.shape, kind = _at_least_one(channels), world.grid.shape, kinds[spectrum]
        if kind and (world.lat_lon.kind == "limited_area" or world.lat_lon.shape[0] < 2):
            raise ValueError(f"Noise by {spectrum} needs a global grid; got {world.lat_lon!r}: take noise=point.")
        self.noise = Noise(kind, SphericalHarmonics(world.lat_lon), channels) if kind else None
        self.embedding, self.features = _embedding(embedding, channels, hidden)

    def forward(self, batch: int, device: torch.device, generator: Generators = None) -> Tensor:
        """Draw noise for `batch` cases and embed it. generator: as in `emulators.layers.sample_draws.normal`."""
        if self.noise is None:
            points = torch.stack(normal(batch, (*self.shape, self.channels), device, generator))
        else:
            points = self.noise(batch, device, generator).permute(2, 1, 0, 3)
        return self.embedding(points).movedim(-1, 1)


def _at_least_one(channels: int) -> int:
    if channels < 1:
        raise ValueError(f"Expected noise.channels of at least 1; got {channels}. Leave noise out for none.")
    return channels


def _embedding(kind: str, channels: int, hidden: int) -> tuple[nn.Module, int]:
    """Return the map from noise to what the norms see, over the last axis, and the number of its channels."""
    if kind not in EMBEDDINGS:
        raise ValueError(f"Expected noise.embedding to be one of {', '.join(EMBEDDINGS)}; got '{kind}'.")
    if kind == "none":
        return nn.Identity(), channels
    if kind == "linear":
        return nn.Linear(channels, channels, bias=False), channels
    return nn.Sequential(nn.Linear(channels, hidden), nn.SiLU(), nn.Linear(hidden, hidden)), hidden


class NoiseInNorms(nn.Module):
    """Draw noise at each call of a network, and let it scale and shift what the network's norms return.

    Without a generator the noise is drawn sample by sample in training, and there is none in evaluation, as with
    dropout.
    """

    def __init__(self, noise: VectorNoise | FieldNoise, network: nn.Module) -> None:
        super().__init__()
        self.noise, self.maps = noise, norm_shifts(network, noise.features)

    def drawn(self, network: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Draw the noise before a call of the network, from the `generator` that it is given."""
        fields = args[0] if args else kwargs["fields"]
        rest = {name: value for name, value in kwargs.items() if name != "generator"}
        generator = kwargs.get("generator")
        values = None
        if network.training or generator is not None:
            values = Pooled(self.noise(len(fields), fields.device, generator))
        for shift in self.maps:
            shift.values = values  # type: ignore[assignment]
        return args, rest


class NoiseAsInput(nn.Module):
    """Draw noise at each call of a network that takes `noise_vector` itself, where NoiseInNorms would draw it."""

    def __init__(self, noise: VectorNoise) -> None:
        super().__init__()
        self.noise = noise

    def drawn(self, network: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Draw the noise before a call of the network, from the `generator` that it is given."""
        fields = args[0] if args else kwargs["fields"]
        rest = {name: value for name, value in kwargs.items() if name != "generator"}
        generator = kwargs.get("generator")
        if network.training or generator is not None:
            rest["noise_vector"] = self.noise(len(fields), fields.device, generator)
        return args, rest


def norm_shifts(network: nn.Module, features: int) -> nn.ModuleList:
    """Let each norm of a network, but for those of queries and keys, be moved by `features` numbers; see NormShift.

    Raises ValueError for a network without norms.
    """
    grid_first, shifts = optional(network, Network, "grid_first"), nn.ModuleList()
    for path, norm in norms_of(network).items():
        shift = NormShift(path, features, _channels(norm), _layout(norm, grid_first))
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


class DropoutNoise(nn.Module):
    """Leave out a share of the channels of what each norm returns, drawn afresh for each case, member and step.

    rate: the share; the other channels are scaled to compensate. Monte Carlo dropout: Gal & Ghahramani 2016, arXiv
    1506.02142; of whole channels: Tompson et al. 2015, arXiv 1411.4280.
    """

    channels = 1

    def __init__(self, world: World, *, rate: float = 0.1) -> None:
        super().__init__()
        if not 0.0 < rate < 1.0:
            raise ValueError(f"Expected noise.rate between 0 and 1; got {rate}.")
        self.rate, self.threshold = rate, NormalDist().inv_cdf(rate)

    def forward(self, batch: int, device: torch.device, generator: Generators, channels: int) -> Tensor:
        """Draw factors (batch, channel), 0 or 1 / (1 - rate). generator: as in `layers.sample_draws.normal`."""
        mask = torch.stack(normal(batch, (channels,), device, generator)) >= self.threshold
        return mask / (1.0 - self.rate)


class DropoutInNorms(nn.Module):
    """Draw at each call of a network which channels of its norms are left out.

    Without a generator they are drawn sample by sample in training, and none is left out in evaluation.
    """

    def __init__(self, noise: DropoutNoise, network: nn.Module) -> None:
        super().__init__()
        grid_first = optional(network, Network, "grid_first")
        self.noise, self.maps = noise, nn.ModuleList()
        for path, norm in norms_of(network).items():
            factor = NormFactor(path, _channels(norm), _layout(norm, grid_first))
            norm.register_forward_hook(factor.changed)
            self.maps.append(factor)

    def drawn(self, network: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Draw before a call of the network, from the `generator` that it is given."""
        fields = args[0] if args else kwargs["fields"]
        rest = {name: value for name, value in kwargs.items() if name != "generator"}
        factors: list[NormFactor] = list(self.maps)  # type: ignore[arg-type]
        values: Any = [None] * len(factors)
        generator, sizes = kwargs.get("generator"), [factor.channels for factor in factors]
        if network.training or generator is not None:
            values = self.noise(len(fields), fields.device, generator, sum(sizes)).split(sizes, 1)
        for factor, value in zip(factors, values, strict=True):
            factor.values = value
        return args, rest


class NormFactor(nn.Module):
    """Multiply the channels of one norm's output by the factors at hand, (batch, channel); by nothing without any."""

    def __init__(self, name: str, channels: int, layout: str) -> None:
        super().__init__()
        self.name, self.channels, self.layout = name, channels, layout
        self.values: Tensor | None = None

    def changed(self, norm: nn.Module, inputs: Any, normed: Tensor) -> Tensor:
        """Return what stands in place of the norm's output, as a hook of the norm."""
        if self.values is None:
            return normed
        batch = normed.shape[2 if self.layout == "grid_first" else 0]
        if batch not in (1, len(self.values)):  # one row is the same for all cases
            raise ValueError(
                f"{self.name} is given {batch} rows for a batch of {len(self.values)}; noise cannot act through it. "
                "Choose a network whose norms see whole fields, such as sfno, swin, vit or unet."
            )
        values, others = self.values.to(normed.dtype), [1] * (normed.ndim - 2)
        if self.layout == "grid_first":
            return normed * values
        cases = len(self.values)
        shape = (cases, -1, *others) if self.layout == "channels_first" else (cases, *others, self.channels)
        return normed * values.reshape(shape)


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
    """Scale and shift the output of one norm by the noise at hand; nothing at first, and nothing without noise."""

    def __init__(self, name: str, features: int, channels: int, layout: str) -> None:
        super().__init__()
        self.name, self.layout = name, layout
        self.linear = nn.Linear(features, 2 * channels, bias=False)
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
        change = self._placed(self.linear(self.values.on(self._shape(normed))), normed).to(normed.dtype)
        scale, shift = change.chunk(2, 1 if self.layout == "channels_first" else -1)
        return torch.addcmul(normed + shift, normed, scale)

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


def _channels(norm: nn.Module) -> int:
    if isinstance(norm, nn.LayerNorm | nn.RMSNorm):
        return norm.normalized_shape[-1]
    if isinstance(norm, nn.GroupNorm):
        return norm.num_channels
    return norm.channels if isinstance(norm, InstanceNorm) else norm.num_features  # type: ignore[return-value]


def _layout(norm: nn.Module, grid_first: bool) -> str:
    if isinstance(norm, CHANNELS_FIRST):
        return "channels_first"
    return "grid_first" if grid_first else "channels_last"


def condition(network: nn.Module, noise: VectorNoise | FieldNoise | DropoutNoise) -> nn.Module:
    """Make `network` stochastic by letting `noise` move its norms, but for those of queries and keys; return it.

    A network that takes a `noise_vector` is given what is drawn. The network then takes a `generator`, and weights
    published without the noise still fill it. Raises ValueError for a network without norms, with noise of its own,
    with a mesh for fields of noise, or with norms that are computed again for the gradient.
    """
    name = type(network).__name__
    if optional(network, Network, "noise_channels"):
        raise ValueError(f"{name} draws noise of its own; set model.noise=0, or leave noise out.")
    if isinstance(noise, FieldNoise) and any(isinstance(module, Graph) for module in network.modules()):
        raise ValueError(f"{name} has norms on a mesh, at whose nodes no field of noise is drawn; take noise=vector.")
    module: NoiseAsInput | DropoutInNorms | NoiseInNorms
    if isinstance(noise, VectorNoise) and "noise_vector" in optional(network, Network, "conditioning"):
        module = NoiseAsInput(noise)
    else:
        if any(isinstance(part, Graph) and part.portions for part in network.modules()):
            raise ValueError(f"{name} would compute norms again with the noise of a later step; take model.chunks=1.")
        module = DropoutInNorms(noise, network) if isinstance(noise, DropoutNoise) else NoiseInNorms(noise, network)
    network.add_module(NAME, module)
    network.register_forward_pre_hook(module.drawn, with_kwargs=True)
    conditioning = {*optional(network, Network, "conditioning"), "generator"}
    network.conditioning, network.noise_channels = tuple(sorted(conditioning)), noise.channels  # type: ignore[assignment]
    network.additions = (*optional(network, Network, "additions"), NAME)  # type: ignore[assignment]
    return network
