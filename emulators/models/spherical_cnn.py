"""Spherical CNN: scalars and winds convolved with filters on the sphere, so that forecasts turn as their input turns.

    [a s t]_lm  ->  [a s t]_lm W_l                         convolution: one real matrix a degree, for all orders
    y = collapse(x V + norm(collapse(norm(x W)) W'))       residual block; V is one matrix for all degrees
    collapse(f, w) = (f A + |f| B + |w| C + b, w)          at every point: scalars learn of the speed, winds stay

a are the harmonic coefficients of a scalar, s and t those of a wind (u, v), of its spheroidal and toroidal part. In
terms of spin-weighted harmonics a wind is a function of spin 1, and its conjugate of spin -1:

    v - i u = sum over l, m of (s + i t)_lm 1Y_lm,    1Y_lm = (dY_lm/dphi - i / cos dY_lm/dlambda) / sqrt(l (l + 1))

Rotations of the sphere turn the orders of each degree alike for a, s and t, so that the matrices commute with them:
they are all linear maps between real fields of spin 0 and 1 that do. The collapse of phases commutes with them at every
point. Levels of a U are coarser by truncation, which commutes too; what is lost is what moduli alias on the grid.
The latitude, which the planet's rotation needs, is read as one more scalar; it leaves rotations about the axis.

Convolutions and spins: Esteves et al. 2020, arXiv 2006.10731; collapse, norm of spectra, pooling by truncation and
residual blocks: Esteves et al. 2023, arXiv 2306.05420, whose network for weather has no public code: sizes and levels
are ours. There scalars are complex, norms are those of a batch, and grids are square.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.grid import LatLonGrid, gaussian_grid
from emulators.sphere.calculus import SphericalCalculus
from emulators.sphere.transform import degrees_and_orders
from emulators.variables import VariableSet, wind_pairs
from emulators.world import World

ABOUT = {
    "states": "1",
    "step": "timestep",
    "grid": "global, halved per level",
    "parity": "none; no code was published",
}
WHOLE = math.sqrt(4.0 * math.pi)  # coefficient of the field that is one everywhere


class SphericalCNN(nn.Module):
    """Map fields (batch, input channel, lat, lon) to (batch, output channel, lat, lon).

    channels: number of scalars, and of winds, on each level, finest first; each level has half the degrees of the last.
    blocks: residual blocks on a level, on the way down and on the way up. filter_points: values that each filter learns
    over degrees, with straight lines between; None, and on levels of fewer degrees: one for each degree. latitude: read
    the sine of latitude.
    Winds are read and written as pairs of components on the same levels; a component alone is a scalar. Both components
    of a pair are read in one unit, and written in units of their changes, as step.output=residual has them.
    Raises ValueError for options and grids that do not fit.
    """

    south_north: Tensor

    def __init__(
        self,
        world: World,
        *,
        channels: Sequence[int] = (32, 64),
        blocks: int = 1,
        filter_points: int | None = None,
        latitude: bool = True,
    ) -> None:
        super().__init__()
        widths, degrees = list(channels), degrees_and_orders(world.lat_lon)[0]
        _refuse_sizes(widths, blocks, filter_points, degrees)
        self.read = Spins(world, [*[world.prognostic] * world.history, world.forcing, world.static])
        self.written = Spins(world, [world.predicted], changes=True)
        rows = [degrees >> level for level in range(len(widths))]
        grids = [world.lat_lon, *(gaussian_grid(count, 2 * count) for count in rows[1:])]
        self.transforms: Any = nn.ModuleList(SpinTransform(*each) for each in zip(grids, rows, strict=True))
        into = self.read.scalars + latitude + 2 * self.read.winds

        def stage(level: int, into: int) -> nn.ModuleList:
            sizes = [into, *[3 * widths[level]] * (blocks - 1)]
            return nn.ModuleList(Block(self.transforms[level], size, widths[level], filter_points) for size in sizes)

        before = [into, *(3 * width for width in widths[:-1])]
        self.down = nn.ModuleList(stage(level, size) for level, size in enumerate(before))
        rising = range(len(widths) - 2, -1, -1)
        self.up = nn.ModuleList(stage(level, 3 * (widths[level + 1] + widths[level])) for level in rising)
        out = self.written.scalars + 2 * self.written.winds
        self.head = SpinConvolution(rows[0], 3 * widths[0], out, filter_points)
        sine = np.sin(np.deg2rad(world.lat_lon.latitude))[None, :, None, None].repeat(int(latitude), axis=3)
        self.register_buffer("south_north", torch.tensor(sine, dtype=torch.float32), persistent=False)

    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        """Return the fields one step later."""
        scalars, u, v = self.read.parted(fields.permute(3, 2, 0, 1))
        up = self.south_north.expand(*scalars.shape[:3], -1).to(scalars.dtype)
        x = self.transforms[0].analysis(torch.cat([scalars, up], -1), u, v)
        finer: list[Tensor] = []
        for stage, transform in zip(self.down, self.transforms, strict=True):
            x = _through(stage, transform.resized(x))
            finer.append(x)
        x = finer.pop()
        for stage in self.up:
            skip = finer.pop()
            x = _through(stage, torch.cat([self.transforms[len(finer)].resized(x), skip], -1))
        written = self.transforms[0].synthesis(self.head(x), self.written.scalars)
        return self.written.joined(*written).permute(2, 3, 1, 0).contiguous()


class SpinTransform(nn.Module):
    """Transform scalars and winds (lon, lat, batch, channel) to coefficients (2 orders, degrees, batch, channel).

    The channels of coefficients are those of scalars, then spheroidal, then toroidal ones of winds; rows are those of
    `SphericalHarmonics`. Exact for fields of fewer than `degrees` degrees.
    """

    def __init__(self, grid: LatLonGrid, degrees: int) -> None:
        super().__init__()
        self.calculus = SphericalCalculus(grid, degrees, degrees, radius=1.0)
        self.degrees = degrees

    def analysis(self, scalars: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Return the coefficients of scalars and of winds (u, v)."""
        of_scalars = self.calculus.analysis(scalars.flatten(2)).unflatten(2, scalars.shape[2:])
        if not u.shape[-1]:
            return of_scalars
        parts = self.calculus.vector_analysis(u.flatten(2), v.flatten(2))
        return torch.cat([of_scalars, *(part.unflatten(2, u.shape[2:]) for part in parts)], -1)

    def synthesis(self, coefficients: Tensor, scalars: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the fields of coefficients, of which the first `scalars` channels are those of scalars."""
        winds = (coefficients.shape[-1] - scalars) // 2
        of_scalars, *parts = coefficients.split([scalars, winds, winds], -1)
        fields = self.calculus.synthesis(of_scalars.flatten(2)).unflatten(2, of_scalars.shape[2:])
        if not winds:
            none = fields[..., :0]
            return fields, none, none
        u, v = self.calculus.vector_synthesis(*(part.flatten(2) for part in parts))
        return fields, u.unflatten(2, parts[0].shape[2:]), v.unflatten(2, parts[0].shape[2:])

    def resized(self, coefficients: Tensor) -> Tensor:
        """Return coefficients of any number of degrees with as many as here, cut off or filled with zeros."""
        more = self.degrees - coefficients.shape[1]
        if more > 0:
            return F.pad(coefficients, (0, 0, 0, 0, 0, more, 0, 2 * more))
        return coefficients[: 2 * self.degrees, : self.degrees]


class SpinConvolution(nn.Module):
    """Multiply the coefficients of each degree (2 orders, degrees, batch, channel) by a real matrix of channels.

    points: number of matrices that are learned, between which those of the degrees are interpolated; None, and where
    there are fewer degrees: all.
    """

    between: Tensor

    def __init__(self, degrees: int, into: int, out: int, points: int | None = None) -> None:
        super().__init__()
        count = degrees if points is None else min(points, degrees)
        self.weight = nn.Parameter(torch.randn(count, into, out) / math.sqrt(into))
        self.weight.matrix_axes = (1, 2)  # type: ignore[attr-defined]  # for optimisers of matrices
        if points is None:
            self.weight.degree_axes = (0,)  # type: ignore[attr-defined]  # for transfer to another grid
        place = np.linspace(0.0, count - 1.0, degrees)[:, None]
        hats = np.maximum(1.0 - np.abs(place - np.arange(count)), 0.0)
        self.register_buffer("between", torch.tensor(hats, dtype=torch.float32), persistent=False)
        self.each = count == degrees

    def forward(self, coefficients: Tensor) -> Tensor:
        matrices = self.weight
        if not self.each:
            matrices = (self.between @ self.weight.flatten(1)).unflatten(1, self.weight.shape[1:])
        rows = coefficients.movedim(1, 0)
        return torch.bmm(rows.flatten(1, 2), matrices).unflatten(1, rows.shape[1:3]).movedim(0, 1)


class SpectralNorm(nn.Module):
    """Bring scalars and winds to variance 1 over the sphere by their coefficients, then scale them and shift scalars.

    The mean of each scalar is taken off. Both parts of a wind have one scale. scale: with which it starts.
    """

    shares: Tensor
    mean: Tensor

    def __init__(self, degrees: int, channels: int, scale: float = 1.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((2, channels), scale))  # of scalars and winds
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps
        shares, mean = torch.full((2 * degrees, degrees, 1, 1), 2.0), torch.zeros(2 * degrees, degrees, 1, 1)
        shares[:2], shares[:, 0] = 1.0, 0.0  # orders occur as m and -m; the mean is no variance
        mean[0, 0] = WHOLE
        self.register_buffer("shares", shares / WHOLE**2, persistent=False)
        self.register_buffer("mean", mean, persistent=False)

    def forward(self, coefficients: Tensor) -> Tensor:
        rows = coefficients.to(torch.promote_types(coefficients.dtype, torch.float32))
        scalars, spheroidal, toroidal = (rows.square() * self.shares).sum((0, 1)).chunk(3, -1)
        size = torch.stack([scalars, spheroidal + toroidal], -2).add(self.eps).rsqrt() * self.scale
        rows = rows * (self.shares[2:3] > 0)  # all but the mean
        return rows * size[:, [0, 1, 1]].flatten(1) + self.mean * F.pad(self.bias, (0, 2 * len(self.bias)))


class PhaseCollapse(nn.Module):
    """Mix scalars with their moduli and the speeds of winds at every point; winds stay as they are."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mixed = nn.Linear(3 * channels, channels)

    def forward(self, scalars: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        speed = torch.sqrt(u.square() + v.square() + 1e-12)
        return self.mixed(torch.cat([scalars, scalars.abs(), speed], -1)), u, v


class Block(nn.Module):
    """Convolve twice, each time with norm and collapse; the residual, a linear map of the input, is added in harmonics.

    into: channels of the coefficients that it reads. channels: of scalars, and of winds, that it gives.
    """

    def __init__(self, transform: SpinTransform, into: int, channels: int, points: int | None) -> None:
        super().__init__()
        self.transform, self.channels = transform, channels
        degrees, out = transform.degrees, 3 * channels
        self.first, self.second = (SpinConvolution(degrees, size, out, points) for size in (into, out))
        self.skip = SpinConvolution(degrees, into, out, 1)
        self.norm_first, self.norm_second = SpectralNorm(degrees, channels), SpectralNorm(degrees, channels, 0.0)
        self.collapse_first, self.collapse_second = PhaseCollapse(channels), PhaseCollapse(channels)

    def forward(self, x: Tensor) -> Tensor:
        h = self._collapsed(self.collapse_first, self.norm_first(self.first(x)))
        return self._collapsed(self.collapse_second, self.norm_second(self.second(h)) + self.skip(x))

    def _collapsed(self, collapse: nn.Module, coefficients: Tensor) -> Tensor:
        return self.transform.analysis(*collapse(*self.transform.synthesis(coefficients, self.channels)))


class Spins(nn.Module):
    """Bring channels (..., channel) apart into scalars and the two components of winds, and back.

    Components are brought from standard deviations to one unit for both, with their means. changes: channels are those
    that a Step adds, in standard deviations of changes, diagnostic ones apart. scalars, winds: number of each.
    """

    order: Tensor
    back: Tensor
    gain: Tensor
    shift: Tensor

    def __init__(self, world: World, sets: Sequence[VariableSet], changes: bool = False) -> None:
        super().__init__()
        pairs = [pair for start, group in _starts(sets) for pair in _pairs(group, start)]
        order = np.array(pairs, dtype=int).reshape(-1, 2).T.ravel()
        channels = [channel for group in sets for channel in group.channels]
        scalars = [number for number in range(len(channels)) if number not in set(order.tolist())]
        self.scalars, self.winds = len(scalars), len(pairs)
        gain, shift = np.ones(len(channels)), np.zeros(len(channels))
        for pair in pairs:
            names = [channels[number] for number in pair]
            if any(name not in world.scales for name in names):
                continue
            scales = [world.scales[name] for name in names]
            added = changes and all(name in world.prognostic.channels for name in names)
            spread = np.array([scale.tendency_std if added else scale.std for scale in scales])
            unit = math.sqrt(np.square(spread).mean()) or 1.0
            gain[list(pair)] = spread / unit
            shift[list(pair)] = [0.0 if changes else scale.mean / unit for scale in scales]
        order = np.concatenate([np.array(scalars, dtype=int), order])
        tables = {"gain": gain[order].astype(np.float32), "shift": shift[order].astype(np.float32)}
        for name, table in {"order": order, "back": np.argsort(order), **tables}.items():
            self.register_buffer(name, torch.as_tensor(table), persistent=False)

    def parted(self, fields: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return scalars and the components u and v of winds."""
        x = torch.addcmul(self.shift, fields.index_select(-1, self.order), self.gain)
        scalars, u, v = x.split([self.scalars, self.winds, self.winds], -1)
        return scalars, u, v

    def joined(self, scalars: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Return the channels of scalars and of the components u and v of winds."""
        return ((torch.cat([scalars, u, v], -1) - self.shift) / self.gain).index_select(-1, self.back)


def _starts(sets: Sequence[VariableSet]) -> list[tuple[int, VariableSet]]:
    """Return the number of the first channel of each set, with the set."""
    starts = np.cumsum([0, *(group.size for group in sets)])
    return list(zip(starts.tolist(), sets, strict=False))


def _pairs(group: VariableSet, start: int) -> list[tuple[int, int]]:
    """Return the numbers of the channels of both components of each wind, level by level."""
    slices = [(group.slice(u), group.slice(v)) for u, v in wind_pairs(group)]
    return [(start + u.start + k, start + v.start + k) for u, v in slices for k in range(u.stop - u.start)]


def _through(blocks: Any, x: Tensor) -> Tensor:
    for block in blocks:
        x = block(x)
    return x


def _refuse_sizes(widths: Sequence[int], blocks: int, points: int | None, degrees: int) -> None:
    """Raise ValueError for a number that is too small, and for levels that the grid does not resolve."""
    if not widths or min(*widths, blocks) < 1 or (points is not None and points < 1):
        raise ValueError(
            "Expected channels of at least one level, and channels, blocks and filter_points of at least 1; got "
            f"channels={list(widths)}, blocks={blocks} and filter_points={points}."
        )
    coarsest = degrees >> (len(widths) - 1)
    if coarsest < 2:
        raise ValueError(
            f"Expected a coarsest level of at least 2 degrees; {len(widths)} levels leave {coarsest} of the grid's "
            f"{degrees}. Give fewer levels of channels."
        )
