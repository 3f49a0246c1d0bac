"""Columns of air: the mass of a column, the water in it, and the variables that budgets and balances need.

With half-level pressures p_{k+1/2} = a_{k+1/2} + b_{k+1/2} ps (Simmons & Burridge 1981,
doi:10.1175/1520-0493(1981)109<0758:AEAAMC>2.0.CO;2), dp_k = p_{k+1/2} - p_{k-1/2} and specific humidity q,

    column water  W = 1/g sum_k q_k dp_k,        dry air  M = 1/g sum_k (1 - q_k) dp_k      (kg m-2).

On pressure levels a layer reaches halfway to its neighbours, the highest to the top of the atmosphere, and layers below
the surface do not count: dp_k = max(0, min(p_{k+1/2}, ps) - p_{k-1/2}), the lowest layer ending at ps. So dry air and
water weigh ps / g over mountains too. The convention of CREDIT (Sha et al. 2025, arXiv 2501.05648) is `fixed`: the
trapezoidal rule from the highest to the lowest level, without regard to surface pressure.

Sums run in float64: a budget is the small difference of large numbers.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from emulators.constants import GRAVITY, REFERENCE_PRESSURE
from emulators.state import State
from emulators.variables import VariableSet
from emulators.world import Vertical, World

# Names of WeatherBench 2 (ours): those of ACE and CREDIT.
NAMES_ELSEWHERE = {
    "temperature": ("air_temperature_0..N", "T"),
    "specific_humidity": ("specific_total_water_0..N", "Q"),
    "u_component_of_wind": ("eastward_wind_0..N", "U"),
    "v_component_of_wind": ("northward_wind_0..N", "V"),
    "surface_pressure": ("PRESsfc", "SP"),
    "geopotential_at_surface": ("HGTsfc times g", "Z_GDS4_SFC"),
}


def require_variable(world: World, part: str, name: str, role: str) -> None:
    """Raise ValueError if the world lacks a variable in a role; the message names the variable in other systems."""
    variables = world.by_role[role]
    if name in variables:
        return
    ace, credit = NAMES_ELSEWHERE[name]
    names = ", ".join(variables.names) or "none"
    raise ValueError(
        f"{part} needs the {role} variable {name} (ACE: {ace}; CREDIT: {credit}); the {role} variables are {names}. "
        f"List it under variables.{role}."
    )


def surface_geopotential(world: World, part: str) -> Tensor:
    """Return the geopotential of the ground in m2 s-2, float64 (*grid).

    Raises ValueError if it is not a static variable.
    """
    try:
        require_variable(world, part, "geopotential_at_surface", "static")
    except ValueError as error:
        raise ValueError(f"{error} On a flat planet say topography=false.") from None
    row = world.static.slice("geopotential_at_surface").start
    return torch.as_tensor(np.asarray(world.static_fields)[row], dtype=torch.float64)


Convention = Literal["surface", "fixed"]
GOLDEN = 0.5 * (math.sqrt(5.0) - 1.0)  # its multiples spread over 0..1 more evenly than any others


class Columns(nn.Module):
    """Compute the thickness of a world's layers, sums over them and means over the globe. All results are float64.

    levels: values of the vertical coordinate of the variables to be summed, in their order (hPa on pressure levels).
    convention: `surface` ends columns at the surface pressure, `fixed` at the lowest pressure level.
    Raises ValueError if the thickness of the layers cannot be known.
    """

    area: Tensor
    upper: Tensor
    lower: Tensor
    slope: Tensor

    def __init__(self, world: World, levels: tuple[float, ...], *, convention: Convention = "surface") -> None:
        super().__init__()
        if convention not in ("surface", "fixed"):
            raise ValueError(f"Columns end at the 'surface' or are 'fixed'; got '{convention}'.")
        self.vertical, self.rank, self.count = world.vertical, len(world.grid.shape), len(levels)
        self.is_fixed = convention == "fixed"
        if convention == "surface" and "surface_pressure" not in world.predicted:
            raise ValueError("Columns that end at the surface need surface_pressure among the predicted variables.")
        if world.vertical.kind in ("sigma", "hybrid"):
            tables = self._layers(world.vertical)
        elif world.vertical.kind == "pressure":
            tables = self._pressure_layers(np.asarray(levels, dtype=np.float64) * 100.0)
        else:
            raise ValueError(f"Columns need levels of sigma, hybrid or pressure; got '{world.vertical.kind}'.")
        for name, table in zip(("upper", "lower", "slope"), tables, strict=True):
            column = torch.as_tensor(table, dtype=torch.float64).reshape(-1, *[1] * self.rank)
            self.register_buffer(name, column, persistent=False)
        area = torch.as_tensor(world.grid.weights / world.grid.weights.sum(), dtype=torch.float64)
        self.register_buffer("area", area, persistent=False)
        self.has_offsets = world.vertical.kind == "hybrid"
        self._rounding: tuple[Tensor, Tensor] | None = None

    @property
    def nominal(self) -> Tensor:
        """The weights with which profiles are rounded, float64 (level, *grid)."""
        return self._for_rounding()[0]

    @property
    def pattern(self) -> Tensor:
        """The pattern by which numbers of profiles are rounded up (`dither`), float64 (level, *grid)."""
        return self._for_rounding()[1]

    def _for_rounding(self) -> tuple[Tensor, Tensor]:
        """Return both, made at the first call: each is as large as a profile, and sums alone need neither."""
        if self._rounding is None or self._rounding[0].device != self.area.device:
            nominal = (self.lower - self.upper + self.slope * REFERENCE_PRESSURE).clamp(max=REFERENCE_PRESSURE)
            pattern = dither((self.count, *self.area.shape)).to(self.area.device)
            self._rounding = nominal * self.area, pattern
        return self._rounding

    def _layers(self, vertical: Vertical) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return a of the upper and of the lower bounds, and the difference of their b."""
        if self.is_fixed:
            raise ValueError("Layers of sigma or hybrid levels follow the surface pressure; say columns=surface.")
        a, b = np.asarray(vertical.a), np.asarray(vertical.b)
        if len(a) != self.count + 1 or len(b) != self.count + 1:
            raise ValueError(
                f"Columns need every layer: {max(len(b) - 1, 0)} layers lie between the half levels of the data, "
                f"and the variables have {self.count} levels."
            )
        return a[:-1], a[1:], np.diff(b)

    def _pressure_layers(self, pressure: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if len(pressure) < 2 or len(set(pressure)) < len(pressure):
            raise ValueError(f"Columns need at least 2 different pressure levels; got {(pressure / 100).tolist()} hPa.")
        order = np.argsort(pressure)
        middle = 0.5 * (pressure[order][1:] + pressure[order][:-1])
        ends = (pressure.min(), pressure.max()) if self.is_fixed else (0.0, np.inf)
        upper, lower = np.empty_like(pressure), np.empty_like(pressure)
        upper[order], lower[order] = np.append(ends[0], middle), np.append(middle, ends[1])
        return upper, lower, np.zeros_like(pressure)

    def thickness(self, state: State) -> Tensor:
        """Return the pressure thickness of the layers in Pa, (*lead, level, *grid); 0 for levels below the surface."""
        if self.is_fixed:
            return (self.lower - self.upper).expand(*state.lead, -1, *self.area.shape)
        pressure = state["surface_pressure"].double().unsqueeze(-1 - self.rank)
        if self.vertical.kind == "pressure":
            return (torch.minimum(self.lower, pressure) - self.upper).clamp(min=0.0)
        return self.lower - self.upper + self.slope * pressure

    def sum(self, field: Tensor, thickness: Tensor) -> Tensor:
        """Return 1/g sum of field dp: (*lead, level, *grid) -> (*lead, *grid), kg m-2 times the field's units."""
        return column_integral(field, thickness, -1 - self.rank)

    def integral(self, field: Tensor, state: State) -> Tensor:
        """Return 1/g sum of field dp: (*lead, level, *grid) -> (*lead, *grid), without forming the thickness.

        On layers dp = da + db ps, so that the sum over levels is a product with da and db.
        """
        if self.vertical.kind == "pressure":
            return self.sum(field, self.thickness(state))
        flat, shape = field.double().flatten(-self.rank), (*field.shape[: -1 - self.rank], *self.area.shape)
        integral = (self.slope.reshape(1, -1) @ flat).reshape(shape) * state["surface_pressure"].double()
        if self.has_offsets:
            integral = integral + ((self.lower - self.upper).reshape(1, -1) @ flat).reshape(shape)
        return integral / GRAVITY

    def weight(self, state: State) -> Tensor:
        """Return the mass of the columns in kg m-2, (*lead, *grid)."""
        if self.vertical.kind == "pressure":
            return self.thickness(state).sum(-1 - self.rank) / GRAVITY
        pressure = state["surface_pressure"].double()
        return ((self.lower - self.upper).sum() + self.slope.sum() * pressure) / GRAVITY

    def mean(self, field: Tensor) -> Tensor:
        """Return the mean over the area of the grid: (*lead, *grid) -> (*lead, 1, 1), with the grid's axes kept."""
        return (field.double() * self.area).sum(tuple(range(-self.rank, 0)), keepdim=True)

    def surface_pressure(self, dry: Tensor, share: Tensor) -> Tensor:
        """Return the surface pressure under which columns hold `dry` Pa of dry air: the inverse of sum share dp.

        dry: (*lead, *grid). share: dry air in the air of each layer, 1 - q, (*lead, level, *grid), float64.
        """
        level = -1 - self.rank
        if self.vertical.kind in ("sigma", "hybrid"):
            return (dry - (share * (self.lower - self.upper)).sum(level)) / (share * self.slope).sum(level)
        order = torch.argsort(self.upper.flatten())
        share = share.index_select(level, order)
        whole = self.lower.index_select(0, order) - self.upper.index_select(0, order)
        filled = share.narrow(level, 0, self.count - 1) * whole[:-1]
        above = torch.cat([torch.zeros_like(share.narrow(level, 0, 1)), filled.cumsum(level)], dim=level)
        thickness = ((dry.unsqueeze(level) - above) / share).clamp(min=0.0)
        return torch.minimum(thickness, whole).sum(level)


def round_keeping_mean(exact: Tensor, dtype: torch.dtype, weights: Tensor, pattern: Tensor) -> Tensor:
    """Return `exact` (float64) in another precision, with its weighted mean kept far beyond the rounding of one number.

    A shift of all numbers by the same amount leaves them equally far from the floats below: they would all be rounded
    the same way, and the shift be lost. So a fixed pattern (`dither`, over the axes of the mean, the last ones) decides
    which are rounded up; the remaining error of the mean is added to all before they are rounded again. Numbers that
    are floats already stay.
    """
    if dtype == torch.float64:
        return exact
    axes = tuple(range(-pattern.ndim, 0))
    with torch.no_grad():
        rounded = exact.to(dtype)
        step = torch.nextafter(rounded, torch.full((), torch.inf, dtype=dtype, device=rounded.device)) - rounded
        push = step * pattern
        lost = (weights * (exact - (exact + push).to(dtype).double())).sum(axes, keepdim=True)
        push = push + lost / weights.expand_as(exact).sum(axes, keepdim=True)
    return (exact + push).to(dtype)


def dither(shape: tuple[int, ...]) -> Tensor:
    """Return numbers between -0.49 and 0.49, evenly spread over this range in any part of the array, float64."""
    multiples = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64) * GOLDEN
    return (0.98 * (multiples.frac() - 0.5)).reshape(shape)


