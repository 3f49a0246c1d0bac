"""Step: from the State now (and its history and forcing) to the State one timestep later.

    x      = [ (history - mean) / std,  (forcing - mean) / std,  static ]
    next   = last + tendency_std * network(x)      output="residual"
    next   = mean + std * network(x)               output="absolute", and diagnostic variables always

then without the scales that the data do not hold (`spectral_layers.Truncation`), those that the network never saw
carried apart (`small_scales`), then every constraint in order. The difference mean is not subtracted, as in GraphCast
(Lam et al. 2023, doi 10.1126/science.adi2336).

A step over n timesteps takes the standard deviation of the change over n timesteps in place of tendency_std, measured
over the training period for every interval of the objective (Stormer: Nguyen et al. 2024, arXiv 2312.03876).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from emulators.interfaces import Constraint, Network, optional, refuse_unknown_intervals
from emulators.layers.convolution import reorder_mirrors
from emulators.state import Origin, State, Window
from emulators.world import World, timesteps_between

if TYPE_CHECKING:
    from emulators.steps.small_scales import SmallScales


class Step(nn.Module):
    """Make one timestep of an emulator; a Step is what is trained and what a checkpoint holds.

    network: (fields (batch, world.input_channels, *grid), time int64 (batch,) in seconds since 1970 UTC, the valid
    time of the target) -> (batch, world.output_channels, *grid), all normalised; see `emulators.interfaces.Network`.
    reads, writes: its channels by name in its own order, for published weights; default: prognostic ones (of a history
    the oldest first, each named as often as it is read), forcing, static, and prognostic, diagnostic.
    truncation: largest total wavenumber of what the step predicts: `data`, of each variable of which the data declare
    it; a number, of all prognostic ones; None, without limit. inner: the World of the network; default, the same.
    """

    change_std: Tensor
    static: Tensor
    read: Tensor
    written: Tensor

    def __init__(
        self,
        world: World,
        network: nn.Module,
        constraints: Mapping[str, Constraint] | None = None,
        *,
        output: Literal["residual", "absolute"] = "residual",
        reads: Sequence[str] | None = None,
        writes: Sequence[str] | None = None,
        truncation: Literal["data"] | int | None = "data",
        inner: World | None = None,
    ) -> None:
        super().__init__()
        if output not in ("residual", "absolute"):
            raise ValueError(f"step.output must be 'residual' or 'absolute'; got '{output}'.")
        self.world, self.network, self.output = world, network, output
        self.conditioning = frozenset(optional(network, Network, "conditioning"))
        self.constraints = dict(constraints or {})
        self.observer: Callable[[str, State, State], None] | None = None  # told what each constraint makes of what
        refuse_disorder(self.constraints)
        self.constraint_modules = nn.ModuleList(c for c in self.constraints.values() if isinstance(c, nn.Module))
        rank = len(world.grid.shape)
        self.prognostic, self.forcing, self.predicted = (
            Normalise(world.scale(variables, "mean"), world.scale(variables, "std"), rank)
            for variables in (world.prognostic, world.forcing, world.predicted)
        )
        self.truncation, self.small_scales = _spectral_parts(self, limits_of(world, truncation))
        self.intervals = world.intervals
        changes = np.stack([world.change_std(world.prognostic, n) for n in self.intervals])
        table = torch.from_numpy(changes).reshape(*changes.shape, *[1] * rank)
        self.register_buffer("change_std", table, persistent=False)  # (interval, channel, *1)
        static = torch.zeros(0, *world.grid.shape)
        if world.static.size and world.static_fields is not None:
            normalise = Normalise(world.scale(world.static, "mean"), world.scale(world.static, "std"), rank)
            static = normalise(torch.as_tensor(np.asarray(world.static_fields, dtype=np.float32)))
        self.register_buffer("static", static, persistent=False)
        past, prescribed = world.prognostic.channels * world.history, (inner or world).forcing.channels
        read = _places("reads", reads, (*past, *prescribed, *world.static.channels))
        written = np.argsort(_places("writes", writes, world.predicted.channels))
        for name, places in (("read", read), ("written", written)):
            self.register_buffer(name, torch.as_tensor(places), persistent=False)
        self.reordered = reads is not None, writes is not None
        if reads is not None:
            reorder_mirrors(network, self.read)

    @property
    def tendency_std(self) -> Tensor:
        """The standard deviation of the change over a timestep, (channel, *1)."""
        return self.change_std[0]

    def forward(self, history: tuple[State, ...], forcing: State, **conditioning: Any) -> State:
        """The State of `world.predicted` at forcing.time. history: oldest first, all with the same lead shape.

        conditioning: further inputs of the network, of those that it declares: `generator`, to draw noise from (one of
        all cases, or one a case, members first); `labels` and `scalars`, (*lead, channel).
        """
        after = self.unconstrained(history, forcing, conditioning)
        return self.constrained(history[-1].select(self.world.prognostic.names), after, forcing)

    def unconstrained(self, history: tuple[State, ...], forcing: State, conditioning: Mapping[str, Any]) -> State:
        """The State at forcing.time before any constraint; arguments as of `forward`."""
        last = history[-1].select(self.world.prognostic.names)
        fields, time = self.inputs(history, forcing)
        keywords = {**self.hours(last, forcing, fields.device), **self._flattened(conditioning, last)}
        return self.physical(self.network(fields, time, **keywords).to(last.values.dtype), last, forcing)

    def physical(self, raw: Tensor, last: State, forcing: State) -> State:
        """The State of which the network wrote the normalised channels, truncated, before any constraint."""
        change = self.change(last.time, forcing.time) if self.output == "residual" else None
        before = last.values.reshape(-1, *last.values.shape[last.channel_axis :])
        values = self.truncation(self.outputs(raw, before, change))
        values = self.small_scales(values, before) if self.small_scales else values
        return State(values.reshape(*last.lead, *values.shape[1:]), self.world.predicted, forcing.time, last.rank)

    def hours(self, last: State, forcing: State, device: torch.device) -> dict[str, Tensor]:
        """Interval and lead in hours, for every case, of these what the network declares."""
        since = {"interval": last.time, "lead": last.start.time}
        starts = {name: start for name, start in since.items() if name in self.conditioning}
        spans = {name: (forcing.time - start) / np.timedelta64(1, "h") for name, start in starts.items()}
        tensors = {n: torch.as_tensor(span, dtype=torch.float32, device=device) for n, span in spans.items()}
        return {name: hours.expand(last.lead).reshape(-1) for name, hours in tensors.items()}

    @classmethod
    def data_world(cls, world: World, options: Mapping[str, Any]) -> World:
        """The World of the Step, from that of the variables chosen: the same. options: its own, by name."""
        return world

    @classmethod
    def network_world(
        cls, world: World, parts: Collection[str] = (), options: Mapping[str, Any] | None = None
    ) -> World:
        """The World on which the network is built: that of the Step.

        parts: names of the Steps that it is given. options: its own, by name.
        """
        return world

    @classmethod
    def compared_world(cls, world: World, options: Mapping[str, Any]) -> World:
        """The World of the States that losses compare: that of the Step. options: its own, by name."""
        return world

    @classmethod
    def stand_in(cls, world: World, options: Mapping[str, Any]) -> Step:
        """A Step without weights, in place of one that the Step is given, where only shapes matter."""
        return Step(world, nn.Identity())

    @classmethod
    def unlike_part(cls, held: Step, world: World) -> list[str]:
        """What of the World of a Step that one on `world` would hold is not as it must be, by name."""
        return held.unlike(world)

    def unlike(self, host: World) -> list[str]:
        """What of `host`, the World of a Step that would hold this one, is not as it must be, by name."""
        same = {
            "grid": self.world.grid.same_as(host.grid),
            "timestep": self.world.timestep == host.timestep,
            "history": self.world.history == host.history,
            "predicted variables": self.world.predicted.channels == host.predicted.channels,
            "forcing": set(self.world.forcing.channels) <= set(host.forcing.channels),
        }
        return [name for name, holds in same.items() if not holds]

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """The networks that make its step, to be compiled, sharded and the like one by one."""
        return (self.network,)

    @property
    def shortest_rollout(self) -> int:
        """Timesteps of the shortest rollout in which each weight that is trained has its part."""
        return 1

    def comparable(self, state: State, target: State) -> State:
        """`state` of a rollout as losses compare it with `target`: all that the Step predicts anew is as it is."""
        return state

    @property
    def is_random(self) -> bool:
        """Whether it draws from a generator, so that the members of an ensemble differ."""
        return bool(optional(self.network, Network, "noise_channels"))

    @property
    def reconstructs(self) -> bool:
        """Whether it can make States of latent numbers that see the truth, as objective=variational wants."""
        return optional(self.network, Network, "reconstructed") is not None

    def reconstructed(self, history: tuple[State, ...], forcing: State, target: State) -> tuple[State, Tensor]:
        """The State made of latent numbers of the network's posterior, and its divergence from the prior, (*lead,)."""
        fields, time = self.inputs(history, forcing)
        last, lead = history[-1].select(self.world.prognostic.names), history[-1].lead
        truth = self.predicted(target.select(self.world.predicted.names).values)
        truth = truth.expand(*lead, *truth.shape[target.channel_axis :]).reshape(len(fields), -1, *fields.shape[2:])
        raw, divergence = optional(self.network, Network, "reconstructed")(fields, time, truth)
        return self.constrained(last, self.physical(raw.float(), last, forcing), forcing), divergence.reshape(lead)

    def measure(self, windows: Iterable[Window]) -> None:
        """Measure over windows of the training split what the step needs before it is trained: its small scales."""
        if self.small_scales is not None:
            was_training = self.training
            self.eval()
            self.small_scales.measure(self._case(window) for window in windows)
            self.train(was_training)

    @torch.no_grad()
    def _case(self, window: Window) -> tuple[Tensor, Tensor, Tensor]:
        """Prognostic fields, what the step makes of them, and the true predicted ones."""
        before, truth = window.history[-1], window.target[0]
        made = self.unconstrained(window.history, window.forcing[0], {}).values
        return before.select(self.world.prognostic.names).values, made, truth.select(self.world.predicted.names).values

    def constrained(self, before: State, after: State, forcing: State) -> State:
        """`after` as the constraints leave it, one after another; it remembers where it comes from."""
        past = before if before.origin is None else replace(before, origin=None)
        state = replace(after, origin=Origin(before.start, past, forcing))
        for name, constraint in self.constraints.items():
            previous, state = state, constraint(before, state, forcing)
            if self.observer is not None:
                self.observer(name, previous, state)
        return state

    def inputs(self, history: tuple[State, ...], forcing: State) -> tuple[Tensor, Tensor]:
        """What the network reads: normalised fields (batch, channel, *grid) and the target's time (batch,)."""
        fields, time = self.normalised_fields(history, forcing)
        return self.ordered(fields), time

    def ordered(self, fields: Tensor) -> Tensor:
        """The channels of the network, which are in the order of its World, in its own."""
        return fields[:, self.read] if self.reordered[0] else fields

    def normalised_fields(self, history: tuple[State, ...], forcing: State) -> tuple[Tensor, Tensor]:
        """The normalised fields of the World, (batch, channel, *grid), and the target's time (batch,)."""
        names = self.world.prognostic.names
        past = [self.prognostic(state.select(names).values) for state in history]
        lead = history[-1].lead
        tensors = [*past]
        if self.world.forcing.size:
            prescribed = self.forcing(forcing.select(self.world.forcing.names).values)
            tensors.append(prescribed.expand(*lead, *prescribed.shape[forcing.channel_axis :]))
        if self.static.shape[0]:
            tensors.append(self.static.expand(*lead, *self.static.shape))
        fields = torch.cat(tensors, dim=history[-1].channel_axis)
        seconds = torch.as_tensor(forcing.time.astype(np.int64), device=fields.device).expand(lead)
        return fields.reshape(-1, *fields.shape[history[-1].channel_axis :]), seconds.reshape(-1)

    def _flattened(self, conditioning: Mapping[str, Any], last: State) -> dict[str, Any]:
        """Conditioning inputs, flattened over the leading dimensions; ValueError for one that is not declared."""
        refused = sorted(set(conditioning) - self.conditioning)
        if refused:
            raise ValueError(f"{type(self.network).__name__} takes no {refused[0]}; choose a network that does.")
        rows = {n: v.expand(*last.lead, -1).flatten(0, -2) for n, v in conditioning.items() if n != "generator"}
        return {**conditioning, **rows}

    def change(self, start: np.ndarray, end: np.ndarray) -> Tensor:
        """The standard deviation of the change of the prognostic channels from `start` to `end`, (channel, *1)."""
        interval = timesteps_between(self.world.timestep, start, end)
        if interval not in self.intervals:
            self.world.change_std(self.world.prognostic, interval)  # raises, and says which are known
        return self.change_std[self.intervals.index(interval)]

    def refuse_intervals(self, intervals: Collection[int]) -> None:
        """Raise ValueError where the network, its scales or a constraint do not know one of these, in timesteps."""
        if len(set(intervals)) > 1 and "interval" not in self.conditioning:
            raise ValueError(
                f"{type(self.network).__name__} is not told the interval (its `conditioning` lacks it), and steps are "
                f"of {', '.join(map(str, sorted(set(intervals))))} timesteps."
            )
        for interval in intervals if self.output == "residual" else ():
            self.world.change_std(self.world.prognostic, interval)
        refuse_unknown_intervals(self.constraints, Constraint, intervals)

    def outputs(self, raw: Tensor, last: Tensor, change: Tensor | None = None) -> Tensor:
        """Physical values (batch, predicted channel, *grid) from the network's output and the last prognostic ones.

        change: the standard deviation of their change, (channel, *1); None: that over a timestep.
        """
        raw = raw[:, self.written] if self.reordered[1] else raw
        if self.output == "absolute":
            return self.predicted.inverse(raw)
        size = self.world.prognostic.size
        values = last + (self.tendency_std if change is None else change) * raw[:, :size]
        if size == raw.shape[1]:
            return values
        return torch.cat([values, self.predicted.inverse(raw)[:, size:]], dim=1)

    def target(self, state: State, last: State) -> Tensor:
        """The inverse of `outputs`: what the network should have written to reach `state`, for closed-form training."""
        size = self.world.prognostic.size
        absolute = self.predicted(state.values)
        change = state.values[:, :size] - last.select(self.world.prognostic.names).values
        residual = torch.cat([change / self.tendency_std, absolute[:, size:]], dim=1)
        return (absolute if self.output == "absolute" else residual)[:, torch.argsort(self.written)]


