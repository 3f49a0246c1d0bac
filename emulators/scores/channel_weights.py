"""Scale and weight of each predicted channel in an error, shared by the losses.

    L = mean over channels of  w_c f(error / s_c),    mean over c of w_c = 1

Weights: GraphCast, Lam et al. 2023, arXiv 2212.12794; AIFS (anemoi), Lang et al. 2024, arXiv 2406.01465; SFNO (makani),
Bonev et al. 2023, arXiv 2306.03838.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from emulators.state import State
from emulators.variables import Variable
from emulators.world import Vertical, World, timesteps_between

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


class ChannelWeights(nn.Module):
    """Hold the scale and weight of each predicted channel of a world, and apply them.

    scale: `tendency_std`, the standard deviation of the change over the interval of the step that made the prediction
    (diagnostic variables, which have no tendency, by their std), `std`, or `none` for SI units.
    variable_weights: `uniform` (every channel 1), `graphcast` (every variable 1, shared by its levels; near-surface
    wind, pressure and precipitation 0.1), `anemoi`, `makani` (levels and 2m_temperature 1, other single-level fields
    0.1), or a mapping from variables or channels to weights, 1 for those not named. level_weights: `uniform`,
    `graphcast` (p / mean p), `anemoi` (max(0.2, p / 1000 hPa)), `makani` (p / 1000 hPa), or a mapping from levels to
    weights, 1 for those not named. Raises ValueError for unknown schemes, names or levels, for weights that are
    negative or all zero, and scales of zero.
    """

    inverse_scales: Tensor
    weights: Tensor

    def __init__(
        self,
        world: World,
        scale: str = "tendency_std",
        variable_weights: str | Mapping[str, float] = "uniform",
        level_weights: str | Mapping[float, float] = "uniform",
    ) -> None:
        super().__init__()
        self.variables, self.timestep = world.predicted, world.timestep
        self.intervals = world.intervals if scale == "tendency_std" else ()
        weights = channel_weights(world, variable_weights, level_weights)
        scales = np.stack([channel_scales(world, scale, n) for n in self.intervals or (1,)])
        inverse = (1.0 / scales).reshape(*scales.shape, *(1 for _ in world.grid.shape))
        for name, table in (("inverse_scales", inverse), ("weights", weights / weights.size)):
            self.register_buffer(name, torch.as_tensor(table, dtype=torch.float32), persistent=False)

    def difference(self, prediction: State, target: State) -> Tensor:
        """Return prediction - target, (*lead, channel, *grid), in the States' units, in single precision or better."""
        for state in (prediction, target):
            if state.variables != self.variables:
                expected, got = (", ".join(variables.names) for variables in (self.variables, state.variables))
                raise ValueError(f"Expected States of {expected}; got {got}.")
        return at_least_single(prediction.values) - at_least_single(target.values)

    def row(self, prediction: State) -> int:
        """Return the row of the tables for the interval of the step that made a prediction; 0 for data."""
        origin = prediction.origin
        if origin is None or not self.intervals:
            return 0
        interval = timesteps_between(self.timestep, origin.before.time, prediction.time)
        if interval not in self.intervals:
            raise ValueError(
                f"A loss scaled by tendency_std needs the change over {interval} timesteps, which was not measured; "
                f"known are intervals of {', '.join(map(str, self.intervals))}. Take them for objective.intervals, "
                "scales of `emul data statistics intervals=...`, or scale=std in the loss."
            )
        return self.intervals.index(interval)

    def inverse_scale(self, prediction: State) -> Tensor:
        """Return 1 / s of each channel for a prediction, (channel, *1)."""
        return self.inverse_scales[self.row(prediction)]

    def scaled(self, values: Tensor, prediction: State) -> Tensor:
        """Return values in units of the channel's scale for a prediction, in single precision or better.

        Both (*lead, channel, *grid).
        """
        values = at_least_single(values)
        return values * self.inverse_scale(prediction).to(values.dtype)

    def mean(self, values: Tensor) -> Tensor:
        """Return the weighted mean over channels, (*lead, channel) -> (*lead)."""
        return (values * self.weights.to(values.dtype)).sum(dim=-1)


class AreaChannelWeights(ChannelWeights):
    """Weigh channels and the areas of the grid's cells; options as in ChannelWeights."""

    area: Tensor

    def __init__(
        self,
        world: World,
        scale: str = "tendency_std",
        variable_weights: str | Mapping[str, float] = "uniform",
        level_weights: str | Mapping[float, float] = "uniform",
    ) -> None:
        super().__init__(world, scale, variable_weights, level_weights)
        self.rank = len(world.grid.shape)
        area = torch.as_tensor(world.grid.weights.reshape(-1) / world.grid.weights.size, dtype=torch.float32)
        self.register_buffer("area", area, persistent=False)

    def mean(self, values: Tensor) -> Tensor:
        """Return the weighted mean over channels and area, (*lead, channel, *grid) -> (*lead)."""
        return super().mean(values.flatten(-self.rank) @ self.area.to(values.dtype))


def at_least_single(values: Tensor) -> Tensor:
    """Return values in single precision, or in double precision if they have it."""
    return values if values.dtype == torch.float64 else values.float()


def channel_scales(world: World, kind: str, interval: int = 1) -> np.ndarray:
    """Return the scale of each predicted channel, shape (channel,). interval: of changes, in timesteps."""
    if kind == "none":
        return np.ones(world.output_channels)
    if kind not in ("std", "tendency_std"):
        raise ValueError(f"Expected scale to be 'tendency_std', 'std' or 'none'; got '{kind}'.")
    changes = kind == "tendency_std"
    prognostic = world.change_std(world.prognostic, interval) if changes else world.scale(world.prognostic, kind)
    divisors = np.concatenate([prognostic, world.scale(world.diagnostic, "std")])
    flat = [c for c, s in zip(world.predicted.channels, divisors, strict=True) if not s > 0]
    if flat:
        raise ValueError(f"A loss cannot be scaled by a {kind} of zero: leave {', '.join(flat)} out or use scale=none.")
    return divisors


def channel_weights(
    world: World, variable_weights: str | Mapping[str, float], level_weights: str | Mapping[float, float]
) -> np.ndarray:
    """Return the weight of each predicted channel, mean 1, shape (channel,)."""
    if not isinstance(variable_weights, str):
        names = {*world.predicted.names, *world.predicted.channels}
        unknown = [name for name in variable_weights if name not in names]
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
    """Return the nominal pressure of the levels in hPa, for a surface pressure of 1000 hPa."""
    values = np.asarray(levels, dtype=np.float64)
    if vertical.kind == "height":
        raise ValueError("These level_weights go by pressure, and the levels are heights; name weights level by level.")
    if vertical.kind == "sigma" and values.max() <= 1.0:
        return 1000.0 * values
    if vertical.kind in ("sigma", "hybrid"):
        half = (np.asarray(vertical.a) + 1e5 * np.asarray(vertical.b)) / 100.0
        full = 0.5 * (half[1:] + half[:-1])
        if vertical.kind == "sigma" and values.max() > len(full):  # thousandths of sigma, as the planet has them
            return values
        if any(level not in range(1, len(full) + 1) for level in levels):
            raise ValueError(
                f"Pressures of {vertical.kind} levels need levels numbered 1 to {len(full)} from the top; got "
                f"{', '.join(f'{level:g}' for level in levels)}. Name weights level by level in level_weights."
            )
        return full[values.astype(int) - 1]
    return values
