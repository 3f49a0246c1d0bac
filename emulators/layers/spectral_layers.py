"""Layers on harmonic coefficients: convolution by degree, a matrix or an MLP for each coefficient, learned positions,
truncation.

    degree     b_lm = a_lm W_l       one matrix for all orders of a degree
    diagonal   b_lm = a_lm W_lm      one matrix for each coefficient; commutes with rotations about the axis only
    mlp        b_lm = V phi(... phi(a_lm U_1) ...),    phi(z) = z / |z| ReLU(|z| + bias)

a and b are complex rows over channels, l >= m; U, V and W are complex matrices of channels. By the convolution theorem
`degree` is a convolution with filters that are zonal as far as W is real, and that part commutes with every rotation;
the imaginary part of W, i sign(m), commutes with rotations about the planet's axis (Driscoll & Healy 1994, doi
10.1006/aama.1994.1008). phi keeps the phase (Arjovsky et al. 2016, arXiv 1511.06464), so that the MLP commutes with
rotations about the axis too. After the operators `dhconv`, `diagonal` and `non-linear` of Bonev et al. 2023, arXiv
2306.03838.

Truncation keeps l <= L, of winds by vorticity and divergence. Data of a spectral model end at its truncation L. A
network works on grid points and writes finer scales as well, which no datum ever shows it and which grow from step to
step. The projection is linear, and on Gaussian grids it keeps area means.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from emulators.layers.pointwise import precision
from emulators.sphere.calculus import SphericalCalculus
from emulators.sphere.transform import SphericalHarmonics, resolved_degrees
from emulators.variables import VariableSet, wind_pairs
from emulators.world import World


def real_matrix(weight: Tensor) -> Tensor:
    """Return complex matrices (..., in, out, 2) as real ones for rows [Re a, Im a]: (..., 2 in, 2 out)."""
    real, imaginary = weight.unbind(-1)
    return torch.cat([torch.cat([real, imaginary], -1), torch.cat([-imaginary, real], -1)], -2)


class DiagonalConvolution(nn.Module):
    """Multiply each coefficient by its own matrix: (2 * orders, degrees, batch, channel) to the same shape.

    Entries at l < m become 0.
    """

    order: Tensor
    degree: Tensor

    def __init__(self, degrees: int, orders: int, channels: int) -> None:
        super().__init__()
        pairs = [(m, l) for m in range(orders) for l in range(m, degrees)]
        order, degree = torch.tensor(pairs).T
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("degree", degree, persistent=False)
        initial = torch.randn(len(pairs), channels, channels, 2) * math.sqrt(0.5 / channels)
        self.weight = nn.Parameter(initial)  # (coefficient, in, out, real and imaginary part), by order, then degree
        self.weight.matrix_axes = (1, 2)  # type: ignore[attr-defined]  # for optimisers of matrices
        self.weight.map_axes = (1, 3), (2,)  # type: ignore[attr-defined]  # for rates by width

    def forward(self, coefficients: Tensor) -> Tensor:
        pairs = coefficients.unflatten(0, (-1, 2)).transpose(1, 2)  # (order, degree, part, batch, channel)
        rows = pairs[self.order, self.degree].transpose(1, 2)
        mixed = torch.bmm(rows.flatten(2), real_matrix(self.weight)).unflatten(2, (2, -1)).transpose(1, 2)
        out = torch.zeros_like(pairs, dtype=mixed.dtype).index_put((self.order, self.degree), mixed)
        return out.transpose(1, 2).flatten(0, 1)


class SpectralMLP(nn.Module):
    """Apply one complex MLP to each coefficient: (2 * orders, degrees, batch, channel) to the same shape."""

    def __init__(self, channels: int, hidden: int, layers: int) -> None:
        super().__init__()
        widths = [channels, *[hidden] * layers, channels]
        self.weights = nn.ParameterList(
            torch.randn(into, out, 2) * math.sqrt(0.5 / into) for into, out in pairwise(widths)
        )
        for weight in self.weights:
            weight.map_axes = (0, 2), (1,)  # for rates by width
        self.biases = nn.ParameterList(torch.zeros(hidden) for _ in range(layers))

    def forward(self, coefficients: Tensor) -> Tensor:
        rows = coefficients.unflatten(0, (-1, 2)).movedim(1, -2).flatten(-2)
        for number, weight in enumerate(self.weights):
            rows = rows @ real_matrix(weight)
            if number < len(self.biases):
                rows = _modulus_relu(rows, self.biases[number])
        return rows.unflatten(-1, (2, -1)).movedim(-2, 1).flatten(0, 1)


def _modulus_relu(rows: Tensor, bias: Tensor, eps: float = 1e-12) -> Tensor:
    """Return z / |z| ReLU(|z| + bias) on rows [Re z, Im z]; 0 at z = 0."""
    components = rows.unflatten(-1, (2, -1))
    size = torch.sqrt(components.square().sum(-2, keepdim=True) + eps)
    return (components * (torch.relu(size + bias) / size)).flatten(-2)


BLOCKS = 16  # of degrees, each with the orders it has: all but 6 % of the products with l < m are saved


class DegreeConvolution(nn.Module):
    """Multiply the coefficients of each degree by a matrix: (2 * orders, degrees, batch, channel) to the same shape.

    The layout is that of `SphericalHarmonics`. Entries at l < m have no meaning before and after.
    """

    def __init__(self, degrees: int, channels: int) -> None:
        super().__init__()
        initial = torch.randn(degrees, channels, 2, channels).mul_(math.sqrt(0.5 / channels))
        self.weight = nn.Parameter(initial)  # (degree, in, real and imaginary part, out)
        self.weight.matrix_axes = (1, 3)  # type: ignore[attr-defined]  # for optimisers of matrices
        self.weight.map_axes = (1, 2), (3,)  # type: ignore[attr-defined]  # for rates by width
        self.weight.degree_axes = (0,)  # type: ignore[attr-defined]  # for transfer to another grid

    def forward(self, coefficients: Tensor) -> Tensor:
        return _ProductByDegree.apply(coefficients, self.weight)


class _ProductByDegree(torch.autograd.Function):
    """Compute the product and its transposes in real numbers; [z] is Re z beside Im z, as W is stored:

        [b] = Re a [W] + i (Im a [W]),   Re da = [g] [W]^T,   Im da = [-i g] [W]^T,   [dW] = Re a^T [g] + Im a^T [-i g]

    No tensor of the weights' size, the largest of a network, is ever rearranged. Written out because the blocks are
    parts of one tensor, which recorded operations would copy once for each.
    """

    @staticmethod
    def forward(ctx, coefficients: Tensor, weight: Tensor) -> Tensor:
        dtype = precision(coefficients)
        matrices = weight.to(dtype).flatten(2)
        mixed = torch.empty_like(coefficients)
        blocks = []
        for bounds in _blocks(coefficients):
            block = _block(coefficients, *bounds)
            rows = block.new_empty(block.shape, dtype=dtype).copy_(block)
            product = torch.bmm(rows.flatten(1, 3), matrices[bounds[1] : bounds[2]])
            real, imaginary = product.view(*rows.shape[:-1], 2, -1).unbind(2)
            real[..., 0, :].sub_(imaginary[..., 1, :])
            real[..., 1, :].add_(imaginary[..., 0, :])
            mixed[2 * bounds[0] :, bounds[1] : bounds[2]] = 0
            _block(mixed, *bounds).copy_(real.movedim(-2, 2))
            blocks.append(rows)
        ctx.save_for_backward(matrices, *blocks)
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        matrices, *blocks = ctx.saved_tensors
        coefficients = torch.empty_like(gradient)
        weights = torch.empty_like(matrices, dtype=gradient.dtype)
        for bounds, rows in zip(_blocks(gradient), blocks, strict=True):
            degrees = slice(bounds[1], bounds[2])
            coefficients[2 * bounds[0] :, degrees] = 0
            turned = rows.new_empty(*rows.shape[:-1], 2, rows.shape[-1])  # (degree, order, [g] or [-i g], batch, ...)
            plain, by_i = turned.unbind(2)
            plain.copy_(_block(gradient, *bounds).transpose(2, 3))
            by_i[..., 0, :], by_i[..., 1, :] = plain[..., 1, :], -plain[..., 0, :]
            incoming = turned.view(*rows.shape[:1], -1, matrices.shape[2])
            _block(coefficients, *bounds).copy_(torch.bmm(incoming, matrices[degrees].mT).view_as(rows))
            if weights.dtype == rows.dtype:
                torch.bmm(rows.flatten(1, 3).mT, incoming, out=weights[degrees])
            else:
                weights[degrees] = torch.bmm(rows.flatten(1, 3).mT, incoming)
        return coefficients, weights.unflatten(2, (2, -1))


def _blocks(coefficients: Tensor) -> list[tuple[int, int, int]]:
    """Return (orders, first degree, last degree + 1) of each block: the orders below the block's last degree."""
    rows, degrees = coefficients.shape[:2]
    cuts = sorted({round(k * degrees / BLOCKS) for k in range(BLOCKS + 1)})
    return [(min(end, rows // 2), start, end) for start, end in pairwise(cuts)]


def _block(coefficients: Tensor, orders: int, start: int, end: int) -> Tensor:
    """Return a block as a view (degree, order, part, batch, channel)."""
    return coefficients[: 2 * orders, start:end].unflatten(0, (orders, 2)).movedim(2, 0)


class GridPosition(nn.Module):
    """Add a learned number for each point and channel, or for each row and channel if nlon is 1."""

    def __init__(self, nlat: int, nlon: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(nlon, nlat, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight


class SpectralPosition(nn.Module):
    """Add a learned band-limited field for each channel, given by its harmonic coefficients."""

    def __init__(self, transform: SphericalHarmonics, channels: int) -> None:
        super().__init__()
        self.transform = transform
        self.weight = nn.Parameter(0.02 * torch.randn(2 * transform.orders, transform.degrees, channels))
        self.weight.degree_axes, self.weight.beyond = (0, 1), "zero"  # type: ignore[attr-defined]  # for other grids

    def forward(self, x: Tensor) -> Tensor:
        return x + self.transform.synthesis(self.weight).unsqueeze(2)


def coefficient_product(kind: str, transform: SphericalHarmonics, channels: int, hidden: int, layers: int) -> nn.Module:
    """Return the layer that multiplies coefficients: kind `degree`, `diagonal` or `mlp`, this with hidden sizes."""
    if kind == "degree":
        return DegreeConvolution(transform.degrees, channels)
    if kind == "diagonal":
        return DiagonalConvolution(transform.degrees, transform.orders, channels)
    if kind == "mlp":
        return SpectralMLP(channels, hidden, layers)
    raise ValueError(f"Expected operator to be 'degree', 'diagonal' or 'mlp'; got '{kind}'.")


def field_position(kind: str, transform: SphericalHarmonics, channels: int) -> nn.Module:
    """Return the layer that adds learned positions: kind `none`, `grid`, `latitude` or `spectral`."""
    nlat, nlon = transform.grid.shape
    if kind == "none":
        return nn.Identity()
    if kind == "grid":
        return GridPosition(nlat, nlon, channels)
    if kind == "latitude":
        return GridPosition(nlat, 1, channels)
    if kind == "spectral":
        return SpectralPosition(transform, channels)
    raise ValueError(f"Expected position_embedding to be 'none', 'grid', 'latitude' or 'spectral'; got '{kind}'.")


class SpectralFilter(nn.Module):
    """Multiply coefficients on the way from one grid to another; return the result and the input there.

    product: the layer that multiplies, such as `coefficient_product` returns. bias: add a number for each channel.
    """

    def __init__(
        self, source: SphericalHarmonics, goal: SphericalHarmonics, product: nn.Module, channels: int, bias: bool
    ) -> None:
        super().__init__()
        self.source, self.goal = source, goal
        self.convolution = product
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        batch, channels = x.shape[2:]
        coefficients = self.source.analysis(x.flatten(2)).unflatten(2, (batch, channels))
        residual = x
        if self.source is not self.goal:
            residual = self.goal.synthesis(coefficients.flatten(2)).unflatten(2, (batch, channels))
        coefficients = self.convolution(coefficients)  # under the old name: large ones are not kept any longer
        mixed = self.goal.synthesis(coefficients.flatten(2)).unflatten(2, (batch, channels))
        return mixed if self.bias is None else mixed + self.bias, residual


class Truncation(nn.Module):
    """Project fields on spherical harmonics up to the largest total wavenumber of each variable.

    limits: by variable of `world.predicted`; variables without one, and those whose limit the grid does not exceed, are
    left as they are. A component of the wind is projected together with the other one, or not at all. Raises ValueError
    on grids without spherical harmonics.
    """

    mean: Tensor

    def __init__(self, world: World, limits: Mapping[str, int]) -> None:
        super().__init__()
        self.limits = {n: l for n, l in limits.items() if l + 1 < resolved_degrees(world.lat_lon)} if limits else {}
        mean = torch.from_numpy(world.scale(world.predicted, "mean"))[:, None, None] if self.limits else torch.zeros(0)
        self.register_buffer("mean", mean, persistent=False)
        self.transforms = nn.ModuleDict()
        self.parts: list[tuple[str, bool]] = []  # transform, and whether of winds
        for limit, winds, channels in _channels(world.predicted, self.limits):
            kind = SphericalCalculus if winds else SphericalHarmonics
            name = f"{'winds' if winds else 'scalars'}_{limit}"
            self.transforms[name] = kind(world.lat_lon, limit + 1)
            self.register_buffer(f"channels_{name}", torch.tensor(channels), persistent=False)
            self.parts.append((name, winds))

    def forward(self, values: Tensor) -> Tensor:
        """Fields (batch, predicted channel, lat, lon) without what lies beyond the limits."""
        with torch.autocast(values.device.type, enabled=False):
            for name, winds in self.parts:
                channels, transform = self.get_buffer(f"channels_{name}"), self.transforms[name]
                rows = values.index_select(1, channels)
                truncated = _winds(transform, rows) if winds else _scalars(transform, rows - self.mean[channels])
                truncated = truncated if winds else truncated + self.mean[channels]
                values = values.index_copy(1, channels, truncated.to(values.dtype))
        return values


def _channels(variables: VariableSet, limits: Mapping[str, int]) -> Iterator[tuple[int, bool, list[int]]]:
    """Limit, whether of winds, and channels: of winds all eastward ones, then all northward ones."""
    pairs = wind_pairs(variables)
    components = {name for name in variables.names if "component_of_wind" in name}
    for limit in sorted(set(limits.values())):
        scalars = [n for n, l in limits.items() if l == limit and n not in components]
        if rows := [c for name in scalars for c in _rows(variables, name)]:
            yield limit, False, rows
        both = [pair for pair in pairs if all(limits.get(name) == limit for name in pair)]
        if both:
            yield limit, True, [c for side in (0, 1) for pair in both for c in _rows(variables, pair[side])]


def _rows(variables: VariableSet, name: str) -> range:
    return range(*variables.slice(name).indices(variables.size))


def _scalars(harmonics: Any, fields: Tensor) -> Tensor:
    """(batch, channel, lat, lon) -> the same, truncated."""
    return _rowwise(harmonics.synthesis(harmonics.analysis(_columns(fields))), fields)


def _winds(calculus: Any, fields: Tensor) -> Tensor:
    """(batch, eastward then northward components, lat, lon) -> the same, truncated."""
    u, v = fields.chunk(2, dim=1)
    truncated = calculus.winds(*calculus.vorticity_divergence(_columns(u), _columns(v)))
    return torch.cat([_rowwise(component, u) for component in truncated], dim=1)


def _columns(fields: Tensor) -> Tensor:
    """(batch, channel, lat, lon) -> (lon, lat, batch x channel)."""
    return fields.flatten(0, 1).permute(2, 1, 0)


def _rowwise(columns: Tensor, like: Tensor) -> Tensor:
    return columns.permute(2, 1, 0).reshape(like.shape)
