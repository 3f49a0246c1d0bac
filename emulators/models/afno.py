"""Adaptive Fourier Neural Operator: patches mixed by a small network on their Fourier coefficients.

    x <- x + filter(norm(x)),    x <- x + MLP(norm(x))
    filter(y) = y + F^-1 shrink(W2 relu(W1 F y + b1) + b2)

W1, W2: complex and the same for every wavenumber, blocks of channels along their diagonal; relu acts on real and
imaginary part apart, shrink draws both towards zero by a threshold. Guibas et al. 2022, arXiv 2111.13587; FourCastNet:
Pathak et al. 2022, arXiv 2202.11214, whose network this repeats, weights and all, but for a norm at its end that it has
(1,536 of 74,691,840 parameters) and never calls.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.layers.attention.patches import Frame, PatchEmbedding, unpatched
from emulators.layers.attention.transformer import MLP, DropPath, drop_path_rates, initialise_linear
from emulators.layers.convolution import pole_mirror
from emulators.layers.sample_draws import dropout
from emulators.world import World

ABOUT = {
    "states": "1",
    "step": "timestep",
    "grid": "any; patches, others padded",
    "parity": "FourCastNet, 1e-5",
}
EPS = 1e-6  # of the norms
PUBLISHED = (  # names in FourCastNet's checkpoints, and ours
    (r"patch_embed\.proj\.(\w+)", r"embedding.\1"),
    (r"pos_embed", r"position"),
    (r"blocks\.(\d+)\.norm1\.(\w+)", r"blocks.\1.norm_in.\2"),
    (r"blocks\.(\d+)\.norm2\.(\w+)", r"blocks.\1.norm_out.\2"),
    (r"blocks\.(\d+)\.filter\.([wb])([12])", r"blocks.\1.filter.\2\3"),
    (r"blocks\.(\d+)\.mlp\.fc1\.(\w+)", r"blocks.\1.mlp.expand.\2"),
    (r"blocks\.(\d+)\.mlp\.fc2\.(\w+)", r"blocks.\1.mlp.contract.\2"),
    (r"head\.weight", r"head.weight"),
    (r"norm\.(\w+)", r"unused.\1"),
)


class AFNO(nn.Module):
    """Map fields (batch, input channel, lat, lon) to (batch, output channel, lat, lon).

    patch: rows and columns of a token. embed: channels of a token. depth: number of blocks. blocks: number of blocks of
    channels, each mixed by a matrix of its own in the filter. mlp_ratio: hidden channels of the MLPs as a multiple of
    embed. threshold: that of the shrinkage. kept: share of the rows / 2 + 1 wavenumbers along either axis on which the
    filter acts, the lowest ones; its output is zero beyond (below 1 the published code keeps the highest along
    latitude). dropout: rate in embedding and MLPs. drop_path: rate of dropped residual paths in the last block, growing
    linearly from 0 in the first. fit, edges: see emulators.layers.attention.patches.Frame.
    """

    def __init__(
        self,
        world: World,
        *,
        patch: int = 2,
        embed: int = 192,
        depth: int = 6,
        blocks: int = 8,
        mlp_ratio: float = 4.0,
        threshold: float = 0.01,
        kept: float = 1.0,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        fit: str = "pad",
        edges: str | None = None,
    ) -> None:
        super().__init__()
        if blocks < 1 or embed % blocks or not 0.0 < kept <= 1.0 or threshold < 0.0:
            raise ValueError(
                f"Expected blocks that divide embed, kept in (0, 1] and a threshold of at least 0; "
                f"got embed={embed}, blocks={blocks}, kept={kept}, threshold={threshold}."
            )
        self.patch, self.dropout = (patch, patch), dropout
        self.frame = Frame(world.lat_lon, patch, patch, fit, edges)
        self.mirror = pole_mirror(world)
        self.embedding = PatchEmbedding(world.input_channels, embed, self.patch)
        rows, columns = (size // patch for size in self.frame.shape)
        self.position = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, rows * columns, embed), std=0.02))
        self.blocks = nn.ModuleList(
            Block(embed, blocks, (rows, columns), mlp_ratio, threshold, kept, dropout, rate)
            for rate in drop_path_rates(drop_path, depth)
        )
        self.head = nn.Linear(embed, world.output_channels * patch**2, bias=False)
        initialise_linear(self)

    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        x = self.embedding(self.frame.inward(fields, self.mirror))
        x = dropout(x + self.position.unflatten(1, x.shape[1:3]), self.dropout, self.training)
        for block in self.blocks:
            x = block(x)
        return self.frame.outward(unpatched(self.head(x), self.patch))


class Block(nn.Module):
    """Apply the filter and an MLP to tokens (batch, lat, lon, channel), both residual, each after a norm."""

    def __init__(
        self,
        channels: int,
        blocks: int,
        shape: tuple[int, int],
        mlp_ratio: float,
        threshold: float,
        kept: float,
        dropout: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.norm_in, self.norm_out = nn.LayerNorm(channels, eps=EPS), nn.LayerNorm(channels, eps=EPS)
        self.filter = Filter(channels, blocks, shape, threshold, kept)
        self.mlp = MLP(channels, int(mlp_ratio * channels), dropout=dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.filter(self.norm_in(x))
        return x + self.drop_path(self.mlp(self.norm_out(x)))


class Filter(nn.Module):
    """Add the small network on Fourier coefficients to its input; transforms run in single precision or better."""

    low: Tensor | None

    def __init__(self, channels: int, blocks: int, shape: tuple[int, int], threshold: float, kept: float) -> None:
        super().__init__()
        size = channels // blocks
        self.blocks, self.threshold = blocks, threshold
        self.w1, self.w2 = (nn.Parameter(0.02 * torch.randn(2, blocks, size, size)) for _ in range(2))
        for weight in (self.w1, self.w2):
            weight.matrix_axes = (2, 3)  # type: ignore[attr-defined]  # for optimisers of matrices
            weight.map_axes = (0, 2), (3,)  # type: ignore[attr-defined]  # for rates by width
        self.b1, self.b2 = (nn.Parameter(0.02 * torch.randn(2, blocks, size)) for _ in range(2))
        self.most = max(1, int((shape[0] // 2 + 1) * kept))  # columns of coefficients: what rows resolve
        wavenumber = torch.fft.fftfreq(shape[0], 1.0 / shape[0]).abs()
        self.register_buffer("low", (wavenumber < self.most)[:, None, None] if kept < 1.0 else None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        shape = x.shape[1:3]
        single = x if x.dtype == torch.float64 else x.float()
        with torch.autocast("cuda" if x.is_cuda else "cpu", enabled=False):
            a = torch.fft.rfft2(single.contiguous(), dim=(1, 2), norm="ortho")
            mixed = self._mixed(a[:, :, : self.most])
            mixed = mixed if self.low is None else mixed * self.low
            mixed = F.pad(mixed, (0, 0, 0, a.shape[2] - mixed.shape[2]))
            return torch.fft.irfft2(mixed, s=shape, dim=(1, 2), norm="ortho").to(x.dtype) + x

    def _mixed(self, a: Tensor) -> Tensor:
        """Apply the network to coefficients (batch, l, m, channel)."""
        size = a.shape
        components = torch.view_as_real(a).reshape(-1, self.blocks, size[-1] // self.blocks, 2)
        joint = components.permute(1, 0, 3, 2).flatten(2)  # block, coefficient, [real, imaginary] channel
        hidden = F.relu(torch.baddbmm(self.b1.permute(1, 0, 2).reshape(self.blocks, 1, -1), joint, _real(self.w1)))
        out = torch.baddbmm(self.b2.permute(1, 0, 2).reshape(self.blocks, 1, -1), hidden, _real(self.w2))
        out = F.softshrink(out, self.threshold).unflatten(-1, (2, -1)).permute(1, 0, 3, 2)
        return torch.view_as_complex(out.contiguous()).reshape(size)


def _real(weight: Tensor) -> Tensor:
    """Return the complex matrices of the blocks, (part, block, in, out), as real ones on [real, imaginary]."""
    real, imaginary = weight
    return torch.cat([torch.cat([real, imaginary], -1), torch.cat([-imaginary, real], -1)], -2)


def adapted(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return published weights without the norm that is never called."""
    return {name: value for name, value in theirs.items() if not name.startswith("unused.")}
