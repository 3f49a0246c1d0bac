"""Steps that make further members of an ensemble from a few of them, at the same time, by diffusion.

    y = (member - mean of seeds) / error_std,     y ~ sampler(network(seeds, forcing, noisy y, noise level))

The seeds are the first `seeds` of the `members` that the data hold at the time of the target, as forcings named
member_1_temperature and so on. Training draws seeds and another member anew for each sample: generative emulation. With
`truth` above 0 that share of targets is the truth in the member's place, so that samples learn what the ensemble gets
wrong: generative post-processing. SEEDS, Li et al. 2023, arXiv 2306.14066; there samples are of anomalies from a
climatology, here of differences from the mean of the seeds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from emulators.interfaces import Constraint, Sampler
from emulators.layers.sample_draws import sample_generators
from emulators.state import State, Window
from emulators.steps.denoising import LEVEL, NOISY, Conditions, DenoisingStep
from emulators.variables import Variable, VariableSet, member_name
from emulators.world import Scale, World

SEED = "seed"


class SeedsStep(DenoisingStep):
    """Sample a member of the ensemble at the time of the target; nothing depends on the history.

    seeds: members that a sample is conditioned on. members: that the data hold, of which training draws. truth: share
    of targets of training that are the truth. Others as in DenoisingStep; `measure` finds error_std, the rms difference
    of a member from the mean of seeds. Raises ValueError for fewer members than seeds and one.
    """

    others: Tensor

    def __init__(
        self,
        world: World,
        network: nn.Module,
        constraints: Mapping[str, Constraint] | None = None,
        sampler: Sampler | None = None,
        *,
        seeds: int = 2,
        members: int = 8,
        truth: float = 0.0,
        process: Literal["edm", "flow", "vp"] = "edm",
        data_std: float = 1.0,
        noise: Literal["point", "degree", "coefficient"] = "point",
        norms: int = 16,
        truncation: Literal["data"] | int | None = "data",
    ) -> None:
        _refuse_few(seeds, members)
        if not 0.0 <= truth <= 1.0:
            raise ValueError(f"step.truth must be a share in [0, 1]; got {truth:g}.")
        options: dict[str, Any] = {"process": process, "data_std": data_std, "noise": noise, "norms": norms}
        super().__init__(world, network, constraints, sampler, output="absolute", truncation=truncation, **options)
        self.seeds, self.truth = seeds, truth
        self.groups = [[v.name for v in _members(world, n)] for n in range(1, members + 1)]
        names = {name for group in self.groups for name in group}
        owners = [variable.name for variable in world.forcing for _ in variable.channels]
        places = [place for place, owner in enumerate(owners) if owner not in names]
        self.register_buffer("others", torch.tensor(places, dtype=torch.int64), persistent=False)
        self.register_buffer("error_std", torch.ones(world.output_channels, *[1] * len(world.grid.shape)))

    @classmethod
    def data_world(cls, world: World, options: Mapping[str, Any]) -> World:
        """The World with the fields of all members as further forcings."""
        members = [copy for n in range(1, int(options["members"]) + 1) for copy in _members(world, n)]
        return replace(world, forcing=world.forcing + VariableSet(tuple(members)))

    @classmethod
    def network_world(
        cls, world: World, parts: Collection[str] = (), options: Mapping[str, Any] | None = None
    ) -> World:
        """The World with the mean of the seeds as known state; seeds, noisy channels and noise level as forcings."""
        sizes = options or {}
        seeds, members = int(sizes["seeds"]), int(sizes["members"])
        _refuse_few(seeds, members)
        names = {copy.name for n in range(1, members + 1) for copy in _members(world, n)}
        others = tuple(variable for variable in world.forcing if variable.name not in names)
        read = [_copies(world, f"{SEED}_{n}") for n in range(1, seeds + 1)]
        noisy = _copies(world, NOISY)
        added = (*(copy for copies in read for copy in copies), *noisy, Variable(LEVEL, "1"))
        scales = {**world.scales, LEVEL: Scale(0.0, 1.0, 1.0)}
        scales |= {channel: Scale(0.0, 1.0, 1.0) for channel in VariableSet(noisy).channels}
        scaled = [channel for channel in world.predicted.channels if channel in world.scales]
        scales |= {f"{SEED}_{n}_{channel}": world.scales[channel] for n in range(1, seeds + 1) for channel in scaled}
        return replace(world, history=1, forcing=VariableSet((*others, *added)), scales=scales)

    def conditions(self, history: tuple[State, ...], forcing: State, conditioning: Mapping[str, Any]) -> Conditions:
        """What a sample at forcing.time is conditioned on: the first seeds."""
        last = history[-1].select(self.world.prognostic.names)
        return self.conditions_of(self.members_of(forcing, last)[:, : self.seeds], last, forcing, conditioning)

    def restored_pair(self, window: Window, levels: Tensor) -> tuple[State, State, Tensor]:
        """A member, or the truth, restored from noise beside seeds that are drawn, itself, and each case's weight."""
        last, target = window.history[-1].select(self.world.prognostic.names), window.target[0]
        members = self.members_of(window.forcing[0], last)
        generators, count = sample_generators(len(members)), members.shape[1]
        order = torch.stack([torch.randperm(count, generator=g) for g in generators]).to(members.device)
        is_truth = torch.stack([torch.rand((), generator=g) < self.truth for g in generators]).to(members.device)
        drawn = members[torch.arange(len(members), device=members.device)[:, None], order[:, : self.seeds + 1]]
        truth = target.select(self.world.predicted.names).values.reshape(drawn[:, 0].shape)
        values = torch.where(is_truth.reshape(-1, *[1] * (truth.ndim - 1)), truth, drawn[:, -1])
        clean = State(values.reshape(*last.lead, *values.shape[1:]), self.world.predicted, target.time, last.rank)
        known = self.conditions_of(drawn[:, :-1], last, window.forcing[0], {})
        state, weight = self.restored_from(known, clean, levels)
        return state, clean, weight

    @torch.no_grad()
    def measure(self, windows: Iterable[Window]) -> None:
        """Measure the rms difference of a member from the mean of seeds, channel by channel, over all windows."""
        area = torch.as_tensor(self.world.grid.weights, dtype=torch.float64)
        total, count = torch.zeros(self.world.output_channels, dtype=torch.float64), 0
        for window in windows:
            members = self.members_of(window.forcing[0], window.history[-1]).double().cpu()
            error = members[:, self.seeds] - members[:, : self.seeds].mean(1)
            total += (error.square() * area).flatten(2).mean(-1).sum(0)
            count += len(error)
        if not count or not (total > 0).all():
            raise ValueError("Members are compared with the mean of seeds in the training split; there, none differ.")
        self.error_std.copy_((total / count).sqrt().reshape(self.error_std.shape))

    def members_of(self, forcing: State, last: State) -> Tensor:
        """The fields of all members at forcing.time, (row, member, predicted channel, *grid), rows as of `last`."""
        fields = torch.stack([forcing.select(names).values for names in self.groups], dim=-2 - forcing.rank)
        fields = fields.expand(*last.lead, *fields.shape[-2 - forcing.rank :])
        return fields.reshape(-1, *fields.shape[-2 - forcing.rank :])

    def conditions_of(self, seeds: Tensor, last: State, forcing: State, conditioning: Mapping[str, Any]) -> Conditions:
        """What a sample is conditioned on. seeds: (row, seed, predicted channel, *grid)."""
        mean, normal = seeds.mean(1), self.predicted(seeds)
        prescribed = self.forcing(forcing.values).index_select(forcing.channel_axis, self.others)
        lead_shape = *last.lead, *prescribed.shape[forcing.channel_axis :]
        others = prescribed.expand(lead_shape).reshape(len(mean), -1, *mean.shape[2:])
        size = self.world.prognostic.size
        before = torch.cat([self.predicted(mean)[:, :size], others, normal.flatten(1, 2)], dim=1)
        static = self.static.expand(len(mean), *self.static.shape)
        seconds = torch.as_tensor(forcing.time.astype(np.int64), device=mean.device).expand(last.lead).reshape(-1)
        forecast = State(mean.reshape(*last.lead, *mean.shape[1:]), self.world.predicted, forcing.time, last.rank)
        keywords = {**self.hours(last, forcing, mean.device), **self._flattened(conditioning, last)}
        return Conditions(before, static, seconds, keywords, last, forcing, forecast)


def _copies(world: World, prefix: str) -> tuple[Variable, ...]:
    """The predicted variables under another name."""
    return tuple(replace(variable, name=f"{prefix}_{variable.name}", truncation=None) for variable in world.predicted)


def _members(world: World, number: int) -> tuple[Variable, ...]:
    """The predicted variables of one member."""
    return tuple(replace(v, name=member_name(number, v.name), truncation=None) for v in world.predicted)


def _refuse_few(seeds: int, members: int) -> None:
    if seeds < 1 or members <= seeds:
        raise ValueError(
            f"step.members must be more than step.seeds, and that at least 1; got {members} members, {seeds} seeds."
        )
