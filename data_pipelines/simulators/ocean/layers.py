"""The primitive equations of an ocean of a few layers with temperature and salinity above an abyss at rest.

    dh_k/dt      = -div(h_k u_k) + exchange,              with the layers above and below; fresh water at the top
    d(h_k c)/dt  = -div(h_k u_k c - K h_k grad c) + exchange + surface flux,       c: T_k - T_a or S_k - S_a
    du_k/dt      = -(f + zeta_k) z x u_k - grad(u_k^2 / 2) - P_k + A lap(u_k) + vertical friction + tau / (rho h_1)
    P_k          = grad(sum_{j>k} b_j h_j) + b_k grad(sum_{j<=k} h_j) + h_k grad(b_k) / 2
    b_k          = g [alpha (T_k - T_a) - beta (S_k - S_a)]

b is the buoyancy over the abyss, which has temperature T_a and salinity S_a, infinite depth and no currents; the sea
surface stands sum_k b_k h_k / g higher than over the abyss alone. Layers of varying buoyancy: Ripa 1993,
doi 10.1080/03091929308203609; entrainment: McCreary & Kundu 1988, doi
10.1357/002224088785113685.
The grid is the C-grid of Arakawa & Lamb 1977, u on eastern and v on northern faces, land between them; thickness and
tracers are transported in flux form with van Leer's limiter (1974, doi 10.1016/0021-9991(74)90019-9) and time steps are
those of Shu & Osher 1988 (third order, doi 10.1016/0021-9991(88)90177-5), so that volume, heat and salt are closed to
rounding. The thickness is smoothed by eddies as Gent & McWilliams 1990 have it,
doi 10.1175/1520-0485(1990)020<0150:IMIOCM>2.0.CO;2.

A state is (member, field, layer, lat, lon) with the fields h (m), h (T - T_a) (m K), h (S - S_a) (m g kg-1), u and v
(m s-1); rows go from north to south, and v stands on the northern face of its cell. Heat and salt are counted from
those of the abyss, which takes fewer digits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from emulators.constants import EARTH_RADIUS, GRAVITY, ROTATION_RATE
from emulators.grid import LatLonGrid

DENSITY, HEAT_CAPACITY = 1025.0, 3990.0  # kg m-3, J kg-1 K-1
WARMEST, FALL = 302.0, 400.0  # K of any surface; m over which the warmth of water at rest falls by 1 / e
Neighbour = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class OceanConstants:
    """Hold what the ocean is made of and how strongly it mixes.

    thickness: of the layers at rest, m. abyss: its temperature (K) and salinity (g kg-1). expansion, contraction: of
    density by temperature (K-1) and salinity (kg g-1). viscosity: horizontal, at the equator, m2 s-1; it falls with
    the width of the cells. diffusivity: of tracers along layers, and eddies: of the thickness, m2 s-1. vertical:
    diffusivity across interfaces, and friction: viscosity across them, m2 s-1. least: thickness in m that layers are
    kept at by entrainment within `entrainment` days. overturning: days in which layers come back to their thickness at
    rest, through the abyss. convection: hours in which unstable layers mix. drag: of the abyss on the lowest layer,
    s-1. advection: of momentum; False: the linear equations.
    """

    thickness: tuple[float, ...] = (60.0, 140.0, 400.0)
    abyss: tuple[float, float] = (275.0, 34.7)
    expansion: float = 2.0e-4
    contraction: float = 7.6e-4
    viscosity: float = 6.0e5
    diffusivity: float = 1.0e3
    eddies: float = 2.0e3
    vertical: float = 3.0e-5
    friction: float = 1.0e-3
    least: float = 20.0
    entrainment: float = 0.5
    overturning: float = 1500.0
    convection: float = 12.0
    drag: float = 1.0e-7
    advection: bool = True


class SurfaceFluxes(NamedTuple):
    """Hold what the air does to the ocean, each (member, lat, lon) or of a shape that broadcasts with it.

    east, north: stress on the water, N m-2. heat: into the water, W m-2, at the temperature `target` (K) of the
    surface; it grows by `restoring` W m-2 for each K that the water is colder. water: fresh water, m s-1.
    """

    east: Tensor
    north: Tensor
    heat: Tensor
    water: Tensor
    target: Tensor
    restoring: float = 0.0


class LayeredOcean:
    """Integrate the layers for several members.

    sea: where there is water, (lat, lon). step: timestep in s. Raises ValueError if the step is too long for the
    smallest cell with water in it.
    """

    def __init__(
        self,
        grid: LatLonGrid,
        sea: np.ndarray,
        step: float,
        constants: OceanConstants | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.grid, self.seconds, self.constants, self.dtype = grid, step, constants or OceanConstants(), dtype
        self.layers = len(self.constants.thickness)
        bounds, width = np.deg2rad(grid.latitude_bounds), np.deg2rad(np.diff(grid.longitude[:2])[0])
        middle, height = np.deg2rad(grid.latitude)[:, None], np.abs(np.diff(bounds))[:, None]
        north = bounds[:-1, None]
        tensor = self._tensor
        self.sea = tensor(sea.astype(float))
        self.open_east = self.sea * _east(self.sea)
        self.open_north = self.sea * _north(self.sea)  # none over the northern edge
        self.area = tensor(EARTH_RADIUS**2 * width * np.abs(np.diff(np.sin(bounds)))[:, None])
        self.length_east = tensor(EARTH_RADIUS * height)
        self.length_north = tensor(EARTH_RADIUS * width * np.cos(north))
        self.dx, self.dx_north = tensor(EARTH_RADIUS * width * np.cos(middle)), self.length_north.clamp(min=1.0)
        self.dy = tensor(EARTH_RADIUS * height)
        spacing = np.diff(np.deg2rad(grid.latitude), prepend=2 * bounds[0] - np.deg2rad(grid.latitude[0]))[:, None]
        self.dy_north = tensor(EARTH_RADIUS * np.abs(spacing))
        self.coriolis_corner = tensor(2.0 * ROTATION_RATE * np.sin(north))
        self.dy_south = torch.cat([self.dy_north[1:], self.dy_north[-1:]])
        self.area_corner = self.dx_north * self.dy_north
        self._thinning = tensor(np.cos(middle)), tensor(np.cos(north).clip(min=0.0))
        self._refuse_long_steps(sea)

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.dtype)

    def _refuse_long_steps(self, sea: np.ndarray) -> None:
        c, rows = self.constants, torch.from_numpy(sea.any(1))
        width = float(torch.minimum(self.dx.expand(-1, 1), self.dy)[rows].min())
        shares = [thickness * share for thickness, share in zip(c.thickness, self._shares(), strict=True)]
        wave = np.sqrt(GRAVITY * c.expansion * (WARMEST - c.abyss[0]) * sum(shares)) + 0.5  # with a current of 0.5 m/s
        turning = 2.0 * ROTATION_RATE * np.abs(np.sin(np.deg2rad(self.grid.latitude[sea.any(1)]))).max()
        fastest = np.hypot(turning, 2.0 * wave / width)
        if self.seconds * fastest > 1.7:
            raise ValueError(
                f"A timestep of {self.seconds / 60:g} minutes is too long for cells of {width / 1e3:.0f} km: "
                f"take at most {1.7 / fastest / 60:.0f}, or fewer degrees of latitude."
            )

    def _shares(self) -> list[float]:
        """Return how much warmer than the abyss each layer is at rest, as a share of the surface."""
        depths = np.cumsum([0.0, *self.constants.thickness])
        return [float(np.exp(-0.5 * (a + b - depths[1]) / FALL)) for a, b in pairwise(depths)]

    def at_rest(self, temperature: np.ndarray, salinity: float, members: int = 1) -> Tensor:
        """Return a state at rest. temperature: of the surface in K, (lat, lon); below it nears that of the abyss."""
        c = self.constants
        surface = self._tensor(temperature - c.abyss[0]).clamp(min=0.0)
        state = torch.zeros(members, 5, self.layers, *self.grid.shape, dtype=self.dtype)
        for k, (thickness, share) in enumerate(zip(c.thickness, self._shares(), strict=True)):
            state[:, 0, k] = thickness
            state[:, 1, k] = thickness * share * surface
            state[:, 2, k] = thickness * share * (salinity - c.abyss[1])
        return state

    def temperature(self, state: Tensor) -> Tensor:
        """Return the temperatures of the layers in K, (member, layer, lat, lon)."""
        return state[:, 1] / state[:, 0] + self.constants.abyss[0]

    def salinity(self, state: Tensor) -> Tensor:
        """Return the salinities of the layers in g kg-1, (member, layer, lat, lon)."""
        return state[:, 2] / state[:, 0] + self.constants.abyss[1]

    def _buoyancy(self, warmer: Tensor, saltier: Tensor) -> Tensor:
        """Return the buoyancy in m s-2 of water that is warmer by K and saltier by g kg-1 than the abyss."""
        c = self.constants
        return (GRAVITY * c.expansion) * warmer - (GRAVITY * c.contraction) * saltier

    def surface_height(self, state: Tensor) -> Tensor:
        """Return the height of the sea surface over that of the abyss alone in m, (member, lat, lon)."""
        return self._buoyancy(state[:, 1], state[:, 2]).sum(1) / GRAVITY

    def step(self, state: Tensor, fluxes: SurfaceFluxes) -> tuple[Tensor, Tensor, Tensor]:
        """Return the state one timestep later, and what came in on the way through the surface and from the abyss.

        The two are means over the timestep of the sources of the first three fields, (member, 3, lat, lon), in their
        units per second.
        """
        surface, abyss = torch.zeros_like(state[:, :3, 0]), torch.zeros_like(state[:, :3, 0])
        stage = state
        # the share of the stage in the next state, and its weight in the whole step
        for share, weight in ((1.0, 1.0 / 6.0), (0.25, 1.0 / 6.0), (2.0 / 3.0, 2.0 / 3.0)):
            rate, above, below = self.tendency(stage, fluxes)
            surface, abyss = surface + weight * above, abyss + weight * below
            stage = stage + self.seconds * rate
            if share < 1.0:
                stage = torch.lerp(state, stage, share)
        return stage, surface, abyss

    def tendency(self, state: Tensor, fluxes: SurfaceFluxes) -> tuple[Tensor, Tensor, Tensor]:
        """Return the tendency of the state a second, and the sources at surface and abyss; see `step`."""
        c = self.constants
        h, u, v = state[:, 0], state[:, 3], state[:, 4]
        carried = state[:, :3].clone()
        carried[:, 1:] /= h[:, None]
        rises = (_east(carried) - carried) * self.open_east, (_north(carried) - carried) * self.open_north
        east = self._transport(carried, rises[0], u, _east, _west, self.length_east, self.dx)
        north = self._transport(carried, rises[1], v, _north, _south, self.length_north, self.dy_north)
        rate = torch.empty_like(state)
        rate[:, :3] = (_west(east) - east + _south(north) - north) / self.area
        buoyancy = self._buoyancy(carried[:, 1], carried[:, 2])
        up, down, below = self._exchange(h, carried[:, 1:], buoyancy)
        rate[:, :3] += below
        rate[:, :3, 1:] -= below[:, :, :-1]
        above = self._surface(carried[:, 1, 0], fluxes)
        rate[:, :3, 0] += above
        corner = self.coriolis_corner
        under = buoyancy * h
        under = under.flip(1).cumsum(1).flip(1) - under  # of the layers below
        if c.advection:
            corner = corner + self._vorticity(u, v)
            under = under + 0.25 * (u.square() + _west(u.square()) + v.square() + _south(v.square()))
        moved = up + down + 2.0 * c.friction / (h + torch.cat([h[:, 1:], h[:, -1:]], dim=1)) * self.sea
        moved[:, -1] = up[:, -1] + c.drag * h[:, -1]
        for speed, rise, next_, mean, dx, inside, stress, row in (
            (u, rises[0], _east, _mean_east, self.dx, self.open_east, fluxes.east, 3),
            (v, rises[1], _north, _mean_north, self.dy_north, self.open_north, fluxes.north, 4),
        ):
            steep = self._buoyancy(rise[:, 1], rise[:, 2])
            thick = h + 0.5 * rise[:, 0]
            force = next_(under) - under + (buoyancy + 0.5 * steep) * rise[:, 0].cumsum(1) + 0.5 * thick * steep
            pull = mean(moved) * (torch.cat([speed[:, 1:], torch.zeros_like(speed[:, :1])], dim=1) - speed)
            pull[:, 1:] -= pull[:, :-1].clone()
            pull[:, 0] += mean(stress) / DENSITY
            rate[:, row] = (pull / thick - force / dx + self._friction(speed, row)) * inside
        rate[:, 3] += _mean_south(corner * _mean_east(v)) * self.open_east
        rate[:, 4] -= _mean_west(corner * _mean_north(u)) * self.open_north
        return rate, above, below[:, :, -1]

    def _transport(
        self,
        carried: Tensor,
        rise: Tensor,
        speed: Tensor,
        ahead: Neighbour,
        behind: Neighbour,
        length: Tensor,
        dx: Tensor,
    ) -> Tensor:
        """Return volume, heat and salt through the faces ahead of each cell, a second, (member, 3, layer, lat, lon).

        rise: from each cell to the one ahead, 0 where land is between.
        """
        c = self.constants
        before = behind(rise)
        product = rise * before
        slope = torch.where(product > 0.0, product / (rise + before), 0.0)  # half the harmonic mean: van Leer's
        face = torch.where(speed[:, None] > 0.0, carried + slope, ahead(carried - slope))
        volume = (speed * face[:, 0] - (c.eddies / dx) * rise[:, 0]) * length
        through = face * volume[:, None]
        through[:, 0] = volume
        through[:, 1:] -= (c.diffusivity * length / dx) * (carried[:, :1] + 0.5 * rise[:, :1]) * rise[:, 1:]
        return through

    def _surface(self, warmer: Tensor, fluxes: SurfaceFluxes) -> Tensor:
        """Return the sources of volume, heat and salt at the surface, (member, 3, lat, lon)."""
        abyss = self.constants.abyss
        heat = fluxes.heat + fluxes.restoring * (fluxes.target - abyss[0] - warmer)
        water = fluxes.water.expand_as(heat)
        sources = (water, heat / (DENSITY * HEAT_CAPACITY) + water * warmer, -abyss[1] * water)
        return torch.stack(sources, dim=1) * self.sea

    def _exchange(self, h: Tensor, tracers: Tensor, buoyancy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the water that goes up and down through the lower face of each layer, m s-1, and what it adds above.

        The last is the net source of volume, heat and salt of the layer over it, (member, 3, layer, lat, lon).
        """
        c, day = self.constants, 86400.0
        rest = torch.tensor(c.thickness, dtype=self.dtype).reshape(-1, 1, 1)
        surplus = torch.cumsum(h - rest, dim=1)  # of all water above each interface
        deep = torch.full_like(h[:, :1], 1e6)
        lower = torch.cat([h[:, 1:], deep], dim=1)
        lower_buoyancy = torch.cat([buoyancy[:, 1:], torch.zeros_like(buoyancy[:, :1])], dim=1)
        both = torch.minimum(h, lower)
        up = (c.least - h).clamp(min=0.0) / (c.entrainment * day) + (-surplus).clamp(min=0.0) / (c.overturning * day)
        down = surplus.clamp(min=0.0) / (c.overturning * day)
        mixed = c.vertical / (0.5 * (h + both))
        mixed = mixed + torch.where(buoyancy < lower_buoyancy, both / (c.convection * 3600.0), 0.0)
        up, down = (up + mixed) * self.sea, (down + mixed) * self.sea
        source = torch.cat([tracers[:, :, 1:], torch.zeros_like(tracers[:, :, :1])], dim=2)
        return up, down, torch.cat([(up - down)[:, None], up[:, None] * source - down[:, None] * tracers], dim=1)

    def _vorticity(self, u: Tensor, v: Tensor) -> Tensor:
        """Return the relative vorticity at north-eastern corners, s-1; none at walls."""
        around = (_east(v) - v) * self.dy_north - (_north(u) * _north(self.dx) - u * self.dx)
        inside = self.open_north * _east(self.open_north)
        return around / self.area_corner * inside

    def _friction(self, speed: Tensor, row: int) -> Tensor:
        """Return A lap(speed), with no slip along walls: speeds on land are 0. row: 3 for u, 4 for v."""
        dx, thinning = (self.dx, self._thinning[0]) if row == 3 else (self.dx_north, self._thinning[1])
        around = (_east(speed) - 2.0 * speed + _west(speed)) / dx.square()
        over, under = (_north(speed) - speed) / self.dy_north, (speed - _south(speed)) / self.dy_south
        return self.constants.viscosity * thinning * (around + (over - under) / self.dy)


def _east(field: Tensor) -> Tensor:
    """Return the neighbour to the east of each cell."""
    return torch.roll(field, -1, -1)


def _west(field: Tensor) -> Tensor:
    return torch.roll(field, 1, -1)


def _north(field: Tensor) -> Tensor:
    """Return the neighbour to the north, row before; 0 beyond the first row."""
    return torch.cat([torch.zeros_like(field[..., :1, :]), field[..., :-1, :]], dim=-2)


def _south(field: Tensor) -> Tensor:
    return torch.cat([field[..., 1:, :], torch.zeros_like(field[..., :1, :])], dim=-2)


def _mean_east(field: Tensor) -> Tensor:
    return 0.5 * (field + _east(field))


def _mean_west(field: Tensor) -> Tensor:
    return 0.5 * (field + _west(field))


def _mean_north(field: Tensor) -> Tensor:
    return 0.5 * (field + _north(field))


def _mean_south(field: Tensor) -> Tensor:
    return 0.5 * (field + _south(field))
