"""Local Spherical Neural Operator: an SFNO in which global convolutions alternate with local ones.

    x = encoder(fields)                        local, from the data's grid to a coarser Gaussian one
    x = x + MLP(norm(operator(x)))             for each layer: local, local, ..., every n-th global
    fields = decoder(upsampled(x))             local, on the data's grid

Local operators are discrete-continuous convolutions (`emulators.layers.disco`), which resolve what the truncation of
harmonics smooths; global ones multiply harmonic coefficients by a matrix for each degree. Filters reach as far as
(points across + 1) / 2 rows of the grid inside, sqrt(2) (levels + 1) rows for Zernike polynomials; those of the layers
twice, those of the encoder so many rows of the data. Liu-Schiaffini et al. 2024, arXiv 2402.16845; layers, order and
radii are those of the example `LocalSphericalNeuralOperator` of torch-harmonics 0.8.

Published weights are those of that example. Linear maps at every point are 1x1 convolutions there, weights of filters
(out, in, basis function), the matrices of a degree complex (out, in, degree).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from emulators.grid import LatLonGrid, gaussian_grid
from emulators.layers.disco import DiscoConvolution, Interpolation
from emulators.layers.field_norms import field_norm
from emulators.layers.pointwise import PointwiseMLP
from emulators.layers.spectral_layers import DegreeConvolution, SpectralFilter, field_position
from emulators.sphere.filter_bases import FilterBasis
from emulators.sphere.transform import SphericalHarmonics, degrees_and_orders
from emulators.world import World

ABOUT = {
    "states": "1",
    "step": "timestep",
    "grid": "global; columns a multiple of scale_factor",
    "parity": "torch-harmonics, 1e-5",
}
UPSAMPLINGS = ("linear", "spectral")


class LSNO(nn.Module):
    """Map fields (batch, input channel, lat, lon) to (batch, output channel, lat, lon).

    embed: hidden channels. layers: number of operators. global_every: of so many operators the last is global, the
    others local; 1: all are global. scale_factor: ratio of the data's resolution to that inside. basis:
    `piecewise_linear`, `morlet` or `zernike`. kernel, encoder_kernel: shape of the filters, of the layers and of
    encoder and decoder. basis_norm: `individual`, `mean`, `support` or `none`. mlp_ratio: hidden channels of the MLPs
    as a multiple of embed. norm: `instance`, `instance_area`, `layer` or `none`. modes_fraction: share of the inner
    grid's degrees that is kept. filter_bias: add a learned number for each channel after the operators. upsampling:
    `linear` in latitude and longitude, or `spectral`, by harmonics of fewer orders than half the columns.
    position_embedding: `none`, `grid`, `latitude` or `spectral`. Inside, activations are (lon, lat, batch, channel).
    Raises ValueError for options and grids that do not fit.
    """

    grid_first = True

    def __init__(
        self,
        world: World,
        *,
        embed: int = 32,
        layers: int = 4,
        global_every: int = 2,
        scale_factor: int = 1,
        basis: str = "piecewise_linear",
        kernel: Sequence[int] = (3, 4),
        encoder_kernel: Sequence[int] = (3, 4),
        basis_norm: str = "mean",
        mlp_ratio: float = 2.0,
        norm: str = "instance",
        modes_fraction: float = 1.0,
        filter_bias: bool = False,
        upsampling: str = "linear",
        position_embedding: str = "none",
    ) -> None:
        super().__init__()
        _refuse_sizes(embed, layers, global_every, int(mlp_ratio * embed), upsampling)
        outer = world.lat_lon
        inner = _inner_grid(outer, scale_factor)
        transform = _inner_transform(inner, modes_fraction)
        ends, within = (FilterBasis(basis, tuple(shape), basis_norm) for shape in (encoder_kernel, kernel))
        reach = _radius(ends, inner.shape[0])
        self.encoder = DiscoConvolution(world.input_channels, embed, outer, inner, ends, _radius(ends, outer.shape[0]))
        self.position = field_position(position_embedding, transform, embed)

        def new_operator(number: int) -> nn.Module:
            if number % global_every == global_every - 1:
                return GlobalConvolution(transform, embed, filter_bias)
            radius = 2.0 * _radius(within, inner.shape[0])
            return DiscoConvolution(embed, embed, inner, inner, within, radius, filter_bias)

        self.blocks = nn.ModuleList(
            OperatorBlock(new_operator(number), field_norm(norm, embed, inner), embed, int(mlp_ratio * embed))
            for number in range(layers)
        )
        self.upsample = _upsampling(upsampling, transform, outer)
        self.decoder = DiscoConvolution(embed, world.output_channels, outer, outer, ends, reach)

    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        """Return the fields one step later."""
        x = self.position(self.encoder(fields.permute(3, 2, 0, 1)))
        for block in self.blocks:
            x = block(x)
        return self.decoder(self.upsample(x)).permute(2, 3, 1, 0).contiguous()


class OperatorBlock(nn.Module):
    """Apply an operator, norm and an MLP without a last bias; the residual is the input."""

    def __init__(self, operator: nn.Module, norm: nn.Module, channels: int, hidden: int) -> None:
        super().__init__()
        self.operator, self.norm = operator, norm
        self.mlp = PointwiseMLP(channels, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.norm(self.operator(x)), x)


class GlobalConvolution(SpectralFilter):
    """Multiply the harmonic coefficients of fields (lon, lat, batch, channel) by a matrix for each degree."""

    def __init__(self, transform: SphericalHarmonics, channels: int, bias: bool) -> None:
        super().__init__(transform, transform, DegreeConvolution(transform.degrees, channels), channels, bias)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # without the residual
        return super().forward(x)[0]


class SpectralUpsampling(nn.Module):
    """Evaluate the harmonics of fields (lon, lat, batch, channel) at the points of a finer grid."""

    def __init__(self, source: SphericalHarmonics, goal: SphericalHarmonics) -> None:
        super().__init__()
        self.source, self.goal = source, goal

    def forward(self, x: Tensor) -> Tensor:
        return self.goal.synthesis(self.source.analysis(x.flatten(2))).unflatten(2, x.shape[2:])


def _upsampling(kind: str, transform: SphericalHarmonics, outer: LatLonGrid) -> nn.Module:
    inner = transform.grid
    if outer.shape == inner.shape and outer.kind == inner.kind:
        return nn.Identity()
    if kind == "linear":
        return Interpolation(inner, outer)
    degrees, orders = inner.shape[0], min(inner.shape[0], (inner.shape[1] + 1) // 2)
    source = SphericalHarmonics(inner, degrees, orders)
    return SpectralUpsampling(source, SphericalHarmonics(outer, degrees, orders, quadrature=True))


def _radius(basis: FilterBasis, rows: int) -> float:
    """Return the cutoff radius of filters on a grid of so many rows, radians."""
    return (basis.shape[0] + 1) * (math.sqrt(2.0) if basis.kind == "zernike" else 0.5) * math.pi / (rows - 1)


def _inner_grid(outer: LatLonGrid, scale_factor: int) -> LatLonGrid:
    """Return the Gaussian grid inside, of rows counted from pole to pole and every so many columns."""
    degrees_and_orders(outer)
    rows, columns = (outer.shape[0] - 1) // max(scale_factor, 1) + 1, outer.shape[1] // max(scale_factor, 1)
    if scale_factor < 1 or outer.shape[1] % scale_factor or min(rows, columns // 2) < 2:
        raise ValueError(
            "Expected scale_factor to be at least 1, to divide the columns and to leave 2 rows and 4 columns; got "
            f"{scale_factor} on {outer!r}."
        )
    return LatLonGrid(gaussian_grid(rows).latitude, outer.longitude[::scale_factor])


def _inner_transform(inner: LatLonGrid, modes_fraction: float) -> SphericalHarmonics:
    if not 0.0 < modes_fraction <= 1.0:
        raise ValueError(f"Expected modes_fraction in (0, 1]; got {modes_fraction}.")
    degrees = max(1, int(min(inner.shape[0], inner.shape[1] // 2) * modes_fraction))
    return SphericalHarmonics(inner, degrees, degrees)


def _refuse_sizes(embed: int, layers: int, global_every: int, hidden: int, upsampling: str) -> None:
    """Raise ValueError for a number that is too small and for an unknown upsampling."""
    least = {"embed": embed, "layers": layers, "global_every": global_every, "mlp_ratio x embed": hidden}
    too_small = [f"{name} {value}" for name, value in least.items() if value < 1]
    if too_small:
        raise ValueError(f"Expected {', '.join(least)} of at least 1; got {', '.join(too_small)}.")
    if upsampling not in UPSAMPLINGS:
        raise ValueError(f"Expected upsampling to be one of {', '.join(UPSAMPLINGS)}; got '{upsampling}'.")


PUBLISHED = (  # their names, and ours
    (r"(encoder|decoder)\.conv\.weight", r"\1.weight"),
    (r"pos_embed\.position_embeddings", "position.weight"),
    (r"(blocks\.\d+\.)local_conv\.(weight|bias)", r"\1operator.\2"),
    (r"(blocks\.\d+\.)global_conv\.weight", r"\1operator.convolution.weight"),
    (r"(blocks\.\d+\.)global_conv\.bias", r"\1operator.bias"),
    (r"(blocks\.\d+\.norm\.(?:weight|bias))", r"\1"),
    (r"(blocks\.\d+\.)mlp\.fwd\.(0|2)\.(weight|bias)", r"\1mlp.\2.\3"),
)


def adapted(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict of an LSNO from published weights that have been renamed."""
    return {name: _shaped(name, value) for name, value in theirs.items()}


def _shaped(name: str, value: Tensor) -> Tensor:
    if name == "position.weight":
        return value.permute(3, 2, 0, 1)
    if name.endswith("convolution.weight"):
        return torch.view_as_real(value).permute(2, 1, 3, 0)
    if value.ndim == 3:  # of filters
        return value.permute(2, 1, 0)
    return value.flatten() if name.endswith("operator.bias") else _point(value)


def _point(value: Tensor) -> Tensor:
    """Return a 1x1 convolution as a matrix."""
    return value.flatten(1) if value.ndim == 4 else value