def _places(what: str, named: Sequence[str] | None, channels: Sequence[str]) -> np.ndarray:
    """Where each of the channels `named` stands among `channels`, the same ones; ValueError where they are others."""
    if named is None:
        return np.arange(len(channels))
    if isinstance(named, str):
        raise ValueError(f"step.{what} should be a list of channels; got '{named}'.")
    available: dict[str, list[int]] = {}
    for place, channel in enumerate(channels):
        available.setdefault(channel, []).append(place)
    unknown = [name for name in named if name not in available]
    places = [available[name].pop(0) for name in named if available.get(name)]
    absent = [name for name, rest in available.items() if rest]
    if unknown or absent or len(places) != len(named):
        often = [name for name in available if [*named].count(name) > [*channels].count(name)]
        kinds = {"none of them are": unknown, "not named are": absent, "too often named are": often}
        faults = [f"{kind} {', '.join(names)}" for kind, names in kinds.items() if names]
        raise ValueError(
            f"step.{what} should name the {len(channels)} channels of the network, {', '.join(channels)}; "
            f"{'; '.join(faults)}."
        )
    return np.array(places, dtype=np.int64)


def refuse_disorder(constraints: Mapping[str, Constraint]) -> None:
    """ValueError where a constraint changes what the law of an earlier one rests on, and does not keep that law."""
    names = list(constraints)
    for later, name in enumerate(names):
        for earlier in names[:later]:
            touched = _broken(constraints[name], constraints[earlier])
            if touched:
                is_mutual = _broken(constraints[earlier], constraints[name])
                fix = "no order keeps both: leave one out" if is_mutual else f"list {name} before {earlier}"
                raise ValueError(
                    f"constraint.{name} changes {', '.join(touched)}, on which the law of constraint.{earlier} rests, "
                    f"and would break it again; {fix}."
                )


