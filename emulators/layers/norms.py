"""Normalisation of fields in the transform's layout, (lon, lat, batch, channel).

    instance       (x - mean over the grid) / sqrt(variance over the grid + eps)   for each case and channel
    instance_area  the same with cell areas as weights, the mean over the sphere
    layer          (x - mean over channels) / sqrt(variance over channels + eps)   at each point

each followed by a scale and a shift a channel (Ulyanov et al. 2016, arXiv 1607.08022; Ba et al. 2016, arXiv
1607.06450).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.grid import LatLonGrid

KINDS = ("instance", "instance_area", "layer", "none")


class InstanceNorm(nn.Module):
    """Mean 0 and variance 1 over the grid's points, every point counting the same; points are the first two axes."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        # A batch norm in training mode whose channels are (batch, channel): one fused kernel forwards, one backwards.
        nlon, nlat, batch, channels = x.shape
        planes = x.reshape(1, nlon, nlat, batch * channels).permute(0, 3, 1, 2)
        weight, bias = self.weight.repeat(batch), self.bias.repeat(batch)
        normed = F.batch_norm(planes, None, None, weight, bias, training=True, eps=self.eps)
        return normed.permute(0, 2, 3, 1).reshape(nlon, nlat, batch, channels)


class AreaInstanceNorm(InstanceNorm):
    """Mean 0 and variance 1 over the sphere: the points count by their cell areas."""

    area: Tensor

    def __init__(self, channels: int, grid: LatLonGrid, eps: float = 1e-6) -> None:
        super().__init__(channels, eps)
        area = torch.as_tensor(grid.weights / grid.weights.sum(), dtype=torch.float32).T.contiguous()
        self.register_buffer("area", area[:, :, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        area = self.area.to(x.dtype)
        anomaly = x - (x * area).sum((0, 1))
        variance = (anomaly.square() * area).sum((0, 1))
        return anomaly * (torch.rsqrt(variance + self.eps) * self.weight) + self.bias


def field_norm(kind: str, channels: int, grid: LatLonGrid) -> nn.Module:
    """The normalisation called `kind` for fields (lon, lat, batch, channel) on `grid`."""
    if kind == "instance":
        return InstanceNorm(channels)
    if kind == "instance_area":
        return AreaInstanceNorm(channels, grid)
    if kind == "layer":
        return nn.LayerNorm(channels, eps=1e-5)
    if kind == "none":
        return nn.Identity()
    raise ValueError(f"Expected norm to be one of {', '.join(KINDS)}; got '{kind}'.")
