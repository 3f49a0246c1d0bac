"""Steps of DYffusion: a forecast to a horizon, and interpolations between it and the start, make the states between.

    x^ = F(x_s, s),    x_(s+1) = x_s + I(x_0, x^, s + 1) - I(x_0, x^, s),    s = 0, ..., h - 1

with I(., ., 0) = x_0 and I(., ., h) = x^: cold sampling. F forecasts the state h timesteps after x_0 from each state on
the way there; I draws noise, the only noise there is, by dropout that stays on. After h timesteps x_h is the next x_0.
Cachay et al. 2024, Spherical DYffusion, arXiv 2406.14798; Rühling Cachay et al. 2023, arXiv 2306.01984.

Both networks read two states, the share s / h, and the forcing of the next timestep; that is the time of I(., ., s +
1), and one timestep after that of I(., ., s), which `lag` tells. F has zeros for the second state. Share and lag move
the norms too, as some norms forget channels that are the same everywhere.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from emulators.interfaces import Constraint, Network, optional
from emulators.layers.conditioned_norms import NumberInNorms
from emulators.layers.sample_draws import Generators
from emulators.state import State
from emulators.steps.step import Step
from emulators.variables import Variable, VariableSet
from emulators.world import Scale, World, timesteps_between

OTHER, SHARE, LAG = "other", "share_of_the_horizon", "lag_of_the_forcing"


class DYffusionStep(Step):
    """One timestep on the way to a horizon of `world.history` timesteps; the memory of a rollout reaches as far back.

    network: the forecaster; a copy with weights of its own is the interpolator. output: residual is a change from the
    last state for the one, and from the line between both states for the other. truncation: as in Step. Raises
    ValueError for a horizon of one timestep, and for networks that are told an interval. norms: how many numbers tell
    the networks' norms the share and the lag, 0 for none.
    """

    def __init__(
        self,
        world: World,
        network: nn.Module,
        constraints: Mapping[str, Constraint] | None = None,
        *,
        norms: int = 16,
        output: Literal["residual", "absolute"] = "residual",
        truncation: Literal["data"] | int | None = "data",
    ) -> None:
        super().__init__(world, network, constraints, output=output, truncation=truncation)
        if world.history < 2:
            raise ValueError(f"step=dyffusion interpolates to a horizon of `history` timesteps; got {world.history}.")
        if unsupported := self.conditioning & {"interval", "lead"}:
            raise ValueError(
                f"step=dyffusion tells a network no {', '.join(sorted(unsupported))}; choose another, such as sfno."
            )
        self.horizon, self.interpolator = world.history, copy.deepcopy(network)
        self.forecaster_time, self.interpolator_time = (
            NumberInNorms(part, norms) if norms else None for part in (network, self.interpolator)
        )

    @classmethod
    def network_world(
        cls, world: World, parts: Collection[str] = (), options: Mapping[str, Any] | None = None
    ) -> World:
        """The World of the Step with one known state, and with another state, share and lag as further forcings."""
        more = VariableSet(
            (
                *(replace(v, name=f"{OTHER}_{v.name}", truncation=None) for v in world.prognostic),
                Variable(SHARE, "1"),
                Variable(LAG, "1"),
            )
        )
        unit = {channel: Scale(0.0, 1.0, 1.0) for channel in more.channels}
        return replace(world, history=1, forcing=world.forcing + more, scales={**world.scales, **unit})

    @property
    def is_random(self) -> bool:
        """Whether the interpolator draws noise."""
        return bool(optional(self.interpolator, Network, "noise_channels"))

    def forward(
        self, history: tuple[State, ...], forcing: State, *, generator: Generators = None, **conditioning: Any
    ) -> State:
        """The State of `world.predicted` at forcing.time, by cold sampling; arguments as of Step."""
        last = history[-1].select(self.world.prognostic.names)
        passed = 0
        if last.origin is not None:
            passed = timesteps_between(self.world.timestep, last.start.time, last.time) % self.horizon
        first = history[-1 - passed].select(self.world.prognostic.names)
        end = self.forecast(last, forcing, passed)
        after = end
        if passed + 1 < self.horizon:
            after = self.interpolated(first, end, forcing, passed + 1, generator=generator)
        if passed:
            before = self.interpolated(first, end, forcing, passed, lag=1, generator=generator)
            size, rows = self.world.prognostic.size, _rows(after)
            cold = _rows(last) + rows[:, :size] - _rows(before)[:, :size]
            after = self._state(torch.cat([cold, rows[:, size:]], dim=1), last, forcing)
        return self.constrained(last, after, forcing)

    def forecast(self, state: State, forcing: State, passed: int) -> State:
        """The State at the horizon from that after `passed` timesteps. forcing: of the next timestep."""
        raw = self._written(
            self.network, self.forecaster_time, state, torch.zeros_like(_rows(state)), forcing, passed, 0, None
        )
        return self._state(self.truncation(self.outputs(raw, _rows(state))), state, forcing)

    def interpolated(
        self, first: State, end: State, forcing: State, passed: int, *, lag: int = 0, generator: Generators = None
    ) -> State:
        """The State after `passed` timesteps, between first and horizon. forcing: `lag` timesteps later."""
        end = end.select(self.world.prognostic.names)
        other = self.prognostic(_rows(end))
        networks = self.interpolator, self.interpolator_time
        raw = self._written(*networks, first, other, forcing, passed, lag, generator)
        line = torch.lerp(_rows(first), _rows(end), passed / self.horizon)
        return self._state(self.truncation(self.outputs(raw, line)), first, forcing)

    def _written(
        self,
        network: nn.Module,
        time_in_norms: NumberInNorms | None,
        state: State,
        other: Tensor,
        forcing: State,
        passed: int,
        lag: int,
        noise: Generators,
    ) -> Tensor:
        """What a network writes, (row, channel, *grid)."""
        fields, time = self.inputs((state,), forcing)
        before, static = fields.split([fields.shape[1] - len(self.static), len(self.static)], dim=1)
        scalar_fields = [torch.full_like(fields[:, :1], number) for number in (passed / self.horizon, float(lag))]
        if time_in_norms is not None:
            time_in_norms(torch.full((len(fields),), passed + 0.5 * lag, device=fields.device))
        drawn = {"generator": noise} if noise is not None and "generator" in self.conditioning else {}
        return network(torch.cat([before, other, *scalar_fields, static], dim=1), time, **drawn).float()

    def _state(self, rows: Tensor, like: State, forcing: State) -> State:
        values = rows.reshape(*like.lead, *rows.shape[1:])
        return State(values, self.world.predicted, forcing.time, like.rank)


def _rows(state: State) -> Tensor:
    """The values of a State with all cases on one axis, (row, channel, *grid)."""
    return state.values.reshape(-1, *state.values.shape[state.channel_axis :])