def _broken(part: Constraint, law: Constraint) -> list[str]:
    """The variables through which one constraint breaks the law of another that came before."""
    if type(law).__name__ in optional(part, Constraint, "keeps"):
        return []
    changes = set(optional(part, Constraint, "changes") or ())
    return sorted(changes & set(optional(law, Constraint, "rests_on")))


class Normalise(nn.Module):
    """Compute (x - mean) / std over the channel axis of (*lead, channel, *grid) tensors.

    mean, std: shape (channel,). rank: number of grid dimensions. The numbers live in the World, not in the state dict.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: np.ndarray, std: np.ndarray, rank: int = 2) -> None:
        super().__init__()
        if not (np.asarray(std) > 0).all():
            raise ValueError("Standard deviations must be positive; leave constant channels out or scale them by 1.")
        for name, values in (("mean", mean), ("std", std)):
            tensor = torch.as_tensor(np.asarray(values, dtype=np.float32)).reshape(-1, *[1] * rank)
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        return (values - self.mean) / self.std

    def inverse(self, values: Tensor) -> Tensor:
        """Back to physical units."""
        return values * self.std + self.mean


def limits_of(world: World, option: Any) -> dict[str, int]:
    """The largest total wavenumber by variable; option: `data`, a number for all prognostic ones, or None for none.

    Raises ValueError for any other option.
    """
    if option is None:
        return {}
    if option == "data":
        return {v.name: v.truncation for v in world.predicted if v.truncation is not None}
    if isinstance(option, bool) or not isinstance(option, int) or option < 1:
        raise ValueError(f"step.truncation must be 'data', a total wavenumber of at least 1, or null; got {option!r}.")
    return {variable.name: option for variable in world.prognostic}


def _spectral_parts(step: Step, limits: Mapping[str, int]) -> tuple[nn.Module, SmallScales | None]:
    """The projection on limits, and what carries the scales never seen; without both no harmonics are loaded."""
    world, truncation = step.world, cast(nn.Module, nn.Identity())
    if limits:
        from emulators.layers.spectral_layers import Truncation

        truncation = Truncation(world, limits)
    if world.learned is None or type(step) is not Step:  # others make States in other ways
        return truncation, None
    from emulators.steps.small_scales import SmallScales

    return truncation, SmallScales(world, world.learned)
