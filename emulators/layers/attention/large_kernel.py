"""Attention by large kernels: features of a wide neighbourhood multiply each point, by convolutions alone.

    x <- x + a1 (h + W2 [g K_1x1 K_dilated K_near g]),  g = gelu(W1 h),  h = norm(x)
    x <- x + a2 V2 gelu(K_3x3 V1 norm(x))

K_near and K_dilated act on each channel alone; with the usual 5x5 and 7x7 of dilation 3 a point sees 23x23. a: one
number for each channel, small at the start. Guo et al. 2023, doi 10.1007/s41095-023-0364-2 (VAN, arXiv 2202.09741).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.layers.attention.transformer import DropPath
from emulators.layers.convolution import Convolution, Edges

SCALE = 1e-2  # of both branches at the start


class LargeKernelAttention(nn.Module):
    """Multiply (batch, channel, lat, lon) by features of the neighbourhood of `reach` points.

    reach: rows and columns of the two kernels combined, 21 by default; dilation: that of the second kernel. Raises
    ValueError for a reach below the dilation.
    """

    def __init__(self, channels: int, rim: Edges, *, reach: int = 21, dilation: int = 3) -> None:
        super().__init__()
        if dilation < 1 or reach < dilation:
            raise ValueError(f"Expected a reach of at least the dilation, at least 1; got {reach} and {dilation}.")
        far = reach // dilation - (1 - reach // dilation % 2)
        self.near = Convolution(channels, channels, 2 * dilation - 1, rim, groups=channels)
        self.far = Convolution(channels, channels, max(1, far), rim, groups=channels, dilation=dilation)
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mix(self.far(self.near(x)))


class LargeKernelBlock(nn.Module):
    """Apply large-kernel attention, then an MLP with a 3x3 convolution inside; both residual, each after a batch norm.

    mlp_ratio: hidden channels of the MLP as a multiple of `channels`. reach, dilation: see LargeKernelAttention.
    """

    def __init__(
        self,
        channels: int,
        rim: Edges,
        *,
        mlp_ratio: float = 4.0,
        reach: int = 21,
        dilation: int = 3,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        hidden = int(mlp_ratio * channels)
        self.norm_attention, self.norm_mlp = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.into, self.out = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
        self.attention = LargeKernelAttention(channels, rim, reach=reach, dilation=dilation)
        self.expand, self.contract = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1)
        self.around = Convolution(hidden, hidden, 3, rim, groups=hidden)
        self.scale_attention, self.scale_mlp = (nn.Parameter(torch.full((channels,), SCALE)) for _ in range(2))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm_attention(x)
        h = h + self.out(self.attention(F.gelu(self.into(h))))
        x = x + self.drop_path(self.scale_attention[:, None, None] * h)
        h = self.contract(F.gelu(self.around(self.expand(self.norm_mlp(x)))))
        return x + self.drop_path(self.scale_mlp[:, None, None] * h)


PUBLISHED = (  # names inside a block of VAN, and ours
    (r"norm1\.(\w+)", r"norm_attention.\1"),
    (r"norm2\.(\w+)", r"norm_mlp.\1"),
    (r"attn\.proj_1\.(\w+)", r"into.\1"),
    (r"attn\.proj_2\.(\w+)", r"out.\1"),
    (r"attn\.spatial_gating_unit\.conv0\.(\w+)", r"attention.near.\1"),
    (r"attn\.spatial_gating_unit\.conv_spatial\.(\w+)", r"attention.far.\1"),
    (r"attn\.spatial_gating_unit\.conv1\.(\w+)", r"attention.mix.\1"),
    (r"mlp\.fc1\.(\w+)", r"expand.\1"),
    (r"mlp\.dwconv\.dwconv\.(\w+)", r"around.\1"),
    (r"mlp\.fc2\.(\w+)", r"contract.\1"),
    (r"layer_scale_1", r"scale_attention"),
    (r"layer_scale_2", r"scale_mlp"),
)
