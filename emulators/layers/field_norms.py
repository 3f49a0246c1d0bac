"""Norms of fields in the layout (lon, lat, batch, channel), plain or conditioned on noise, labels and numbers.

    instance       (x - mean over the grid) / sqrt(variance over the grid + eps)   for each case and channel
    instance_area  the same with cell areas as weights, the mean over the sphere
    layer          (x - mean over channels) / sqrt(variance over channels + eps)   at each point

each followed, where it is affine, by a scale and a shift for each channel (Ulyanov et al. 2016, arXiv 1607.08022; Ba et
al. 2016, arXiv 1607.06450). A conditioned norm scales and shifts once more,

    y = (1 + s) norm(x) + b,     (s, b) = W_scalars scalars + W_labels labels + W_noise noise(point)

with weights that start at zero, so that it begins as the plain norm. Scalars and labels act alike at every point, noise
at its own. As in the noise-conditioned SFNO of ACE; Chen et al. 2021, arXiv 2103.00993.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.constants import EARTH_RADIUS
from emulators.grid import LatLonGrid
from emulators.layers.sample_draws import Generators, normal
from emulators.sphere.transform import SphericalHarmonics

KINDS = ("instance", "instance_area", "layer", "none")


class InstanceNorm(nn.Module):
    """Normalise to mean 0 and variance 1 over the grid's points with equal weights; points are the first two axes."""

    def __init__(self, channels: int, eps: float = 1e-6, affine: bool = True) -> None:
        super().__init__()
        self.channels, self.eps = channels, eps
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
    """Normalise to mean 0 and variance 1 over the sphere, with the cell areas as weights."""

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
    """Return the norm called `kind` for fields (lon, lat, batch, channel) on `grid`.

    affine: whether it has a scale and a shift. Raises ValueError for an unknown kind.
    """
    if kind == "instance":
        return InstanceNorm(channels, affine=affine)
    if kind == "instance_area":
        return AreaInstanceNorm(channels, grid, affine=affine)
    if kind == "layer":
        return nn.LayerNorm(channels, eps=1e-5, elementwise_affine=affine)
    if kind == "none":
        return nn.Identity()
    raise ValueError(f"Expected norm to be one of {', '.join(KINDS)}; got '{kind}'.")


NOISES = ("white", "isotropic", "degree")  # and `length`, with lengths


@dataclass(frozen=True)
class ConditionSizes:
    """Hold the numbers of channels of each kind that a network is conditioned on; false if all are 0."""

    noise: int = 0
    labels: int = 0
    scalars: int = 0

    def __bool__(self) -> bool:
        return bool(self.noise or self.labels or self.scalars)

    def as_dict(self) -> dict[str, int]:
        """Return the number of channels by kind."""
        return {"scalars": self.scalars, "labels": self.labels, "noise": self.noise}


@dataclass(frozen=True)
class ConditionValues:
    """Hold the conditions of a network, None for those it does not have.

    noise: (lon, lat, batch, channel). labels, scalars: (batch, channel).
    """

    noise: Tensor | None = None
    labels: Tensor | None = None
    scalars: Tensor | None = None

    def as_dict(self) -> dict[str, Tensor | None]:
        """Return the values by kind."""
        return {"scalars": self.scalars, "labels": self.labels, "noise": self.noise}

    def check(self, sizes: ConditionSizes) -> None:
        """Raise ValueError if the channels are not those of `sizes`."""
        for (name, values), size in zip(self.as_dict().items(), sizes.as_dict().values(), strict=True):
            channels = 0 if values is None else values.shape[-1]
            if channels != size:
                raise ValueError(
                    f"Expected {size} channels of {name}, by the network's options; got {channels}. "
                    f"Pass {name}= to the network, or build it with {name}={channels}."
                )


class ConditionalNorm(nn.Module):
    """Apply `norm` to fields (lon, lat, batch, channel), then a scale and a shift that are linear in the conditions."""

    def __init__(self, norm: nn.Module, channels: int, sizes: ConditionSizes) -> None:
        super().__init__()
        self.norm = norm
        self.maps = nn.ModuleDict()
        for name, size in sizes.as_dict().items():
            if size:
                self.maps[name] = nn.Linear(size, 2 * channels, bias=name != "noise")
        for parameter in self.maps.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, conditions: ConditionValues) -> Tensor:
        change = torch.zeros((), device=x.device)
        values = conditions.as_dict()
        for name, linear in self.maps.items():
            change = change + linear(values[name])
        normed = self.norm(x)
        scale, shift = change.to(normed.dtype).chunk(2, -1)
        return torch.addcmul(normed + shift, normed, scale)


