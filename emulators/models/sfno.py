"""Spherical Fourier Neural Operator: convolutions on the sphere by harmonic transform, MLPs at the points.

    block `ace`      h = norm(x), (y, r) = filter(h):  y = r + MLP(norm(gelu(y + skip(r))))
    block `makani`   (y, r) = filter(x):               y = skip(r) + norm(MLP(gelu(norm(y))))

The filter transforms, multiplies each degree l by a complex matrix W_l and transforms back; r is its input, carried to
the filter's output grid where the two differ. The ends of the network live on the data's grid, the inside on a Gaussian
one. Bonev et al. 2023, arXiv 2306.03838; `ace`: Watt-Meyer et al. 2023, arXiv 2310.02074, which feeds the raw input to
the decoder; `makani` adds a linear map of the raw input to the decoder's output.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.grid import LatLonGrid, gaussian_grid
from emulators.layers.norms import field_norm
from emulators.layers.spectral import DegreeConvolution
from emulators.sphere.transform import SphericalHarmonics
from emulators.world import World


class SFNO(nn.Module):
    """fields (batch, input channel, lat, lon) -> (batch, output channel, lat, lon).

    block: `ace` or `makani`, the order of norms and skips. embed: channels inside. layers: number of blocks.
    mlp_ratio: hidden channels of a block's MLP by `embed`. scale_factor: the inner grid is coarser by it.
    modes_fraction: share of the inner grid's degrees that is kept. position_embedding: `none`, `grid` (a parameter a
    point and channel) or `spectral` (a parameter a harmonic and channel). norm: `instance`, `instance_area`, `layer`,
    `none`. big_skip: whether the decoder sees the raw input.
    Inside, activations are (lon, lat, batch, channel), so that every product is one GEMM without a copy.
    """

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
        position_embedding: str = "grid",
        norm: str = "instance",
        big_skip: bool = True,
    ) -> None:
        super().__init__()
        if block not in ("ace", "makani"):
            raise ValueError(f"Expected block to be 'ace' or 'makani'; got '{block}'.")
        if layers < 1:
            raise ValueError(f"Expected at least 1 layer; got {layers}.")
        outer, inner = _transforms(world.grid, scale_factor, modes_fraction)
        into, out = world.input_channels, world.output_channels
        self.ace = block == "ace"
        self.encoder = nn.Sequential(nn.Linear(into, embed), nn.GELU(), nn.Linear(embed, embed, bias=False))
        self.position = _position(position_embedding, outer, embed)
        kind = AceBlock if self.ace else MakaniBlock
        ends = [outer] + [inner] * (layers - 1) + [outer]
        self.blocks = nn.ModuleList(
            kind(ends[i], ends[i + 1], embed, int(mlp_ratio * embed), norm) for i in range(layers)
        )
        self.decoder = nn.Linear(embed, embed)
        self.skip = nn.Linear(into, embed if self.ace else out, bias=False) if big_skip else None
        self.head = nn.Linear(embed, out, bias=False)

    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        raw = fields.permute(3, 2, 0, 1).contiguous()
        x = self.position(self.encoder(raw))
        for block in self.blocks:
            x = block(x)
        x = self.decoder(x)
        if self.skip is not None and self.ace:
            x.add_(self.skip(raw))
        x = self.head(F.gelu(x))
        if self.skip is not None and not self.ace:
            x.add_(self.skip(raw))
        return x.permute(2, 3, 1, 0).contiguous()


class SpectralFilter(nn.Module):
    """Convolution from one grid to another, and the input itself on the other grid: (filtered, residual)."""

    def __init__(self, source: SphericalHarmonics, goal: SphericalHarmonics, channels: int) -> None:
        super().__init__()
        self.source, self.goal = source, goal
        self.convolution = DegreeConvolution(source.degrees, channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        batch, channels = x.shape[2:]
        coefficients = self.source.analysis(x.flatten(2)).unflatten(2, (batch, channels))
        mixed = self.goal.synthesis(self.convolution(coefficients).flatten(2))
        residual = x
        if self.source is not self.goal:
            residual = self.goal.synthesis(coefficients.flatten(2)).unflatten(2, (batch, channels))
        return mixed.unflatten(2, (batch, channels)), residual


class AceBlock(nn.Module):
    """Norm, filter with a learned inner skip, GELU, norm, MLP, and the normed input as residual."""

    def __init__(
        self, source: SphericalHarmonics, goal: SphericalHarmonics, channels: int, hidden: int, norm: str
    ) -> None:
        super().__init__()
        self.norm_in = field_norm(norm, channels, source.grid)
        self.filter = SpectralFilter(source, goal, channels)
        self.skip = nn.Linear(channels, channels)
        self.norm_out = field_norm(norm, channels, goal.grid)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels))

    def forward(self, x: Tensor) -> Tensor:
        mixed, residual = self.filter(self.norm_in(x))
        return residual + self.mlp(self.norm_out(F.gelu(mixed.add_(self.skip(residual)))))


class MakaniBlock(nn.Module):
    """Filter, norm, GELU, MLP, norm, and a learned linear map of the input as residual."""

    def __init__(
        self, source: SphericalHarmonics, goal: SphericalHarmonics, channels: int, hidden: int, norm: str
    ) -> None:
        super().__init__()
        self.filter = SpectralFilter(source, goal, channels)
        self.norm_in = field_norm(norm, channels, goal.grid)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels))
        self.norm_out = field_norm(norm, channels, goal.grid)
        self.skip = nn.Linear(channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mixed, residual = self.filter(x)
        return self.skip(residual) + self.norm_out(self.mlp(F.gelu(self.norm_in(mixed))))


class GridPosition(nn.Module):
    """Adds a learned number a point and channel."""

    def __init__(self, grid: LatLonGrid, channels: int) -> None:
        super().__init__()
        nlat, nlon = grid.shape
        self.weight = nn.Parameter(0.02 * torch.randn(nlon, nlat, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight


class SpectralPosition(nn.Module):
    """Adds a learned band-limited field a channel, given by its harmonic coefficients."""

    def __init__(self, transform: SphericalHarmonics, channels: int) -> None:
        super().__init__()
        self.transform = transform
        self.weight = nn.Parameter(0.02 * torch.randn(2 * transform.orders, transform.degrees, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.transform.synthesis(self.weight).unsqueeze(2)


def _position(kind: str, transform: SphericalHarmonics, channels: int) -> nn.Module:
    if kind == "none":
        return nn.Identity()
    if kind == "grid":
        return GridPosition(transform.grid, channels)
    if kind == "spectral":
        return SpectralPosition(transform, channels)
    raise ValueError(f"Expected position_embedding to be 'none', 'grid' or 'spectral'; got '{kind}'.")


def _transforms(
    grid: LatLonGrid, scale_factor: int, modes_fraction: float
) -> tuple[SphericalHarmonics, SphericalHarmonics]:
    """The transforms of the data's grid and of the Gaussian grid inside, of equal degrees and orders."""
    nlat, nlon = grid.shape[0] // scale_factor, grid.shape[1] // scale_factor
    if scale_factor < 1 or min(nlat, nlon // 2) < 2 or not 0.0 < modes_fraction <= 1.0:
        raise ValueError(
            "Expected scale_factor to be at least 1 and to leave 2 rows and 4 columns, and modes_fraction in (0, 1]; "
            f"got {scale_factor} and {modes_fraction} on {grid!r}."
        )
    resolved = grid.shape[0] - (grid.kind == "equiangular_with_poles")
    degrees = max(1, min(int(nlat * modes_fraction), resolved))
    orders = max(1, min(int(nlon // 2 * modes_fraction), degrees))
    outer = SphericalHarmonics(grid, degrees, orders)
    if scale_factor == 1 and grid.kind == "gaussian":
        return outer, outer
    return outer, SphericalHarmonics(gaussian_grid(nlat, nlon), degrees, orders)
