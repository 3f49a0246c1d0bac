"""Embeddings of numbers and positions as waves: sines, then cosines, of several wavelengths.

    [sin(2 pi x / l_k), cos(2 pi x / l_k)],     l_k = lower (upper / lower)^(k / (K - 1))

with wavelengths between two bounds, evenly spread in their logarithm. Patches are described by the latitude and
longitude of their middle and the root of their area,

    6371 km sqrt(pi (sin north - sin south) (east - west)),

from point to point, with the pi that Aurora has in it: Bodnar et al. 2025, doi 10.1038/s41586-025-09005-y. Positions on
a plane of tokens: Dosovitskiy et al. 2021, arXiv 2010.11929.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from emulators.grid import LatLonGrid
from emulators.layers.attention.patches import Frame

RADIUS = 6371.0  # km


ELLIPSOID = 6378.137  # km, of the areas between which wavelengths lie


FINEST = 0.01  # degrees


POSITIONS = FINEST, 720.0  # bounds of wavelengths: degrees, km2 (though lengths are embedded), hPa, hours


_SIDE, _INWARD = math.radians(FINEST), math.sin(math.radians(90.0 - FINEST))


# R^2 d (1 - sin(90 - d)), summed as published: millions of the shortest waves make all its digits felt.
AREAS = (_SIDE - _SIDE * _INWARD - _SIDE * _INWARD + _SIDE) * ELLIPSOID * ELLIPSOID / 2, 4.0 * math.pi * ELLIPSOID**2


LEVELS = 0.01, 1e5


LEADS = 1.0 / 60.0, 504.0


SMOOTH_LEADS = 6.0, 504.0


CLOCK = 1.0, 24.0 * 365.25


def log_spaced_waves(x: Tensor, bounds: tuple[float, float], width: int) -> Tensor:
    """Return sines, then cosines of x with log-spaced wavelengths: (...) -> (..., width), float32, computed in float64.

    bounds: shortest and longest wavelength, in units of x. Raises ValueError if `width` is odd.
    """
    if width % 2:
        raise ValueError(f"Numbers are embedded as pairs of sine and cosine: expected an even width, got {width}.")
    lower, upper = (math.log10(bound) for bound in bounds)
    lengths = torch.logspace(lower, upper, width // 2, dtype=torch.float64, device=x.device)
    phase = x.double()[..., None] * (2.0 * math.pi / lengths)
    return torch.cat([phase.sin(), phase.cos()], dim=-1).float()


def lead_waves(hours: Tensor, width: int, smooth: bool) -> Tensor:
    """Return the waves of lead times, (...) -> (..., width), float32.

    smooth: of 6 hours at least, and the sine of the longest is replaced by the lead time as a share of its length, as
    in Aurora 1.5.
    """
    if not smooth:
        return log_spaced_waves(hours, LEADS, width)
    sines, cosines = log_spaced_waves(hours, SMOOTH_LEADS, width).chunk(2, -1)
    return torch.cat([sines[..., :-1], (hours / SMOOTH_LEADS[1]).float()[..., None], cosines], dim=-1)


def patch_position_waves(grid: LatLonGrid, frame: Frame, patch: int, width: int) -> tuple[Tensor, Tensor]:
    """Return the waves of each patch's latitude and longitude, and of the root of its area; (lat, lon, width) both.

    Beyond the edges latitudes are those of the points padded, longitudes continue. The shortest waves depend on how
    float32 rounds, in which positions are computed as published, so that published weights see the inputs they were
    trained on.
    """
    with torch.device("cpu"):
        north = torch.tensor(grid.latitude).float()[:, None].expand(grid.shape)
        latitude = frame.inward(north[None, None])[0, 0, :, :1].expand(frame.shape)
        spacing = (grid.longitude[-1] - grid.longitude[0]) / max(1, grid.shape[1] - 1)
        east = grid.longitude[0] + spacing * (np.arange(frame.shape[1]) - frame.borders[2])
        longitude = torch.from_numpy(east).float().expand(frame.shape)
        mesh = torch.stack([latitude, longitude])
        middle = F.avg_pool2d(mesh, patch)
        places = torch.cat([log_spaced_waves(x, POSITIONS, width // 2) for x in (middle[0], middle[1] % 360.0)], dim=-1)
        high, low = F.max_pool2d(mesh, patch).deg2rad(), (-F.max_pool2d(-mesh, patch)).deg2rad()
        area = RADIUS**2 * math.pi * (high[0].sin() - low[0].sin()) * (high[1] - low[1])
        return places, log_spaced_waves(area.sqrt(), AREAS, width)


def pressures(levels: tuple[float, ...]) -> Tensor:
    """Return the levels in hPa; levels up to 1, shares of the surface pressure, times 1000."""
    values = np.array(levels)
    return torch.from_numpy(values * (1000.0 if values.max() <= 1.0 else 1.0))


def sine_waves(positions: np.ndarray, width: int) -> np.ndarray:
    """Return sines, then cosines of each position with wavelengths from 2 pi to 20,000 pi, (position, width).

    Raises ValueError if `width` is odd.
    """
    if width % 2:
        raise ValueError(f"Positions are embedded as pairs of sine and cosine: expected an even width, got {width}.")
    phase = np.outer(positions, 10_000.0 ** (-np.arange(width // 2) / (width / 2.0)))
    return np.concatenate([np.sin(phase), np.cos(phase)], axis=1)


def plane_waves(shape: Sequence[int], width: int) -> Tensor:
    """Return waves along longitude in the first half of the channels, along latitude in the second, (lat, lon, width).

    Raises ValueError if 4 does not divide `width`.
    """
    if width % 4:
        raise ValueError(f"Positions on a plane need a width that 4 divides; got {width}.")
    rows, columns = (sine_waves(np.arange(size), width // 2) for size in shape)
    both = np.concatenate(
        [np.broadcast_to(columns[None], (*shape, width // 2)), np.broadcast_to(rows[:, None], (*shape, width // 2))], -1
    )
    return torch.tensor(both, dtype=torch.float32)