def has_closed_columns(variables: VariableSet, vertical: Vertical) -> bool:
    """Return True if `variables` have surface pressure, and humidity on every layer of a sigma or hybrid coordinate."""
    if vertical.kind not in ("sigma", "hybrid") or "surface_pressure" not in variables:
        return False
    return "specific_humidity" in variables and variables.variable("specific_humidity").size == len(vertical.b) - 1


def layer_thickness(surface_pressure: Tensor, vertical: Vertical, rank: int = 2) -> Tensor:
    """Return the layers' pressure thickness in Pa, top first: (*lead, *grid) -> float64 (*lead, level, *grid).

    rank: number of grid dimensions.
    """
    if len(vertical.a) != len(vertical.b) or len(vertical.b) < 2:
        raise ValueError(
            f"Layers need as many coefficients a as b, at least 2 half levels; got {len(vertical.a)} and "
            f"{len(vertical.b)} on a vertical coordinate of kind '{vertical.kind}'."
        )
    column, pressure = (-1, *[1] * rank), surface_pressure.double().unsqueeze(-1 - rank)
    da, db = (pressure.new_tensor(np.diff(c)).view(column) for c in (vertical.a, vertical.b))
    return da + db * pressure


def column_integral(field: Tensor, thickness: Tensor, level: int = -3) -> Tensor:
    """Return 1/g sum of field dp over the axis `level`, float64; thickness: dp in Pa."""
    return (field.double() * thickness).sum(level) / GRAVITY


def column_water(specific_humidity: Tensor, surface_pressure: Tensor, vertical: Vertical, rank: int = 2) -> Tensor:
    """Return the columns' water vapour in kg m-2: (*lead, level, *grid), top first -> float64 (*lead, *grid)."""
    return column_integral(specific_humidity, layer_thickness(surface_pressure, vertical, rank), -1 - rank)


def dry_air(specific_humidity: Tensor, surface_pressure: Tensor, vertical: Vertical, rank: int = 2) -> Tensor:
    """Return the dry air of the columns in kg m-2: (*lead, level, *grid), top first -> float64 (*lead, *grid)."""
    thickness = layer_thickness(surface_pressure, vertical, rank)
    if vertical.dry:
        return thickness.sum(-1 - rank) / GRAVITY
    return column_integral(1.0 - specific_humidity.double(), thickness, -1 - rank)


def area_mean(field: Tensor, weights: np.ndarray) -> Tensor:
    """Return the mean over the grid with cell areas `weights` of mean 1: (*lead, *grid) -> float64 (*lead,)."""
    area = torch.as_tensor(weights, dtype=torch.float64, device=field.device)
    return (field.double() * area).flatten(-area.ndim).mean(-1)
