"""Transport of humidity by the wind on the planet's grid: in flux form, limited, consistent with the mass of air.

    d(m q)/dt = -div(F q),    dm/dt = -div F,    m = ps dsigma

In each direction in turn, values at the faces of cells come from a linear reconstruction with van Leer's limiter (van
Leer 1977, doi 10.1016/0021-9991(77)90095-X). Along latitude circles, where cells are narrow near the poles, a face may
take what lies many cells upwind (Lin & Rood 1996, doi 10.1175/1520-0493(1996)124<2046:MFFSLT>2.0.CO;2). No new extremes
arise, the water mass is conserved to round-off, and uniform humidity stays uniform: air is transported by the same
fluxes. These are interpolated to the faces from the winds at both ends of a timestep; a correction closes each column,
so that its air changes as the surface pressure did (pressure fixer; Rotman et al. 2004, doi 10.1029/2002JD003155), and
vertical fluxes follow from the mass of each layer. Cells are the Gaussian ones: their areas are the quadrature weights.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from data_pipelines.simulators.planet.primitive_equations import Fields
from emulators.constants import EARTH_RADIUS
from emulators.grid import LatLonGrid

FASTEST = 120.0  # m s-1, crosses at most one row in half a substep
SMALLEST = 1e-36  # keeps the slope of uniform humidity at 0
LAT, LEVEL = 0, 1  # dimensions of the arrays here: (lat, level, lon)


class WaterTransport:
    """Move humidity over one timestep on a Gaussian `grid`.

    half: sigma at half levels. timestep: in seconds.
    """

    def __init__(
        self, grid: LatLonGrid, half: np.ndarray, timestep: float, dtype: torch.dtype, device: torch.device
    ) -> None:
        columns = grid.shape[1]
        latitude = np.deg2rad(grid.latitude)
        area = grid.weights[:, 0] / grid.weights.size  # shares of the sphere
        faces = np.arcsin(1.0 - 2.0 * columns * np.cumsum(area)[:-1])
        spacing = np.abs(np.diff(latitude)).min() * EARTH_RADIUS
        self.substeps = int(np.ceil(0.5 * timestep * FASTEST / spacing))

        def constant(values: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values)).to(device, dtype)

        self.thickness = constant(np.diff(half)[:, None])
        self.area = constant(area[:, None, None])
        eastward = timestep * area * columns / (2.0 * np.pi * EARTH_RADIUS * np.cos(latitude))
        southward = -timestep / (2.0 * EARTH_RADIUS * columns)
        self.eastward = constant(eastward[:, None, None])
        self.to_east = constant(_to_east(columns).T)
        self.to_south = constant(southward * _to_south(latitude, faces) * np.cos(latitude))

    def __call__(self, before: Fields, after: Fields) -> Tensor:
        """Return the humidity after a timestep, (lon, lat, level).

        before: with the humidity to move; after: winds and surface pressure at the end of the timestep.
        """
        start, end = (fields.surface_pressure.permute(1, 2, 0) * self.area for fields in (before, after))
        east, south, down = (flux / self.substeps for flux in self.fluxes(before, after))
        south, down = 0.5 * south, 0.5 * down
        mass = start * self.thickness
        water = before.humidity.permute(1, 2, 0) * mass
        for _ in range(self.substeps):  # symmetric in time (Strang 1968, doi 10.1137/0705041)
            mass, water = _vertically(*_along_meridian(mass, water, south), down)
            mass, water = _along_latitude(mass, water, east)
            mass, water = _along_meridian(*_vertically(mass, water, down), south)
        return (water / (end * self.thickness)).permute(2, 0, 1).contiguous()

    def fluxes(self, before: Fields, after: Fields) -> tuple[Tensor, Tensor, Tensor]:
        """Return the air that crosses the faces east, south and below in a timestep, in shares of the sphere times Pa.

        (lat, level, lon) but for the last row (south) and the last level (below), across which nothing flows.
        """
        start, end = 0.5 * before.surface_pressure, 0.5 * after.surface_pressure
        u, v = start * before.u + end * after.u, start * before.v + end * after.v
        east = (u.permute(1, 2, 0) @ self.to_east) * self.eastward * self.thickness
        south = torch.tensordot(self.to_south, v.permute(1, 2, 0), dims=1) * self.thickness
        rise = (after.surface_pressure - before.surface_pressure).permute(1, 2, 0) * self.area
        excess = rise + _divergence(east, south).sum(dim=LEVEL, keepdim=True)  # what a column would gain too little
        south = south - excess.mean(dim=2, keepdim=True).cumsum(dim=LAT)[:-1] * self.thickness
        uneven = (excess - excess.mean(dim=2, keepdim=True)).cumsum(dim=2)
        east = east - (uneven - uneven.mean(dim=2, keepdim=True)) * self.thickness
        gain = -_divergence(east, south) - rise * self.thickness
        return east, south, gain.cumsum(dim=LEVEL)[:, :-1]


def _divergence(east: Tensor, south: Tensor) -> Tensor:
    """Return what leaves each cell through its four sides."""
    out = east - east.roll(1, 2)
    out[:-1] += south
    out[1:] -= south
    return out


def _slopes(differences: Tensor, dim: int) -> Tensor:
    """Return half of the limited slopes in each cell from the differences across its two faces."""
    size = differences.shape[dim] - 1
    left, right = differences.narrow(dim, 0, size), differences.narrow(dim, 1, size)
    both = left + right
    return (left * right).clamp_(min=0.0).mul_(both).div_((both * both).add_(SMALLEST))


def _through_faces(mass: Tensor, water: Tensor, padded: Tensor, flux: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Move air and water through the inner faces along `dim`. padded: humidity, with one more cell at either end.

    What crosses is the mean of the reconstruction over the part of the cell that `flux` takes.
    """
    inner = mass.shape[dim] - 1
    humidity, slope = padded.narrow(dim, 1, inner + 1), _slopes(padded.diff(dim=dim), dim)
    steepness = slope / mass
    left = (humidity + slope).narrow(dim, 0, inner).addcmul(flux, steepness.narrow(dim, 0, inner), value=-1.0)
    right = (humidity - slope).narrow(dim, 1, inner).addcmul(flux, steepness.narrow(dim, 1, inner), value=-1.0)
    moved = (flux.clamp(min=0.0) * left).addcmul_(flux.clamp(max=0.0), right)
    mass, water = mass.clone(), water.clone()
    for amount, crossing in ((mass, flux), (water, moved)):
        amount.narrow(dim, 0, inner).sub_(crossing)
        amount.narrow(dim, 1, inner).add_(crossing)
    return mass, water