class Noise(nn.Module):
    """Draw Gaussian noise of mean 0 and variance 1 on a grid, (lon, lat, batch, channel).

    kind: `white`, independent at all points; `isotropic`, with equal variance in every harmonic coefficient (area mean
    of the variance 1) and the same statistics at all latitudes; `degree`, with equal power in every degree instead; or
    `length`, correlated over `lengths` in km, which the channels take in turn.
    """

    deviation: Tensor | None
    factor: float = 1.0  # of white noise

    def __init__(self, kind: str, transform: SphericalHarmonics, channels: int, lengths: Sequence[float] = ()) -> None:
        super().__init__()
        if kind not in (*NOISES, *(["length"] if lengths else [])):
            raise ValueError(f"Expected noise_kind to be one of {', '.join(NOISES)}; got '{kind}'.")
        if any(not length >= 0.0 for length in lengths):
            raise ValueError(f"Expected noise.lengths of 0 km or more; got {list(lengths)}.")
        self.transform, self.channels, sizes = transform, channels, (transform.degrees, transform.orders)
        scales = None
        if kind == "length":
            tables = [noise_deviation(*sizes, length=lengths[n % len(lengths)]) for n in range(channels)]
            scales = torch.as_tensor(np.stack(tables, -1), dtype=torch.float32)[:, :, None]
        elif kind != "white":
            scales = torch.as_tensor(noise_deviation(*sizes, kind), dtype=torch.float32)[..., None, None]
        self.register_buffer("deviation", scales, persistent=False)

    def forward(self, batch: int, device: torch.device, generator: Generators = None) -> Tensor:
        """Draw noise case by case, so that the first cases of a batch do not depend on its size.

        generator: one for all cases, one for each, or None for those of the samples (`layers.sample_draws`). Raises
        ValueError for another number.
        """
        nlat, nlon = self.transform.grid.shape
        if self.deviation is None:
            return self.factor * self._draw((nlon, nlat), batch, device, generator)
        rows, degrees = self.deviation.shape[:2]
        scaled = self._draw((rows, degrees), batch, device, generator) * self.deviation
        return self.transform.synthesis(scaled.flatten(2)).unflatten(2, (batch, self.channels))

    def _draw(self, shape: tuple[int, int], batch: int, device: torch.device, generator: Generators) -> Tensor:
        return torch.stack(normal(batch, (*shape, self.channels), device, generator), 2)


def noise_deviation(degrees: int, orders: int, kind: str = "isotropic", length: float = 0.0) -> np.ndarray:
    """Return the standard deviation of each number of the coefficients of spherical noise, (2 * orders, degrees).

    `isotropic`: E |a_lm|^2 = 4 pi / N, N being the number of coefficients, of both signs of m; with a length L in km
    E |a_lm|^2 ~ exp(-l (l + 1) (L / R)^2 / 2), so that the correlation over a distance d is near exp(-d^2 / 2 L^2), as
    in stochastic physics (Palmer et al. 2009, ECMWF Technical Memorandum 598). `degree`: 4 pi / (L n_l), L being the
    number of degrees and n_l that of the coefficients of degree l (GenCast: Price et al. 2025, doi
    10.1038/s41586-024-08252-9). All have unit variance in the area mean. Coefficients of m > 0 have independent real
    and imaginary parts of half that variance; those of m = 0 are real.
    """
    l, m = np.arange(degrees)[None, :], np.repeat(np.arange(orders), 2)[:, None]
    count = 2 * np.minimum(l, orders - 1) + 1
    decay = np.exp(-0.5 * l * (l + 1.0) * (1e3 * length / EARTH_RADIUS) ** 2)
    share = 1.0 / (degrees * count) if kind == "degree" else decay / (count * decay).sum()
    table = np.sqrt(4.0 * np.pi * share * np.where(m == 0, 1.0, 0.5)) * (l >= m)
    table[1] = 0.0
    return table
