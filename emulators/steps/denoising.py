"""Steps of generative networks: a sampler makes the next State from noise, by a network that restores noisy ones.

    y = (next - last) / tendency_std, or the next State normalised (output=absolute), or (next - forecast) / its error
    y ~ sampler(network),   network: (what a Step reads, noisy y, noise level) -> y

The network is any network, built on a World with more forcings: the noisy channels, their noise level, and the
forecast of the Step whose errors are sampled, where there is one. The level moves the network's norms too, as noise
does in `layers.noise`. Members of an ensemble draw from the generators of the rollout. Without one a network in
evaluation starts from noise zero, which leads near the mean; in training each sample draws its own. Around the last
State: GenCast, Price et al. 2023, arXiv 2312.15796; around a forecast: ArchesWeatherGen, Couairon et al. 2024, arXiv
2412.12971.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from emulators.interfaces import Constraint, Sampler
from emulators.layers.conditioned_norms import Pooled, norm_shifts
from emulators.layers.noise import FieldNoise
from emulators.layers.noise_levels import LEVEL, LevelEmbedding, Process
from emulators.layers.sample_draws import Generators, sample_generators
from emulators.state import Origin, State, Window
from emulators.steps.step import Step
from emulators.variables import Variable, VariableSet, member_name
from emulators.world import Scale, World

FORECAST, NOISY, SEED = "forecast", "noisy", "seed"


@dataclass(frozen=True)
class Conditions:
    """Hold what a sample is conditioned on: the network's inputs without noise, and the forecast around which it is.

    before, after: inputs that come before and after the noisy channels, (batch, channel, *grid).
    """

    before: Tensor
    after: Tensor
    time: Tensor
    conditioning: Mapping[str, Tensor]
    last: State
    forcing: State
    forecast: State | None


class DenoisingStep(Step):
    """Make one timestep of a generative emulator.

    sampler: makes a sample at every step. process: how noise is added, edm, flow or vp. data_std: standard deviation of
    what is restored, of edm. noise: spectrum of `layers.noise.FieldNoise`. norms: how many numbers tell the network's
    norms the noise level, 0 for none; a network that takes `noise_level` is told it itself. forecast: a trained Step,
    at rest, whose errors are sampled; `measure` finds their scale. output, reads, writes, truncation: as in Step;
    `reads` names the noisy channels `noisy_<channel>`.
    """

    error_std: Tensor
    frames = 1

    def __init__(
        self,
        world: World,
        network: nn.Module,
        constraints: Mapping[str, Constraint] | None = None,
        sampler: Sampler | None = None,
        forecast: Step | None = None,
        *,
        process: Literal["edm", "flow", "vp"] = "edm",
        data_std: float = 1.0,
        noise: Literal["point", "degree", "coefficient"] = "point",
        norms: int = 16,
        output: Literal["residual", "absolute"] = "residual",
        reads: Sequence[str] | None = None,
        writes: Sequence[str] | None = None,
        truncation: Literal["data"] | int | None = "data",
    ) -> None:
        parts = [] if forecast is None else [FORECAST]
        inner = None if reads is None else DenoisingStep.network_world(world, parts)
        options: Any = {"output": output, "reads": reads, "writes": writes, "truncation": truncation, "inner": inner}
        super().__init__(world, network, constraints, **options)
        if sampler is None:
            raise ValueError("A generative step needs a sampler; take sampler=dpmpp_2s.")
        self.process, self.sampler = Process(process, data_std), sampler
        if process not in sampler.processes:
            raise ValueError(
                f"{type(sampler).__name__} samples process={' or '.join(sampler.processes)}; got "
                f"step.process={process}."
            )
        self.noise = FieldNoise(world, spectrum=noise, channels=world.output_channels)
        shifted = bool(norms) and LEVEL not in self.conditioning
        self.embedding = LevelEmbedding(norms) if shifted else None
        self.shifts = norm_shifts(network, norms) if shifted else nn.ModuleList()
        self.forecast = None if forecast is None else forecast.requires_grad_(False).eval()
        if forecast is not None:
            self.register_buffer("error_std", torch.ones(world.output_channels, *[1] * len(world.grid.shape)))

    @classmethod
    def network_world(
        cls, world: World, parts: Collection[str] = (), options: Mapping[str, Any] | None = None
    ) -> World:
        """The World of the Step with further forcings: the forecast, noisy channels, and their level."""
        names = [*([FORECAST] if FORECAST in parts else []), NOISY]
        added = [replace(v, name=f"{name}_{v.name}", truncation=None) for name in names for v in world.predicted]
        forcing = world.forcing + VariableSet((*added, Variable(LEVEL, "1")))
        scales = {channel: Scale(0.0, 1.0, 1.0) for channel in (*VariableSet(tuple(added)).channels, LEVEL)}
        scaled = [c for c in world.predicted.channels if c in world.scales] if FORECAST in parts else []
        # the network reads the forecast normalised by these
        scales |= {f"{FORECAST}_{channel}": world.scales[channel] for channel in scaled}
        return replace(world, forcing=forcing, scales={**world.scales, **scales})

    @property
    def is_random(self) -> bool:
        """True: every member starts from noise of its own."""
        return True

    def train(self, mode: bool = True) -> DenoisingStep:
        """Set the mode of all but the forecast, which stays at rest."""
        super().train(mode)
        if self.forecast is not None:
            self.forecast.eval()
        return self

    def forward(
        self, history: tuple[State, ...], forcing: State, *, generator: Generators = None, **conditioning: Any
    ) -> State:
        """The State of `world.predicted` at forcing.time, sampled; arguments as of Step."""
        conditions = self.conditions(history, forcing, conditioning)
        rows, device = len(conditions.time), conditions.before.device

        def draw() -> Tensor:
            if generator is None and not self.training:
                return torch.zeros(rows, self.world.output_channels, *self.world.grid.shape, device=device)
            return self.noise(rows, device, generator)

        def restore(x: Tensor, level: float) -> Tensor:
            return self.restored(conditions, x, torch.full((rows,), level, device=device))

        state = self.placed(self.sampler(self.process, restore, draw), conditions)
        return self.constrained(conditions.last, replace(state, origin=None), forcing)

    def restored_pair(self, window: Window, levels: Tensor) -> tuple[State, State, Tensor]:
        """The next State restored from noise, itself, and the weight of each case; see `restore`."""
        state, weight = self.restore(window.history, window.forcing[0], window.target[0], levels)
        return state, window.target[0], weight

    def restore(
        self, history: tuple[State, ...], forcing: State, target: State, levels: Tensor
    ) -> tuple[State, Tensor]:
        """Add noise to a target, restore it, and return the State and the weight of each case, for training.

        levels: noise level of each case, (batch,). The noise is that of the sample.
        """
        return self.restored_from(self.conditions(history, forcing, {}), target, levels)

    def restored_from(self, conditions: Conditions, target: State, levels: Tensor) -> tuple[State, Tensor]:
        """What `restore` returns, under given conditions."""
        clean = self.normalised(target, conditions)
        signal, noise = (_columns(a, clean) for a in self.process.amplitudes(levels))
        drawn = self.noise(len(clean), clean.device)
        restored = self.restored(conditions, signal * clean + noise * drawn, levels)
        return self.placed(restored, conditions), self.process.weight(levels)

    def conditions(self, history: tuple[State, ...], forcing: State, conditioning: Mapping[str, Any]) -> Conditions:
        """What the sample at forcing.time is conditioned on."""
        fields, time = self.normalised_fields(history, forcing)
        last = history[-1].select(self.world.prognostic.names)
        before, after = fields.split([fields.shape[1] - len(self.static), len(self.static)], dim=1)
        forecast = None
        if self.forecast is not None:
            with torch.no_grad():
                forecast = self.forecast(history, forcing)
            rows = self.predicted(forecast.values)
            before = torch.cat([before, rows.reshape(-1, *rows.shape[last.channel_axis :])], dim=1)
        keywords = {**self.hours(last, forcing, fields.device), **self._flattened(conditioning, last)}
        return Conditions(before, after, time, keywords, last, forcing, forecast)

    def restored(self, conditions: Conditions, x: Tensor, levels: Tensor) -> Tensor:
        """The network's estimate of the clean channels in `x`, (batch, channel, *grid). levels: (batch,)."""
        scalars = self.process.scalar(levels)
        keywords = {**conditions.conditioning, **({LEVEL: scalars} if LEVEL in self.conditioning else {})}
        if self.embedding is not None:
            values = Pooled(self.embedding(scalars))
            for shift in self.shifts:
                shift.values = values  # type: ignore[assignment]

        def network(noisy: Tensor) -> Tensor:
            level = _columns(scalars / 4.0, noisy).expand(-1, 1, *noisy.shape[2:])
            placed = noisy[:, self.written] if self.reordered[1] else noisy
            fields = self.ordered(torch.cat([conditions.before, placed, level, conditions.after], dim=1))
            return self.network(fields, conditions.time, **keywords).float()

        return self.process.restored(network, x, _columns(levels, x))

    def normalised(self, target: State, conditions: Conditions) -> Tensor:
        """The clean channels of a known State, (batch, channel, *grid)."""
        values = target.select(self.world.predicted.names).values
        if conditions.forecast is not None:
            errors = (values - conditions.forecast.values) / self.error_std
            return errors[:, torch.argsort(self.written)] if self.reordered[1] else errors
        return self.target(target, conditions.last)

    def placed(self, clean: Tensor, conditions: Conditions) -> State:
        """The State with the given clean channels, truncated, before any constraint."""
        last, forcing = conditions.last, conditions.forcing
        if conditions.forecast is None:
            state = self.physical(clean, last, forcing)
        else:
            errors = self.error_std * (clean[:, self.written] if self.reordered[1] else clean)
            values = self.truncation(conditions.forecast.values.reshape(clean.shape) + errors)
            state = State(values.reshape(*last.lead, *values.shape[1:]), self.world.predicted, forcing.time, last.rank)
        return replace(state, origin=Origin(last.start, replace(last, origin=None), forcing))

    @torch.no_grad()
    def measure(self, windows: Iterable[Window]) -> None:
        """Measure the standard deviation of the forecast's errors, channel by channel, over all windows."""
        if self.forecast is None:
            return
        area = torch.as_tensor(self.world.grid.weights, dtype=torch.float64)
        total, count = torch.zeros(self.world.output_channels, dtype=torch.float64), 0
        for window in windows:
            error = window.target[0].values - self.forecast(window.history, window.forcing[0]).values
            total += (error.double().cpu().square() * area).flatten(2).mean(-1).sum(0)
            count += len(error)
        if not count or not (total > 0).all():
            raise ValueError("The errors of a forecast need at least one window, and no channel without error.")
        self.error_std.copy_((total / count).sqrt().reshape(self.error_std.shape))


def _columns(numbers: Any, like: Tensor) -> Any:
    """Numbers of each case, (batch,), in a shape that broadcasts with fields; plain numbers as they are."""
    return numbers.reshape(-1, *[1] * (like.ndim - 1)) if isinstance(numbers, Tensor) else numbers


class SeedsStep(DenoisingStep):
    """Sample a further member of an ensemble from a few of them, at the time of the target, whatever the history.

        y = (member - mean of seeds) / error_std,     y ~ sampler(network(seeds, forcing, noisy y, noise level))

    The seeds are the first `seeds` of the `members` that the data hold at the time of the target, as forcings named
    member_1_temperature and so on. Training draws seeds and another member anew for each sample: generative emulation.
    With `truth` above 0 that share of targets is the truth in the member's place, so that samples learn what the
    ensemble gets wrong: generative post-processing. SEEDS, Li et al. 2023, arXiv 2306.14066; there samples are of
    anomalies from a climatology, here of differences from the mean of the seeds.

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
        conditions = self.conditions_of(drawn[:, :-1], last, window.forcing[0], {})
        state, weight = self.restored_from(conditions, clean, levels)
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