def _along_meridian(mass: Tensor, water: Tensor, flux: Tensor) -> tuple[Tensor, Tensor]:
    """Move air and water from row to row; beyond a pole lies the opposite meridian."""
    humidity, half = water / mass, mass.shape[2] // 2
    padded = torch.cat([humidity[:1].roll(half, 2), humidity, humidity[-1:].roll(half, 2)])
    return _through_faces(mass, water, padded, flux, LAT)


def _vertically(mass: Tensor, water: Tensor, flux: Tensor) -> tuple[Tensor, Tensor]:
    """Move air and water from level to level."""
    humidity = water / mass
    padded = torch.cat([humidity[:, :1], humidity, humidity[:, -1:]], dim=LEVEL)
    return _through_faces(mass, water, padded, flux, LEVEL)


def _along_latitude(mass: Tensor, water: Tensor, flux: Tensor) -> tuple[Tensor, Tensor]:
    """Move air and water around latitude circles: through each face moves what lies within `flux` of air upwind."""
    humidity = water / mass
    differences = torch.cat([humidity[..., :1] - humidity[..., -1:], humidity.diff(dim=2)], dim=2)
    slope = _slopes(torch.cat([differences, differences[..., :1]], dim=2), 2)
    ends, stored = mass.double().cumsum(dim=2), water.double().cumsum(dim=2)
    round_air, round_water = ends[..., -1:], stored[..., -1:]
    source = ends - flux
    turns = torch.floor(source / round_air)
    source = source - turns * round_air
    cell = torch.searchsorted(ends, source).clamp(max=mass.shape[2] - 1)
    here = mass.gather(2, cell)
    share = (ends.gather(2, cell) - source).to(mass.dtype) / here  # of the cell, east of the source
    content = here * share * (humidity.gather(2, cell) + (1.0 - share) * slope.gather(2, cell))
    moved = (stored - (stored.gather(2, cell) - content) - turns * round_water).to(water.dtype)
    return mass - flux + flux.roll(1, 2), water - moved + moved.roll(1, 2)


def _to_east(columns: int) -> np.ndarray:
    """Return the matrix from points on a circle to the faces east of them.

    Differences of the result are derivatives of the trigonometric interpolant, times the spacing.
    """
    waves = np.arange(columns // 2 + 1)
    angle = np.pi * waves / columns  # half of the spacing
    response = np.exp(1j * angle) * np.divide(angle, np.sin(angle), out=np.ones(len(angle)), where=angle > 0.0)
    response[-1] = 0.0
    return np.fft.irfft(np.fft.rfft(np.eye(columns), axis=0) * response[:, None], columns, axis=0)


def _to_south(latitude: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return the matrix from rows to the faces between them, cubic in latitude, of a field that is 0 at both poles."""
    nodes = np.concatenate([[0.5 * np.pi], latitude, [-0.5 * np.pi]])
    matrix = np.zeros((len(faces), len(nodes)))
    for row, face in enumerate(faces):
        near = np.arange(row, row + 4)
        for node in near:
            others = near[near != node]
            matrix[row, node] = np.prod((face - nodes[others]) / (nodes[node] - nodes[others]))
    return matrix[:, 1:-1]
