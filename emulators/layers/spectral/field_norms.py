"""Normalisation of fields in the transform's layout, (lon, lat, batch, channel).

    instance       (x - mean over the grid) / sqrt(variance over the grid + eps)   for each case and channel
    instance_area  the same with cell areas as weights, the mean over the sphere
    layer          (x - mean over channels) / sqrt(variance over channels + eps)   at each point

each followed, where it is affine, by a scale and a shift a channel (Ulyanov et al. 2016, arXiv 1607.08022; Ba et al.
2016, arXiv 1607.06450).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.grid import LatLonGrid

KINDS = ("instance", "instance_area", "layer", "none")


class InstanceNorm(nn.Module):
    """Mean 0 and variance 1 over the grid's points, every point counting the same; points are the first two axes."""

    def __init__(self, channels: int, eps: float = 1e-6, affine: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.weight: nn.Parameter | None = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias: nn.Parameter | None = nn.Parameter(torch.zeros(channels)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        # A batch norm in training mode whose channels are (batch, channel): one fused kernel forwards, one backwards.
        nlon, nlat, batch, channels = x.shape
        planes = x.reshape(1, nlon, nlat, batch * channels).permute(0, 3, 1, 2)
        weight, bias = (None if p is None else p.repeat(batch) for p in (self.weight, self.bias))
        normed = F.batch_norm(planes, None, None, weight, bias, training=True, eps=self.eps)
        return normed.permute(0, 2, 3, 1).reshape(nlon, nlat, batch, channels)


class AreaInstanceNorm(InstanceNorm):
    """Mean 0 and variance 1 over the sphere: the points count by their cell areas."""

    area: Tensor

    def __init__(self, channels: int, grid: LatLonGrid, eps: float = 1e-6, affine: bool = True) -> None:
        super().__init__(channels, eps, affine)
        area = torch.as_tensor(grid.weights / grid.weights.sum(), dtype=torch.float32).T.contiguous()
        self.register_buffer("area", area[:, :, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x if x.dtype == torch.float64 else x.float()  # means of half-precision weights would be off
        area = self.area.to(x.dtype)
        anomaly = x - (x * area).sum((0, 1))
        variance = (anomaly.square() * area).sum((0, 1))
        scale = torch.rsqrt(variance + self.eps)
        if self.weight is None or self.bias is None:
            return anomaly * scale
        return anomaly * (scale * self.weight) + self.bias


def field_norm(kind: str, channels: int, grid: LatLonGrid, affine: bool = True) -> nn.Module:
    """The normalisation called `kind` for fields (lon, lat, batch, channel) on `grid`; affine: with scale and shift."""
    if kind == "instance":
        return InstanceNorm(channels, affine=affine)
    if kind == "instance_area":
        return AreaInstanceNorm(channels, grid, affine=affine)
    if kind == "layer":
        return nn.LayerNorm(channels, eps=1e-5, elementwise_affine=affine)
    if kind == "none":
        return nn.Identity()
    raise ValueError(f"Expected norm to be one of {', '.join(KINDS)}; got '{kind}'.")
