"""Area-weighted L^p losses: mean squared error, mean absolute error, and Huber's joint of the two.

    L = mean over channels and area of  w_c a_ij f((prediction - target) / s_c),    f(e) = |e|^p
    Huber  f(e) = e^2 / 2 where |e| < delta, else delta (|e| - delta / 2)

s_c is the channel's scale in the training period; the channel weights w_c and the cell areas a_ij have mean 1.
Huber 1964, doi 10.1214/aoms/1177703732. Weights: GraphCast, Lam et al. 2023, arXiv 2212.12794; AIFS (anemoi), Lang et
al. 2024, arXiv 2406.01465; SFNO (makani), Bonev et al. 2023, arXiv 2306.03838.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.state import State
from emulators.variables import Variable
from emulators.world import Vertical, World

SURFACE = {
    "graphcast": {
        "10m_u_component_of_wind": 0.1,
        "10m_v_component_of_wind": 0.1,
        "mean_sea_level_pressure": 0.1,
        "total_precipitation_6hr": 0.1,
    },
    "anemoi": {
        "specific_humidity": 0.6,
        "temperature": 6.0,
        "u_component_of_wind": 0.8,
        "v_component_of_wind": 0.5,
        "vertical_velocity": 0.001,
        "geopotential": 12.0,
        "surface_pressure": 10.0,
        "10m_u_component_of_wind": 0.1,
        "10m_v_component_of_wind": 0.1,
        "2m_dewpoint_temperature": 0.5,
        "total_precipitation_6hr": 0.025,
    },
}


class Lp(nn.Module):
    """One number a lead element of two States of the world's predicted variables.

    p: the exponent, at least 1. huber: delta of the Huber loss, which takes the place of p.
    scale: `tendency_std` (diagnostics, which have no tendency, by their std), `std`, or `none` for SI units.
    variable_weights: `uniform` (every channel 1), `graphcast` (every variable 1, shared by its levels; near-surface
    wind, pressure and precipitation 0.1), `anemoi`, `makani` (levels and 2m_temperature 1, other single-level fields
    0.1), or a mapping from variables or channels to weights, 1 where not named.
    level_weights: `uniform`, `graphcast` (p / mean p), `anemoi` (max(0.2, p / 1000 hPa)), `makani` (p / 1000 hPa), or a
    mapping from levels to weights, 1 where not named.
    """

    inverse_scale: Tensor
    channel_weights: Tensor
    area: Tensor

    def __init__(
        self,
        world: World,
        *,
        p: float = 2.0,
        huber: float | None = None,
        scale: str = "tendency_std",
        variable_weights: str | Mapping[str, float] = "uniform",
        level_weights: str | Mapping[float, float] = "uniform",
    ) -> None:
        super().__init__()
        if p < 1 or (huber is not None and huber <= 0):
            raise ValueError(f"Expected p of at least 1 and a positive huber; got p={p} and huber={huber}.")
        self.p, self.huber, self.variables = p, huber, world.predicted
        channel = _channel_weights(world, variable_weights, level_weights)
        area = world.grid.weights.reshape(-1) / world.grid.weights.size
        for name, table in (
            ("inverse_scale", 1.0 / _scales(world, scale)[:, None, None]),
            ("channel_weights", channel / channel.size),
            ("area", area),
        ):
            self.register_buffer(name, torch.as_tensor(table, dtype=torch.float32), persistent=False)

    def forward(self, prediction: State, target: State) -> Tensor:
        for state in (prediction, target):
            if state.variables != self.variables:
                raise ValueError(
                    f"Expected States of {', '.join(self.variables.names)}; got {', '.join(state.variables.names)}."
                )
        values, truth = (_at_least_single(state.values) for state in (prediction, target))
        error = (values - truth) * self.inverse_scale.to(values.dtype)
        means = self._size(error).flatten(-prediction.rank) @ self.area.to(values.dtype)
        return means @ self.channel_weights.to(values.dtype)

    def _size(self, error: Tensor) -> Tensor:
        if self.huber is not None:
            return F.huber_loss(error, torch.zeros_like(error), reduction="none", delta=self.huber)
        if self.p == 2:
            return error.square()
        return error.abs() if self.p == 1 else error.abs().pow(self.p)


def _at_least_single(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _scales(world: World, kind: str) -> np.ndarray:
    """The divisor of each predicted channel."""
    if kind == "none":
        return np.ones(world.output_channels)
    if kind not in ("std", "tendency_std"):
        raise ValueError(f"Expected scale to be 'tendency_std', 'std' or 'none'; got '{kind}'.")
    scales = np.concatenate([world.scale(world.prognostic, kind), world.scale(world.diagnostic, "std")])
    flat = [c for c, s in zip(world.predicted.channels, scales, strict=True) if not s > 0]
    if flat:
        raise ValueError(f"A loss cannot be scaled by a {kind} of zero: leave {', '.join(flat)} out or use scale=none.")
    return scales


def _channel_weights(
    world: World, variable_weights: str | Mapping[str, float], level_weights: str | Mapping[float, float]
) -> np.ndarray:
    """The weight of each predicted channel, mean 1."""
    if not isinstance(variable_weights, str):
        known = {*world.predicted.names, *world.predicted.channels}
        unknown = [name for name in variable_weights if name not in known]
        if unknown:
            raise ValueError(
                f"variable_weights names {', '.join(unknown)}, which is not predicted; "
                f"the variables are {', '.join(world.predicted.names)}."
            )
    if not isinstance(level_weights, str):
        levels = {level for variable in world.predicted for level in variable.levels}
        absent = [level for level in level_weights if level not in levels]
        if absent:
            raise ValueError(f"level_weights names {absent}; the levels are {sorted(levels)}.")
    weights = np.concatenate(
        [
            _variable_weights(v, variable_weights) * _level_weights(v, world.vertical, level_weights)
            for v in world.predicted
        ]
    )
    if weights.min() < 0 or weights.sum() == 0:
        raise ValueError(f"Loss weights must not be negative nor all zero; got {weights.min()} to {weights.max()}.")
    return weights / weights.mean()


def _variable_weights(variable: Variable, scheme: str | Mapping[str, float]) -> np.ndarray:
    if not isinstance(scheme, str):
        whole = scheme.get(variable.name, 1.0)
        return np.array([scheme.get(channel, whole) for channel in variable.channels], dtype=np.float64)
    if scheme == "uniform":
        return np.ones(variable.size)
    if scheme == "graphcast":
        return np.full(variable.size, SURFACE[scheme].get(variable.name, 1.0) / variable.size)
    if scheme == "anemoi":
        return np.full(variable.size, SURFACE[scheme].get(variable.name, 1.0))
    if scheme == "makani":
        return np.full(variable.size, 1.0 if variable.levels or variable.name == "2m_temperature" else 0.1)
    raise ValueError(
        f"Expected variable_weights to be a mapping or one of uniform, graphcast, anemoi, makani; got '{scheme}'."
    )


def _level_weights(variable: Variable, vertical: Vertical, scheme: str | Mapping[float, float]) -> np.ndarray:
    if not isinstance(scheme, str):
        return np.array([scheme.get(level, 1.0) for level in variable.levels] or [1.0], dtype=np.float64)
    if scheme not in ("uniform", "graphcast", "anemoi", "makani"):
        raise ValueError(
            f"Expected level_weights to be a mapping or one of uniform, graphcast, anemoi, makani; got '{scheme}'."
        )
    if scheme == "uniform" or not variable.levels:
        return np.ones(variable.size)
    pressure = _pressure(variable.levels, vertical)
    if scheme == "graphcast":
        return pressure / pressure.mean()
    return np.maximum(0.2, pressure / 1000.0) if scheme == "anemoi" else pressure / 1000.0


def _pressure(levels: tuple[float, ...], vertical: Vertical) -> np.ndarray:
    """Nominal pressure of the levels in hPa, for a surface pressure of 1000 hPa."""
    values = np.asarray(levels, dtype=np.float64)
    if vertical.kind == "sigma" and values.max() <= 1.0:
        return 1000.0 * values
    if vertical.kind == "hybrid":
        half = (np.asarray(vertical.a) + 1e5 * np.asarray(vertical.b)) / 100.0
        full = 0.5 * (half[1:] + half[:-1])
        return full[values.astype(int) - 1]
    return values
