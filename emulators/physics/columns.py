"""Columns of air: what the mass of a column is, and how much of it is water.

With half-level pressures p_{k+1/2} = a_{k+1/2} + b_{k+1/2} ps (Simmons & Burridge 1981,
doi:10.1175/1520-0493(1981)109<0758:AEAAMC>2.0.CO;2), dp_k = p_{k+1/2} - p_{k-1/2} and specific humidity q,

    column water  W = 1/g sum_k q_k dp_k,        dry air  M = 1/g sum_k (1 - q_k) dp_k      (kg m-2).

Sums run in float64: a budget is the small difference of large numbers.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from emulators.constants import GRAVITY
from emulators.variables import VariableSet
from emulators.world import Vertical


def closes(variables: VariableSet, vertical: Vertical) -> bool:
    """True where `variables` hold surface pressure and humidity on every layer of a sigma or hybrid coordinate."""
    if vertical.kind not in ("sigma", "hybrid") or "surface_pressure" not in variables:
        return False
    return "specific_humidity" in variables and variables.variable("specific_humidity").size == len(vertical.b) - 1


def layer_thickness(surface_pressure: Tensor, vertical: Vertical) -> Tensor:
    """Pressure thickness of the layers in Pa, top first: (*lead, lat, lon) -> float64 (*lead, level, lat, lon)."""
    if len(vertical.a) != len(vertical.b) or len(vertical.b) < 2:
        raise ValueError(
            f"Layers need as many coefficients a as b, at least 2 half levels; got {len(vertical.a)} and "
            f"{len(vertical.b)} on a vertical coordinate of kind '{vertical.kind}'."
        )
    da, db = (torch.tensor(np.diff(c), dtype=torch.float64).view(-1, 1, 1) for c in (vertical.a, vertical.b))
    return da.to(surface_pressure.device) + db.to(surface_pressure.device) * surface_pressure.double().unsqueeze(-3)


def column_water(specific_humidity: Tensor, surface_pressure: Tensor, vertical: Vertical) -> Tensor:
    """Water vapour of the columns in kg m-2: (*lead, level, lat, lon), top first -> float64 (*lead, lat, lon)."""
    thickness = layer_thickness(surface_pressure, vertical)
    return (specific_humidity.double() * thickness).sum(-3) / GRAVITY


def dry_air(specific_humidity: Tensor, surface_pressure: Tensor, vertical: Vertical) -> Tensor:
    """Dry air of the columns in kg m-2: (*lead, level, lat, lon), top first -> float64 (*lead, lat, lon)."""
    thickness = layer_thickness(surface_pressure, vertical)
    return ((1.0 - specific_humidity.double()) * thickness).sum(-3) / GRAVITY


def area_mean(field: Tensor, weights: np.ndarray) -> Tensor:
    """Mean over the grid with cell areas `weights` of mean 1: (*lead, lat, lon) -> float64 (*lead,)."""
    return (field.double() * torch.as_tensor(weights, dtype=torch.float64, device=field.device)).mean((-2, -1))
