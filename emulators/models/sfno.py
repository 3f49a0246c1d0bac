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
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.grid import LatLonGrid, gaussian_grid
from emulators.layers.conditioning import NOISES, ConditionalNorm, Conditions, Context, Generators, Noise
from emulators.layers.pointwise import PointwiseMLP
from emulators.layers.spectral.coefficient_filters import DiagonalConvolution, SpectralMLP
from emulators.layers.spectral.degree_convolution import DegreeConvolution
from emulators.layers.spectral.field_norms import field_norm
from emulators.layers.spectral.sfno_weights import PUBLISHED as PUBLISHED
from emulators.layers.spectral.sfno_weights import adapted as adapted
from emulators.sphere.transform import SphericalHarmonics, resolved_degrees
from emulators.world import World

ABOUT = {
    "states": "1",
    "step": "timestep",
    "grid": "global",
    "parity": "ACE, Makani, torch-harmonics",
}


class SFNO(nn.Module):
    """fields (batch, input channel, lat, lon) -> (batch, output channel, lat, lon).

    block: `ace`, `makani` or `torch_harmonics`, the order of norms and skips. embed: channels inside. layers: number of
    blocks. mlp_ratio: hidden channels of a block's MLP by `embed`. scale_factor: the inner grid is coarser by it.
    modes_fraction: share of the inner grid's degrees that is kept. quadrature: whether analysis on equally spaced rows
    is by quadrature alone, as in the published networks, instead of exact. operator: what multiplies the coefficients,
    a matrix a degree (`degree`), a matrix a coefficient (`diagonal`) or an MLP of `spectral_layers` hidden layers
    (`mlp`). filter_bias: whether a number a channel is added after the filter. encoder_layers: hidden layers of encoder
    and decoder. position_embedding: `none`, `grid` (a parameter a point and channel), `latitude` (a parameter a row and
    channel) or `spectral` (a parameter a harmonic and channel). norm: `instance`, `instance_area`, `layer`, `none`;
    affine_norms: whether they have a scale and a shift of their own. big_skip: whether the decoder sees the raw input;
    normed_big_skip: after a norm.
    noise, labels, scalars: channels that the norms are conditioned on. noise_kind: `white` or `isotropic`.
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
        self.conditions = Conditions(noise, labels, scalars)
        _refuse_conditions(self.conditions, norm, scale_factor, noise_kind)
        outer, inner = _transforms(world.grid, scale_factor, modes_fraction, block, quadrature)
        into, out = world.input_channels, world.output_channels

        def made_norm(channels: int, grid: LatLonGrid) -> nn.Module:
            bare = field_norm(norm, channels, grid, affine_norms)
            return ConditionalNorm(bare, channels, self.conditions) if self.conditions else bare

        def made_filter(source: SphericalHarmonics, goal: SphericalHarmonics) -> SpectralFilter:
            product = coefficient_product(operator, source, embed, int(mlp_ratio * embed), spectral_layers)
            return SpectralFilter(source, goal, product, embed, filter_bias)

        self.encoder = _encoder(into, embed, encoder_layers)
        self.position = field_position(position_embedding, outer, embed)
        ends = [outer] + [inner] * (layers - 1) + [outer]
        self.blocks = nn.ModuleList(
            BLOCKS[block](made_filter(ends[i], ends[i + 1]), made_norm, embed, int(mlp_ratio * embed))
            for i in range(layers)
        )
        self.into_decoder = block == "ace" and encoder_layers > 0
        self.decoder = nn.Linear(embed, embed) if encoder_layers else None
        self.hidden = nn.Sequential(*(part for _ in range(encoder_layers - 1) for part in _hidden(embed)))
        self.skip = nn.Linear(into, embed if self.into_decoder else out, bias=False) if big_skip else None
        self.skip_norm = made_norm(into, world.grid) if big_skip and normed_big_skip else None
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
        """The fields one step on. labels, scalars: (batch, channel).

        noise: (batch, channel, lat, lon), or None to draw it from `generator`, one for all or one a case. Without it
        noise is drawn from torch's own in training, and is zero in evaluation, as dropout is.
        """
        raw = fields.permute(3, 2, 0, 1).contiguous()
        context = self._context(raw, generator, noise, labels, scalars)
        x = self.position(self.encoder(raw))
        for block in self.blocks:
            x = block(x, context)
        skipped = self._skipped(raw, context)
        if self.decoder is not None:
            x = self.decoder(x)
            if skipped is not None and self.into_decoder:
                x.add_(skipped)
            x = self.hidden(F.gelu(x))
        x = self.head(x)
        if skipped is not None and not self.into_decoder:
            x.add_(skipped)
        return x.permute(2, 3, 1, 0).contiguous()

    def _context(
        self, raw: Tensor, generator: Generators, noise: Tensor | None, *told: Tensor | None
    ) -> Context | None:
        """What the norms are conditioned on, or None."""
        if not self.conditions:
            return None
        nlon, nlat, batch, _ = raw.shape
        if noise is not None:
            noise = noise.permute(3, 2, 0, 1)
        elif self.noise is not None and (self.training or generator is not None):
            noise = self.noise(batch, raw.device, generator)
        elif self.noise is not None:
            noise = raw.new_zeros(nlon, nlat, batch, self.conditions.noise)
        context = Context(noise, *told)
        context.expect(self.conditions)
        return context

    def _skipped(self, raw: Tensor, context: Context | None) -> Tensor | None:
        """The big skip: a linear map of the raw input."""
        if self.skip is None:
            return None
        return self.skip(raw if self.skip_norm is None else _normed(self.skip_norm, raw, context))


class SpectralFilter(nn.Module):
    """Product in spectral space, from one grid to another, and the input on the other grid: (filtered, residual)."""

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


class AceBlock(nn.Module):
    """Norm, filter with a learned inner skip, GELU, norm, MLP, and the normed input as residual."""

    def __init__(self, spectral: SpectralFilter, norm: Callable, channels: int, hidden: int) -> None:
        super().__init__()
        self.norm_in = norm(channels, spectral.source.grid)
        self.filter = spectral
        self.skip = nn.Linear(channels, channels)
        self.norm_out = norm(channels, spectral.goal.grid)
        self.mlp = PointwiseMLP(channels, hidden)

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        mixed, residual = self.filter(_normed(self.norm_in, x, context))
        mixed = F.gelu(self.skip(residual).add_(mixed))
        return self.mlp(_normed(self.norm_out, mixed, context), residual)


class MakaniBlock(nn.Module):
    """Filter, norm, GELU, MLP, norm, and a learned linear map of the input as residual."""

    def __init__(self, spectral: SpectralFilter, norm: Callable, channels: int, hidden: int) -> None:
        super().__init__()
        self.filter = spectral
        self.norm_in = norm(channels, spectral.goal.grid)
        self.mlp = PointwiseMLP(channels, hidden)
        self.norm_out = norm(channels, spectral.goal.grid)
        self.skip = nn.Linear(channels, channels, bias=False)

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        mixed, residual = self.filter(x)
        mixed = self.mlp(F.gelu(_normed(self.norm_in, mixed, context)))
        return _sum(_normed(self.norm_out, mixed, context), self.skip(residual))


class PlainBlock(nn.Module):
    """Filter, norm, MLP without a bias at its end, and the input as residual."""

    def __init__(self, spectral: SpectralFilter, norm: Callable, channels: int, hidden: int) -> None:
        super().__init__()
        self.filter = spectral
        self.norm = norm(channels, spectral.goal.grid)
        self.mlp = PointwiseMLP(channels, hidden, bias=False)

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        mixed, residual = self.filter(x)
        return self.mlp(_normed(self.norm, mixed, context), residual)


BLOCKS = {"ace": AceBlock, "makani": MakaniBlock, "torch_harmonics": PlainBlock}


class GridPosition(nn.Module):
    """Adds a learned number a point and channel, or a row and channel where nlon is 1."""

    def __init__(self, nlat: int, nlon: int, channels: int) -> None:
        super().__init__()
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


def _normed(norm: nn.Module, x: Tensor, context: Context | None) -> Tensor:
    return norm(x) if context is None else norm(x, context)


def _sum(residual: Tensor, update: Tensor) -> Tensor:
    """residual + update, written over the update where it is as precise."""
    return update.add_(residual) if update.dtype == residual.dtype else residual + update


def _hidden(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.Linear(channels, channels), nn.GELU()


def _encoder(into: int, channels: int, hidden: int) -> nn.Sequential:
    """`hidden` layers with GELU, then a linear one without a bias."""
    widths = [into] + [channels] * hidden
    parts = [part for width in widths[:-1] for part in (nn.Linear(width, channels), nn.GELU())]
    return nn.Sequential(*parts, nn.Linear(widths[-1], channels, bias=False))


def coefficient_product(kind: str, transform: SphericalHarmonics, channels: int, hidden: int, layers: int) -> nn.Module:
    if kind == "degree":
        return DegreeConvolution(transform.degrees, channels)
    if kind == "diagonal":
        return DiagonalConvolution(transform.degrees, transform.orders, channels)
    if kind == "mlp":
        return SpectralMLP(channels, hidden, layers)
    raise ValueError(f"Expected operator to be 'degree', 'diagonal' or 'mlp'; got '{kind}'.")


def field_position(kind: str, transform: SphericalHarmonics, channels: int) -> nn.Module:
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


def _refuse_sizes(embed: int, layers: int, spectral_layers: int, encoder_layers: int, hidden: int) -> None:
    """ValueError where there would be nothing of something."""
    least = {"embed": embed, "layers": layers, "spectral_layers": spectral_layers, "mlp_ratio x embed": hidden}
    wrong = [f"{name} {value}" for name, value in least.items() if value < 1]
    if wrong or encoder_layers < 0:
        raise ValueError(
            f"Expected {', '.join(least)} of at least 1, and encoder_layers of at least 0; "
            f"got {', '.join(wrong or [f'encoder_layers {encoder_layers}'])}."
        )


def _refuse_conditions(conditions: Conditions, norm: str, scale_factor: int, noise_kind: str) -> None:
    """ValueError where the norms cannot be conditioned as asked."""
    if noise_kind not in NOISES:
        raise ValueError(f"Expected noise_kind to be one of {', '.join(NOISES)}; got '{noise_kind}'.")
    if conditions and norm == "none":
        raise ValueError("Noise, labels and scalars act through the norms; got norm='none': take norm='layer'.")
    if conditions.noise and scale_factor != 1:
        raise ValueError(f"Noise needs an inner grid as fine as the outer one; got scale_factor {scale_factor}.")


def _transforms(
    grid: LatLonGrid, scale_factor: int, modes_fraction: float, block: str, quadrature: bool
) -> tuple[SphericalHarmonics, SphericalHarmonics]:
    """The transforms of the data's grid and of the Gaussian grid inside, of equal degrees and orders.

    torch-harmonics counts the rows of the inner grid from pole to pole, the others from the first row.
    """
    rows = grid.shape[0] + scale_factor - 1 if block == "torch_harmonics" else grid.shape[0]
    nlat, nlon = rows // max(scale_factor, 1), grid.shape[1] // max(scale_factor, 1)
    if scale_factor < 1 or min(nlat, nlon // 2) < 2 or not 0.0 < modes_fraction <= 1.0:
        raise ValueError(
            "Expected scale_factor to be at least 1 and to leave 2 rows and 4 columns, and modes_fraction in (0, 1]; "
            f"got {scale_factor} and {modes_fraction} on {grid!r}."
        )
    most = nlat if block != "torch_harmonics" else min(nlat, nlon // 2)
    degrees = max(1, min(int(most * modes_fraction), resolved_degrees(grid, quadrature)))
    orders = max(1, min(int(nlon // 2 * modes_fraction), degrees))
    outer = SphericalHarmonics(grid, degrees, orders, quadrature=quadrature)
    if scale_factor == 1 and grid.kind == "gaussian":
        return outer, outer
    return outer, SphericalHarmonics(gaussian_grid(nlat, nlon), degrees, orders)
