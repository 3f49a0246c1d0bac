"""Noise that makes a network stochastic: what is drawn, and how it moves the network's norms or its input.

    norms    y = (1 + s) norm(x) + b,     (s, b) = W embedding(noise),     W = 0 at the start
    input    x = fields + W embedding(noise),                              W = 0 at the start

so that members of an ensemble begin alike and training draws them apart. The noise is drawn afresh for each case,
member and step:

    vector        one for the whole globe, as in FGN (Alet et al. 2025, arXiv 2506.10772)
    point         independent at all points, as in AIFS-CRPS (Lang et al. 2024, arXiv 2412.15832)
    degree        fields with equal power in every degree (GenCast: Price et al. 2025, doi 10.1038/s41586-024-08252-9)
    coefficient   fields with equal variance in every coefficient (ACE: Watt-Meyer et al. 2023, arXiv 2310.02074)
    length        fields that are correlated over lengths, one after another (FourCastNet 3: Bonev et al. 2025, arXiv
                  2507.12144, whose noise is an input too, and has a memory in time)

    dropout       channels of what each norm returns, left out at random, as in U-Cast (arXiv 2604.09041)

Noise in the input costs next to nothing and needs no norms; a network whose first layer is linear sees it as further
channels of its input. Conditional norms: `emulators.layers.conditioned_norms`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from emulators.interfaces import Network, optional
from emulators.layers.conditioned_norms import Pooled, norm_channels, norm_layout, norm_shifts, norms_of
from emulators.layers.field_norms import Noise
from emulators.layers.message_passing import Graph
from emulators.layers.sample_draws import Generators, normal
from emulators.sphere.transform import SphericalHarmonics
from emulators.world import World

Part = TypeVar("Part", bound=nn.Module)
EMBEDDINGS = ("none", "linear", "mlp")
SPECTRA = {"point": None, "degree": "degree", "coefficient": "isotropic", "length": "length"}
NAME, FIELDS_NAME = "noise_in_norms", "noise_in_fields"  # of the part that `condition` adds to a network


class VectorNoise(nn.Module):
    """Draw one vector a case, (batch, channel), which is the same at all points.

    channels: numbers drawn. embedding: what the norms see of them, `none`, `linear` or `mlp` (with one hidden layer).
    """

    factor: float = 1.0  # of what is drawn

    def __init__(self, world: World, *, channels: int = 32, embedding: str = "linear", hidden: int = 32) -> None:
        super().__init__()
        self.channels = _at_least_one(channels)
        self.embedding, self.features = _embedding(embedding, channels, hidden)

    def forward(self, batch: int, device: torch.device, generator: Generators = None) -> Tensor:
        """Draw noise for `batch` cases and embed it. generator: as in `emulators.layers.sample_draws.normal`."""
        return self.embedding(self.factor * torch.stack(normal(batch, (self.channels,), device, generator)))


class FieldNoise(nn.Module):
    """Draw fields of noise, (batch, channel, *grid), of variance 1.

    spectrum: `point`, `degree`, `coefficient` or `length`. channels, embedding: as of VectorNoise, at every point.
    lengths: km over which fields are correlated, taken in turn by the channels, of spectrum=length. enters: `norms` or
    `input`. norms: words in the names of the norms that it moves; None: all. scale: False: norms are shifted alone.
    """

    factor: float = 1.0  # of points that are drawn one by one

    def __init__(
        self,
        world: World,
        *,
        spectrum: str,
        channels: int = 4,
        embedding: str = "none",
        hidden: int = 32,
        lengths: Sequence[float] = (),
        enters: str = "norms",
        norms: Sequence[str] | None = None,
        scale: bool = True,
    ) -> None:
        super().__init__()
        for name, value, known in (("spectrum", spectrum, SPECTRA), ("enters", enters, ("norms", "input"))):
            if value not in known:
                raise ValueError(f"Expected noise.{name} to be one of {', '.join(known)}; got '{value}'.")
        if bool(lengths) != (spectrum == "length"):
            raise ValueError(f"noise.lengths are those of spectrum=length; got {list(lengths)} and '{spectrum}'.")
        if enters == "input" and norms is not None:
            raise ValueError(f"noise.norms goes with enters=norms; got {list(norms)} and enters=input: leave it.")
        self.channels, self.shape, kind = _at_least_one(channels), world.grid.shape, SPECTRA[spectrum]
        if kind and (world.lat_lon.kind == "limited_area" or world.lat_lon.shape[0] < 2):
            raise ValueError(f"Noise by {spectrum} needs a global grid; got {world.lat_lon!r}: take noise=point.")
        self.noise = Noise(kind, SphericalHarmonics(world.lat_lon), channels, lengths) if kind else None
        self.embedding, self.features = _embedding(embedding, channels, hidden)
        self.enters, self.norms, self.scale, self.inputs = enters, norms, scale, world.input_channels

    def forward(self, batch: int, device: torch.device, generator: Generators = None) -> Tensor:
        """Draw noise for `batch` cases and embed it. generator: as in `emulators.layers.sample_draws.normal`."""
        if self.noise is None:
            points = self.factor * torch.stack(normal(batch, (*self.shape, self.channels), device, generator))
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


def asked(network: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Tensor, Generators, bool, dict[str, Any]]:
    """Return the fields, the generator and whether to draw noise in a call of a network, and its other keywords.

    Without a generator noise is drawn sample by sample in training, and there is none in evaluation, as with dropout.
    """
    rest = {name: value for name, value in kwargs.items() if name != "generator"}
    generator = kwargs.get("generator")
    return args[0] if args else kwargs["fields"], generator, network.training or generator is not None, rest


class NoiseInNorms(nn.Module):
    """Draw noise at each call of a network, and let it scale and shift what the network's norms return."""

    def __init__(self, noise: VectorNoise | FieldNoise, network: nn.Module) -> None:
        super().__init__()
        options = (noise.norms, noise.scale) if isinstance(noise, FieldNoise) else ()
        self.noise, self.maps = noise, norm_shifts(network, noise.features, *options)

    def drawn(self, network: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Draw the noise before a call of the network, from the `generator` that it is given."""
        fields, generator, is_noisy, rest = asked(network, args, kwargs)
        values = Pooled(self.noise(len(fields), fields.device, generator)) if is_noisy else None
        for shift in self.maps:
            shift.values = values  # type: ignore[assignment]
        return args, rest


class NoiseInFields(nn.Module):
    """Draw noise at each call of a network, and add a linear map of it, zero at first, to the fields that it reads.

    channels: of these fields.
    """

    def __init__(self, noise: FieldNoise, channels: int) -> None:
        super().__init__()
        self.noise, self.linear = noise, nn.Linear(noise.features, channels, bias=False)
        nn.init.zeros_(self.linear.weight)

    def drawn(self, network: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Draw the noise before a call of the network, from the `generator` that it is given."""
        fields, generator, is_noisy, rest = asked(network, args, kwargs)
        if not is_noisy:
            return args, rest
        noise = self.noise(len(fields), fields.device, generator)
        change = torch.matmul(self.linear.weight, noise.flatten(2)).view(fields.shape)
        moved = fields + change.to(fields.dtype)
        return ((moved, *args[1:]), rest) if args else (args, {**rest, "fields": moved})


class NoiseAsInput(nn.Module):
    """Draw noise at each call of a network that takes `noise_vector` itself, where NoiseInNorms would draw it."""

    def __init__(self, noise: VectorNoise) -> None:
        super().__init__()
        self.noise = noise

    def drawn(self, network: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Draw the noise before a call of the network, from the `generator` that it is given."""
        fields, generator, is_noisy, rest = asked(network, args, kwargs)
        if is_noisy:
            rest["noise_vector"] = self.noise(len(fields), fields.device, generator)
        return args, rest


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
            factor = NormFactor(path, norm_channels(norm), norm_layout(norm, grid_first))
            norm.register_forward_hook(factor.changed)
            self.maps.append(factor)

    def drawn(self, network: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Draw before a call of the network, from the `generator` that it is given."""
        fields, generator, is_noisy, rest = asked(network, args, kwargs)
        factors: list[NormFactor] = list(self.maps)  # type: ignore[arg-type]
        values: Any = [None] * len(factors)
        sizes = [factor.channels for factor in factors]
        if is_noisy:
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


def scale_noise(network: nn.Module, factors: float | Sequence[Sequence[float]]) -> None:
    """Multiply the noise that `network` draws, which calibrates the spread of members and their small scales.

    factors: one number, or pairs (degree, factor), between which factors are linear and beyond which they are constant;
    1 leaves any network as it is. Raises ValueError for others, for a network whose noise has no size, and by degree
    for noise without degrees.
    """
    if factors == 1.0:
        return
    pairs = [[0.0, factors]] if isinstance(factors, int | float) else [list(pair) for pair in factors]
    degrees = [pair[0] for pair in pairs]
    if not pairs or any(len(pair) != 2 or pair[1] < 0 for pair in pairs) or degrees != sorted({*degrees}):
        raise ValueError(
            f"noise_factor: expected a number of 0 or more, or pairs [degree, factor] of increasing degree, such as "
            f"[[9, 1.4], [15, 0.7]]; got {factors}."
        )
    parts = [
        part
        for part in network.modules()
        if isinstance(part, VectorNoise | Noise) or (isinstance(part, FieldNoise) and part.noise is None)
    ]
    if not parts:
        raise ValueError(
            f"noise_factor: {type(network).__name__} draws no noise whose size can be changed, as that of noise=degree "
            "can; leave it at 1."
        )
    for part in parts:
        if isinstance(part, Noise) and part.deviation is not None:
            table = np.interp(np.arange(part.deviation.shape[1]), degrees, [pair[1] for pair in pairs])
            part.deviation = part.deviation * torch.as_tensor(table).to(part.deviation)[:, None, None]
        elif len(pairs) > 1:
            raise ValueError("noise_factor: noise that is not drawn by degree takes one factor for all; got pairs.")
        else:
            part.factor = float(pairs[0][1])


def with_scaled_noise(step: Part, factors: float | Sequence[Sequence[float]]) -> Part:
    """Return a copy of a Step that shares its weights, the noise of its network scaled; itself where factors are 1."""
    if factors == 1.0:
        return step
    shared = {id(tensor): tensor for tensor in (*step.parameters(), *step.buffers())}
    scaled = copy.deepcopy(step, shared)  # type: ignore[arg-type]
    scale_noise(scaled.network, factors)  # type: ignore[arg-type]
    return scaled


def condition(network: nn.Module, noise: VectorNoise | FieldNoise | DropoutNoise) -> nn.Module:
    """Make `network` stochastic by letting `noise` move its input, or its norms but for those of queries and keys.

    A network that takes a `noise_vector` is given what is drawn. The network, which is returned, then takes a
    `generator`, and weights published without the noise still fill it. Raises ValueError for a network with noise of
    its own; and where noise moves norms, for a network without any, with a mesh for fields of noise, or with norms that
    are computed again for the gradient.
    """
    if optional(network, Network, "noise_channels"):
        raise ValueError(f"{type(network).__name__} draws noise of its own; set model.noise=0, or leave noise out.")
    module: NoiseAsInput | NoiseInFields | DropoutInNorms | NoiseInNorms
    if isinstance(noise, FieldNoise) and noise.enters == "input":
        name, module = FIELDS_NAME, NoiseInFields(noise, noise.inputs)
    elif isinstance(noise, VectorNoise) and "noise_vector" in optional(network, Network, "conditioning"):
        name, module = NAME, NoiseAsInput(noise)
    else:
        name, module = NAME, _in_norms(network, noise)
    network.add_module(name, module)
    network.register_forward_pre_hook(module.drawn, with_kwargs=True)
    conditioning = {*optional(network, Network, "conditioning"), "generator"}
    network.conditioning, network.noise_channels = tuple(sorted(conditioning)), noise.channels  # type: ignore[assignment]
    network.additions = (*optional(network, Network, "additions"), name)  # type: ignore[assignment]
    return network


def _in_norms(network: nn.Module, noise: VectorNoise | FieldNoise | DropoutNoise) -> DropoutInNorms | NoiseInNorms:
    meshes, name = [part for part in network.modules() if isinstance(part, Graph)], type(network).__name__
    if isinstance(noise, FieldNoise) and meshes:
        raise ValueError(
            f"{name} has norms on a mesh, at whose nodes no field of noise is drawn; take noise=vector, or "
            "noise.enters=input."
        )
    if any(mesh.portions for mesh in meshes):
        raise ValueError(f"{name} would compute norms again with the noise of a later step; take model.chunks=1.")
    return DropoutInNorms(noise, network) if isinstance(noise, DropoutNoise) else NoiseInNorms(noise, network)
