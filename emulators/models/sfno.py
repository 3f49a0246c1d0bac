"""Spherical Fourier Neural Operator: convolutions on the sphere by harmonic transform, MLPs at the points.

    block `ace`              h = norm(x), (y, r) = filter(h):  y = r + MLP(norm(gelu(y + skip(r))))
    block `makani`           (y, r) = filter(x):               y = skip(r) + norm(MLP(gelu(norm(y))))
    block `torch_harmonics`  (y, r) = filter(x):               y = r + MLP(norm(y))

The filter transforms, multiplies coefficients by complex matrices of channels and transforms back; r is its input,
carried to the filter's output grid where the two differ. The ends of the network live on the data's grid, the inside on
a Gaussian one. Bonev et al. 2023, arXiv 2306.03838; `ace`: Watt-Meyer et al. 2023, arXiv 2310.02074, which feeds the
raw input to the decoder; the others add a linear map of the raw input to the decoder's output.

Conditioned on noise, labels or numbers, every norm is scaled and shifted by them, and the network is the stochastic one
of ACE: each draw of the noise is a member of an ensemble.

Published weights are those of ACE, of Makani and of the examples of torch-harmonics. Linear maps at every point are 1x1
convolutions there. The matrices of a degree are (in, out, degree, part) in ACE and Makani, complex (out, in, degree) in
torch-harmonics. ACE's decoder reads [inside, raw input] by one map, which is two here; scale and shift of its
conditioned norms are two maps there and one here, and include the 1 of 1 + scale.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.grid import LatLonGrid, gaussian_grid
from emulators.layers.field_norms import (
    NOISES,
    ConditionalNorm,
    ConditionSizes,
    ConditionValues,
    Noise,
    field_norm,
)
from emulators.layers.pointwise import PointwiseMLP
from emulators.layers.sample_draws import Generators
from emulators.layers.spectral_layers import SpectralFilter, coefficient_product, field_position
from emulators.sphere.transform import SphericalHarmonics, resolved_degrees
from emulators.world import World

ABOUT = {
    "states": "1",
    "step": "timestep",
    "grid": "global",
    "parity": "ACE, Makani, torch-harmonics",
}


class SFNO(nn.Module):
    """Map fields (batch, input channel, lat, lon) to (batch, output channel, lat, lon).

    block: order of norms and skips, `ace`, `makani` or `torch_harmonics`. embed: hidden channels. layers: number of
    blocks. mlp_ratio: hidden channels of the MLPs as a multiple of embed. scale_factor: ratio of the outer to the inner
    resolution. modes_fraction: share of the inner grid's degrees that is kept. quadrature: analysis on equally spaced
    rows by quadrature alone, as in the published networks, instead of exact. operator: how coefficients are multiplied,
    by one matrix for each degree (`degree`), for each coefficient (`diagonal`) or by an MLP of `spectral_layers` hidden
    layers (`mlp`). filter_bias: add a learned number for each channel after the filter. encoder_layers: number of
    hidden layers of encoder and decoder. position_embedding: `none`, `grid` (a parameter for each point and channel),
    `latitude` (for each row and channel) or `spectral` (for each harmonic and channel). norm: `instance`,
    `instance_area`, `layer`, `none`; affine_norms: give them a scale and a shift. big_skip: the decoder reads the raw
    input; normed_big_skip: after a norm. noise, labels, scalars: number of channels that the norms are conditioned on.
    noise_kind: `white`, `isotropic` or `degree`. Inside, activations are (lon, lat, batch, channel), so that every
    product is one GEMM without a copy.
    """

    conditioning = ("generator", "noise", "labels", "scalars")
    grid_first = True

    def __init__(
        self,
        world: World,
        *,
        block: str = "ace",
        embed: int = 64,
        layers: int = 4,
        mlp_ratio: float = 2.0,
        scale_factor: int = 1,
        modes_fraction: float = 1.0,
        quadrature: bool = False,
        operator: str = "degree",
        spectral_layers: int = 1,
        filter_bias: bool = False,
        encoder_layers: int = 1,
        position_embedding: str = "grid",
        norm: str = "instance",
        affine_norms: bool = True,
        big_skip: bool = True,
        normed_big_skip: bool = False,
        noise: int = 0,
        noise_kind: str = "white",
        labels: int = 0,
        scalars: int = 0,
    ) -> None:
        super().__init__()
        if block not in BLOCKS:
            raise ValueError(f"Expected block to be one of {', '.join(BLOCKS)}; got '{block}'.")
        _refuse_sizes(embed, layers, spectral_layers, encoder_layers, int(mlp_ratio * embed))
        self.conditions, self.noise_channels = ConditionSizes(noise, labels, scalars), noise
        _refuse_conditions(self.conditions, norm, scale_factor, noise_kind)
        outer, inner = _transforms(world.lat_lon, scale_factor, modes_fraction, block, quadrature)
        into, out = world.input_channels, world.output_channels

        def new_norm(channels: int, grid: LatLonGrid) -> nn.Module:
            bare = field_norm(norm, channels, grid, affine_norms)
            return ConditionalNorm(bare, channels, self.conditions) if self.conditions else bare

        def new_filter(source: SphericalHarmonics, goal: SphericalHarmonics) -> SpectralFilter:
            product = coefficient_product(operator, source, embed, int(mlp_ratio * embed), spectral_layers)
            return SpectralFilter(source, goal, product, embed, filter_bias)

        self.encoder = _encoder(into, embed, encoder_layers)
        self.position = field_position(position_embedding, outer, embed)
        ends = [outer] + [inner] * (layers - 1) + [outer]
        self.blocks = nn.ModuleList(
            BLOCKS[block](new_filter(ends[i], ends[i + 1]), new_norm, embed, int(mlp_ratio * embed))
            for i in range(layers)
        )
        self.into_decoder = block == "ace" and encoder_layers > 0
        self.decoder = nn.Linear(embed, embed) if encoder_layers else None
        self.hidden = nn.Sequential(*(layer for _ in range(encoder_layers - 1) for layer in _hidden(embed)))
        self.skip = nn.Linear(into, embed if self.into_decoder else out, bias=False) if big_skip else None
        self.skip_norm = new_norm(into, world.lat_lon) if big_skip and normed_big_skip else None
        self.head = nn.Linear(embed, out, bias=False)
        self.noise = Noise(noise_kind, outer, noise) if noise else None

    def forward(
        self,
        fields: Tensor,
        time: Tensor,
        *,
        generator: Generators = None,
        noise: Tensor | None = None,
        labels: Tensor | None = None,
        scalars: Tensor | None = None,
    ) -> Tensor:
        """Return the fields one step later. labels, scalars: (batch, channel).

        noise: (batch, channel, lat, lon), or None to draw it from `generator`, one for all cases or one for each.
        Without a generator, noise is drawn sample by sample in training and zero in evaluation, as dropout is.
        """
        raw = fields.permute(3, 2, 0, 1).contiguous()
        conditions = self._condition_values(raw, generator, noise, labels, scalars)
        x = self.position(self.encoder(raw))
        for block in self.blocks:
            x = block(x, conditions)
        skipped = self._skipped(raw, conditions)
        if self.decoder is not None:
            x = self.decoder(x)
            if skipped is not None and self.into_decoder:
                x.add_(skipped)
            x = self.hidden(F.gelu(x))
        x = self.head(x)
        if skipped is not None and not self.into_decoder:
            x.add_(skipped)
        return x.permute(2, 3, 1, 0).contiguous()

    def _condition_values(
        self, raw: Tensor, generator: Generators, noise: Tensor | None, labels: Tensor | None, scalars: Tensor | None
    ) -> ConditionValues | None:
        """Return the conditions of the norms, or None for an unconditioned network."""
        if not self.conditions:
            return None
        nlon, nlat, batch, _ = raw.shape
        if noise is not None:
            noise = noise.permute(3, 2, 0, 1)
        elif self.noise is not None and (self.training or generator is not None):
            noise = self.noise(batch, raw.device, generator)
        elif self.noise is not None:
            noise = raw.new_zeros(nlon, nlat, batch, self.conditions.noise)
        conditions = ConditionValues(noise, labels, scalars)
        conditions.check(self.conditions)
        return conditions

    def _skipped(self, raw: Tensor, conditions: ConditionValues | None) -> Tensor | None:
        """Return the big skip: a linear map of the raw input."""
        if self.skip is None:
            return None
        return self.skip(raw if self.skip_norm is None else _normed(self.skip_norm, raw, conditions))


class AceBlock(nn.Module):
    """Apply norm, filter with a learned inner skip, GELU, norm and MLP; the residual is the normed input."""

    def __init__(self, spectral: SpectralFilter, norm: Callable, channels: int, hidden: int) -> None:
        super().__init__()
        self.norm_in = norm(channels, spectral.source.grid)
        self.filter = spectral
        self.skip = nn.Linear(channels, channels)
        self.norm_out = norm(channels, spectral.goal.grid)
        self.mlp = PointwiseMLP(channels, hidden)

    def forward(self, x: Tensor, conditions: ConditionValues | None = None) -> Tensor:
        mixed, residual = self.filter(_normed(self.norm_in, x, conditions))
        mixed = F.gelu(self.skip(residual).add_(mixed))
        return self.mlp(_normed(self.norm_out, mixed, conditions), residual)


class MakaniBlock(nn.Module):
    """Apply filter, norm, GELU, MLP and norm; the residual is a learned linear map of the input."""

    def __init__(self, spectral: SpectralFilter, norm: Callable, channels: int, hidden: int) -> None:
        super().__init__()
        self.filter = spectral
        self.norm_in = norm(channels, spectral.goal.grid)
        self.mlp = PointwiseMLP(channels, hidden)
        self.norm_out = norm(channels, spectral.goal.grid)
        self.skip = nn.Linear(channels, channels, bias=False)

    def forward(self, x: Tensor, conditions: ConditionValues | None = None) -> Tensor:
        mixed, residual = self.filter(x)
        mixed = self.mlp(F.gelu(_normed(self.norm_in, mixed, conditions)))
        return _sum(_normed(self.norm_out, mixed, conditions), self.skip(residual))


class PlainBlock(nn.Module):
    """Apply filter, norm and an MLP without a last bias; the residual is the input."""

    def __init__(self, spectral: SpectralFilter, norm: Callable, channels: int, hidden: int) -> None:
        super().__init__()
        self.filter = spectral
        self.norm = norm(channels, spectral.goal.grid)
        self.mlp = PointwiseMLP(channels, hidden, bias=False)

    def forward(self, x: Tensor, conditions: ConditionValues | None = None) -> Tensor:
        mixed, residual = self.filter(x)
        return self.mlp(_normed(self.norm, mixed, conditions), residual)


BLOCKS = {"ace": AceBlock, "makani": MakaniBlock, "torch_harmonics": PlainBlock}


def _normed(norm: nn.Module, x: Tensor, conditions: ConditionValues | None) -> Tensor:
    return norm(x) if conditions is None else norm(x, conditions)


def _sum(residual: Tensor, update: Tensor) -> Tensor:
    """Return residual + update, written into the update if it is as precise."""
    return update.add_(residual) if update.dtype == residual.dtype else residual + update


def _hidden(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.Linear(channels, channels), nn.GELU()


def _encoder(into: int, channels: int, hidden: int) -> nn.Sequential:
    """Return `hidden` layers with GELU, then a linear one without a bias."""
    widths = [into] + [channels] * hidden
    layers = [layer for width in widths[:-1] for layer in (nn.Linear(width, channels), nn.GELU())]
    return nn.Sequential(*layers, nn.Linear(widths[-1], channels, bias=False))


def _refuse_sizes(embed: int, layers: int, spectral_layers: int, encoder_layers: int, hidden: int) -> None:
    """Raise ValueError if a number of channels or layers is too small."""
    least = {"embed": embed, "layers": layers, "spectral_layers": spectral_layers, "mlp_ratio x embed": hidden}
    too_small = [f"{name} {value}" for name, value in least.items() if value < 1]
    if too_small or encoder_layers < 0:
        raise ValueError(
            f"Expected {', '.join(least)} of at least 1, and encoder_layers of at least 0; "
            f"got {', '.join(too_small or [f'encoder_layers {encoder_layers}'])}."
        )


def _refuse_conditions(conditions: ConditionSizes, norm: str, scale_factor: int, noise_kind: str) -> None:
    """Raise ValueError if the norms cannot be conditioned as requested."""
    if noise_kind not in NOISES:
        raise ValueError(f"Expected noise_kind to be one of {', '.join(NOISES)}; got '{noise_kind}'.")
    if conditions and norm == "none":
        raise ValueError("Noise, labels and scalars act through the norms; got norm='none': take norm='layer'.")
    if conditions.noise and scale_factor != 1:
        raise ValueError(f"Noise needs an inner grid as fine as the outer one; got scale_factor {scale_factor}.")


def _transforms(
    grid: LatLonGrid, scale_factor: int, modes_fraction: float, block: str, quadrature: bool
) -> tuple[SphericalHarmonics, SphericalHarmonics]:
    """Return the transforms of the data's grid and of the Gaussian grid inside, of equal degrees and orders.

    torch-harmonics counts the rows of the inner grid from pole to pole, the others from the first row.
    """
    rows = grid.shape[0] + scale_factor - 1 if block == "torch_harmonics" else grid.shape[0]
    nlat, nlon = rows // max(scale_factor, 1), grid.shape[1] // max(scale_factor, 1)
    if scale_factor < 1 or min(nlat, nlon // 2) < 2 or not 0.0 < modes_fraction <= 1.0:
        raise ValueError(
            "Expected scale_factor to be at least 1 and to leave 2 rows and 4 columns, and modes_fraction in (0, 1]; "
            f"got {scale_factor} and {modes_fraction} on {grid!r}."
        )
    limit = nlat if block != "torch_harmonics" else min(nlat, nlon // 2)
    degrees = max(1, min(int(limit * modes_fraction), resolved_degrees(grid, quadrature)))
    orders = max(1, min(int(nlon // 2 * modes_fraction), degrees))
    outer = SphericalHarmonics(grid, degrees, orders, quadrature=quadrature)
    if scale_factor == 1 and grid.kind == "gaussian":
        return outer, outer
    return outer, SphericalHarmonics(gaussian_grid(nlat, nlon), degrees, orders)


PUBLISHED = (  # their names, and ours
    (r"pos_embed", "position.weight"),
    (r"(encoder|decoder)\.(?:fwd\.)?(\d+)\.(.*)", r"\1.\2.\3"),
    (r"residual_transform\.(.*)", r"skip.\1"),
    (r"norm_big_skip\.(.*)", r"skip_norm.\1"),
    (r"(blocks\.\d+\.)norm0\.(.*)", r"\1norm_in.\2"),
    (r"(blocks\.\d+\.)norm1\.(.*)", r"\1norm_out.\2"),
    (r"(blocks\.\d+\.)(?:inner|outer)_skip\.(.*)", r"\1skip.\2"),
    (r"(blocks\.\d+\.)(?:filter\.filter|global_conv)\.weight", r"\1filter.convolution.weight"),
    (r"(blocks\.\d+\.)filter\.filter\.bias", r"\1filter.bias"),
    (r"(blocks\.\d+\.)mlp\.fwd\.0\.(.*)", r"\1mlp.0.\2"),
    (r"(blocks\.\d+\.)mlp\.fwd\.[23]\.(.*)", r"\1mlp.2.\2"),
)


CONDITIONS = {"scalars": "", "labels": "_labels", "noise": "_2d"}


def adapted(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict of an SFNO from published weights that have been renamed."""
    ours = {name: _shaped(name, value) for name, value in theirs.items() if ".W_" not in name}
    for norm in {name.partition(".W_")[0] for name in theirs if ".W_" in name}:
        ours |= _conditioned(norm, theirs)
    return _decoder(ours)


