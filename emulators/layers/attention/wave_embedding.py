"""Numbers as waves: sines, then cosines, of wavelengths between two bounds, evenly spread in their logarithm.

    [sin(2 pi x / l_k), cos(2 pi x / l_k)],     l_k = lower (upper / lower)^(k / (K - 1))

And what a patch is told of where it lies: latitude and longitude of its middle and the root of its area,

    6371 km sqrt(pi (sin north - sin south) (east - west)),

from point to point, with the pi that Aurora has in it: Bodnar et al. 2025, doi 10.1038/s41586-025-09005-y.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from emulators.grid import LatLonGrid
from emulators.layers.attention.patches import Frame

RADIUS = 6371.0  # km
ELLIPSOID = 6378.137  # km, of the areas between which wavelengths lie
FINEST = 0.01  # degrees
POSITIONS = FINEST, 720.0  # bounds of wavelengths: degrees, km2 (though lengths are told), hPa, hours
_SIDE, _INWARD = math.radians(FINEST), math.sin(math.radians(90.0 - FINEST))


# R^2 d (1 - sin(90 - d)), summed as published: millions of the shortest waves make all its digits felt.
AREAS = (_SIDE - _SIDE * _INWARD - _SIDE * _INWARD + _SIDE) * ELLIPSOID * ELLIPSOID / 2, 4.0 * math.pi * ELLIPSOID**2
LEVELS = 0.01, 1e5
LEADS = 1.0 / 60.0, 504.0
CLOCK = 1.0, 24.0 * 365.25


def waves_between(x: Tensor, bounds: tuple[float, float], width: int) -> Tensor:
    """(...) -> (..., width) in float32, reckoned in float64; ValueError where `width` is odd."""
    if width % 2:
        raise ValueError(f"Numbers are told by pairs of sine and cosine; expected an even width, got {width}.")
    lower, upper = (math.log10(bound) for bound in bounds)
    lengths = torch.logspace(lower, upper, width // 2, dtype=torch.float64, device=x.device)
    phase = x.double()[..., None] * (2.0 * math.pi / lengths)
    return torch.cat([phase.sin(), phase.cos()], dim=-1).float()


def told_places(grid: LatLonGrid, frame: Frame, patch: int, width: int) -> tuple[Tensor, Tensor]:
    """Waves of latitude, then longitude, and waves of the root of the area, of each patch; (lat, lon, width) both.

    Beyond the rim latitudes are those of the points that lie there, longitudes go on. The shortest waves feel how
    float32 rounds, in which places are reckoned as published, so that they are what they were in training.
    """
    with torch.device("cpu"):
        north = torch.tensor(grid.latitude).float()[:, None].expand(grid.shape)
        latitude = frame.inward(north[None, None])[0, 0, :, :1].expand(frame.shape)
        spacing = (grid.longitude[-1] - grid.longitude[0]) / max(1, grid.shape[1] - 1)
        east = grid.longitude[0] + spacing * (np.arange(frame.shape[1]) - frame.borders[2])
        longitude = torch.from_numpy(east).float().expand(frame.shape)
        mesh = torch.stack([latitude, longitude])
        middle = F.avg_pool2d(mesh, patch)
        places = torch.cat([waves_between(x, POSITIONS, width // 2) for x in (middle[0], middle[1] % 360.0)], dim=-1)
        high, low = F.max_pool2d(mesh, patch).deg2rad(), (-F.max_pool2d(-mesh, patch)).deg2rad()
        area = RADIUS**2 * math.pi * (high[0].sin() - low[0].sin()) * (high[1] - low[1])
        return places, waves_between(area.sqrt(), AREAS, width)


def pressures(levels: tuple[float, ...]) -> Tensor:
    """Levels in hPa; those that are shares of the surface pressure, up to 1, times 1000."""
    values = np.array(levels)
    return torch.from_numpy(values * (1000.0 if values.max() <= 1.0 else 1.0))
