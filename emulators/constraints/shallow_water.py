"""Shallow water: keep mass, and by option energy and potential enstrophy, at their values at the start of the rollout.

    mass        <h>                                     h <- h + <h_start> - <h>
    energy      <h (u^2 + v^2) / 2 + g h^2 / 2>         wind <- a wind
    enstrophy   <(zeta + f)^2 / (2 h)>                  zeta <- a zeta, the rotational wind with it
    both                                                zeta <- a zeta + b laplacian(zeta) / largest eigenvalue

These are the invariants of the shallow-water equations over a flat bottom (Sadourny 1975, doi
10.1175/1520-0469(1975)032<0680:TDOFDM>2.0.CO;2); h is the depth of the fluid. Energy and enstrophy are quadratic in a
and b, which Newton's method finds from global means; b changes small eddies most, and with a it changes the two
invariants in different proportions. If no a and b reach both, the nearest of the iteration is used.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from emulators.constants import GRAVITY, ROTATION_RATE
from emulators.physics.columns import dither, round_keeping_mean
from emulators.sphere.calculus import SphericalCalculus
from emulators.state import State
from emulators.world import World

ITERATIONS = 8
FORMS = {"m": 1.0, "m2 s-2": 1.0 / GRAVITY}


class ShallowWater(nn.Module):
    """Keep the invariants of the shallow-water equations.

    depth: the variable, in m or (as a geopotential) in m2 s-2; winds: the two components. All have one level.
    energy, enstrophy: whether they are kept too (enstrophy on Gaussian grids). rotation: that of the planet, s-1.
    """

    area: Tensor
    pattern: Tensor
    coriolis: Tensor
    calculus: SphericalCalculus  # where enstrophy is kept

    def __init__(
        self,
        world: World,
        *,
        depth: str = "geopotential",
        winds: tuple[str, str] | list[str] = ("u_component_of_wind", "v_component_of_wind"),
        energy: bool = False,
        enstrophy: bool = False,
        rotation: float = ROTATION_RATE,
    ) -> None:
        super().__init__()
        self.depth, self.winds = depth, tuple(winds) if energy or enstrophy else ()
        for name in (depth, *self.winds):
            if name not in world.prognostic or world.prognostic.variable(name).size != 1:
                raise ValueError(
                    f"shallow_water needs {name} among the prognostic variables, with one level; they are "
                    f"{', '.join(world.prognostic.names)}."
                )
        units = world.prognostic.variable(depth).units
        if units not in FORMS:
            raise ValueError(f"The depth of shallow water is in {' or '.join(FORMS)}; {depth} is in '{units}'.")
        if world.lat_lon.kind == "limited_area":
            raise ValueError(f"shallow_water keeps invariants of the whole sphere; got a {world.lat_lon!r}.")
        self.scale, self.energy, self.enstrophy = FORMS[units], energy, enstrophy
        if enstrophy:
            self.calculus = SphericalCalculus(world.lat_lon, dtype=torch.float64)
        area = torch.as_tensor(world.lat_lon.weights / world.lat_lon.weights.sum(), dtype=torch.float64)
        sine = torch.as_tensor(np.sin(np.deg2rad(world.lat_lon.latitude)))[:, None]
        for name, table in (("area", area), ("pattern", dither(tuple(area.shape))), ("coriolis", 2 * rotation * sine)):
            self.register_buffer(name, table, persistent=False)
        self.changes = self.rests_on = (depth, *self.winds)

    def forward(self, before: State, after: State, forcing: State) -> State:
        start, old = before.start, after[self.depth]
        was, now = (state[self.depth].double().reshape(*state.lead, *self.area.shape) for state in (start, after))
        depth = round_keeping_mean(now + self._mean(was) - self._mean(now), old.dtype, self.area, self.pattern)
        after = after.with_(**{self.depth: depth.reshape(old.shape)})
        if not self.winds:
            return after
        h, u, v = self._fields(after)
        start_h, start_u, start_v = self._fields(start)
        potential = self._mean(0.5 * GRAVITY * h * h)
        energy = self._mean(0.5 * start_h * (start_u**2 + start_v**2) + 0.5 * GRAVITY * start_h**2) - potential
        if not self.enstrophy:
            kinetic = self._mean(0.5 * h * (u * u + v * v))
            moves = kinetic > 0.0  # a fluid at rest has no wind to scale
            ratio = torch.where(moves, energy / torch.where(moves, kinetic, 1.0), 1.0)
            factor = ratio.clamp(min=1e-30).sqrt()  # a root's slope at 0 is infinite; depth alone may have more energy
            return self._with_winds(after, factor * u, factor * v)
        zeta = self._curl(start_u, start_v)[0]
        enstrophy = self._mean(0.5 * (zeta + self.coriolis) ** 2 / start_h)
        return self._with_winds(after, *self._rotated(h, u, v, energy, enstrophy))

    def _rotated(self, h: Tensor, u: Tensor, v: Tensor, energy: Tensor, enstrophy: Tensor) -> tuple[Tensor, Tensor]:
        """Return winds whose rotational part is changed so that both invariants, or enstrophy alone, are met."""
        vorticity, eddies, rotational, eddy_wind = self._parts(u, v)
        winds = ((u, v), rotational, eddy_wind)
        kinetic = [[self._mean(0.5 * h * (p[0] * q[0] + p[1] * q[1])) for q in winds] for p in winds]
        spins = (vorticity + self.coriolis, vorticity, eddies)
        spin = [[self._mean(0.5 * p * q / h) for q in spins] for p in spins]
        a, b = torch.zeros_like(energy), torch.zeros_like(energy)
        for _ in range(ITERATIONS):
            excess, by_a, by_b = _quadratic(spin, a, b)
            excess = excess - enstrophy
            if not self.energy:
                a = a - (excess / by_a).clamp(-0.5, 0.5)
                continue
            surplus, energy_by_a, energy_by_b = _quadratic(kinetic, a, b)
            surplus = surplus - energy
            determinant = by_a * energy_by_b - by_b * energy_by_a
            a = a - ((excess * energy_by_b - surplus * by_b) / determinant).clamp(-0.5, 0.5)
            b = b - ((surplus * by_a - excess * energy_by_a) / determinant).clamp(-0.5, 0.5)
        east, north = (w + a * r + b * e for w, r, e in zip((u, v), rotational, eddy_wind, strict=True))
        return east, north

    def _parts(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return vorticity, its scaled Laplacian, and the winds of both, all (*lead, lat, lon)."""
        calculus = self.calculus
        vorticity, coefficients = self._curl(u, v)
        small = coefficients * (calculus.laplacian / calculus.laplacian.min())
        eddies = self._grid(calculus.synthesis(small), u)
        zeros = torch.zeros_like(coefficients)
        whole, fine = (tuple(self._grid(w, u) for w in calculus.winds(c, zeros)) for c in (coefficients, small))
        return vorticity, eddies, whole, fine

    def _curl(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return vorticity (*lead, lat, lon), and its coefficients."""
        columns = [w.reshape(-1, *self.area.shape).permute(2, 1, 0).contiguous() for w in (u, v)]
        coefficients, _ = self.calculus.vorticity_divergence(*columns)
        return self._grid(self.calculus.synthesis(coefficients), u), coefficients

    def _grid(self, field: Tensor, like: Tensor) -> Tensor:
        """Return a field (lon, lat, n) as (*lead, lat, lon)."""
        return field.permute(2, 1, 0).reshape(like.shape)

    def _fields(self, state: State) -> tuple[Tensor, ...]:
        """Return depth in m and winds, float64 (*lead, lat, lon)."""
        shape = (*state.lead, *self.area.shape)
        h, u, v = (state[name].double().reshape(shape) for name in (self.depth, *self.winds))
        return self.scale * h, u, v

    def _with_winds(self, after: State, *winds: Tensor) -> State:
        old = [after[name] for name in self.winds]
        return after.with_(
            **{n: w.reshape(o.shape).to(o.dtype) for n, w, o in zip(self.winds, winds, old, strict=True)}
        )

    def _mean(self, field: Tensor) -> Tensor:
        """Return the global mean, (*lead, 1, 1)."""
        return (field * self.area).sum((-2, -1), keepdim=True)


def _quadratic(form: list[list[Tensor]], a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return x' F x for x = (1, a, b), and its slopes along a and b; F is symmetric."""
    rows = [row[0] + a * row[1] + b * row[2] for row in form]
    return rows[0] + a * rows[1] + b * rows[2], 2.0 * rows[1], 2.0 * rows[2]