def _shaped(name: str, value: Tensor) -> Tensor:
    if name == "position.weight":
        return value.permute(3, 2, 0, 1)
    if name.endswith("convolution.weight"):
        if value.is_complex():
            return torch.view_as_real(value).permute(2, 1, 3, 0)
        return value.reshape(value.shape[-4:]).permute(2, 0, 3, 1)  # without the axis of groups
    return value.flatten() if name.endswith("filter.bias") else _point(value)


def _point(value: Tensor) -> Tensor:
    """Return a 1x1 convolution as a matrix."""
    return value.flatten(1) if value.ndim == 4 else value


def _conditioned(norm: str, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the maps of a norm from numbers, labels and noise, each to scale and shift."""
    maps = {}
    for kind, suffix in CONDITIONS.items():
        for parameter in ("weight", "bias"):
            names = [f"{norm}.W_{which}{suffix}.{parameter}" for which in ("scale", "bias")]
            if names[0] in theirs:
                maps[f"{norm}.maps.{kind}.{parameter}"] = torch.cat([_point(theirs[name]) for name in names])
    bias = f"{norm}.maps.scalars.bias"
    if bias in maps:
        scale, shift = maps[bias].chunk(2)
        maps[bias] = torch.cat([scale - 1.0, shift])
    return maps


def _decoder(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the layers of the decoder by position: first, hidden, last; and the first one's share of the raw input."""
    numbers = sorted({int(match[1]) for name in weights if (match := re.match(r"decoder\.(\d+)\.", name))})
    last = numbers[-1] if numbers else None
    ours = {}
    for name, value in weights.items():
        match = re.fullmatch(r"decoder\.(\d+)\.(.*)", name)
        if match and int(match[1]) == last:
            name = f"head.{match[2]}"
        elif match:
            name = f"decoder.{match[2]}" if match[1] == "0" else f"hidden.{int(match[1]) - 2}.{match[2]}"
        ours[name] = value
    first = ours.get("decoder.weight")
    if first is not None and first.shape[1] > first.shape[0]:
        ours["decoder.weight"], ours["skip.weight"] = first.split([len(first), first.shape[1] - len(first)], dim=1)
    return ours
