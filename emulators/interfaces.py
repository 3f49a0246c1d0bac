"""What networks, objectives, losses and constraints offer: what they must, and what they may, with its default.

A part may subclass its Protocol for the defaults. Networks and constraints need not: their optional members are read
with `optional`, so that any Module is a network and any function of States a constraint.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from emulators.state import State, Window
from emulators.world import World

Restore = Callable[[Tensor, float], Tensor]  # noisy fields and their noise level -> estimate of the clean fields
Draw = Callable[[], Tensor]  # fields of unit noise, anew at each call
Examples = Iterable[tuple[Tensor, Tensor, Tensor]]  # inputs, seconds since 1970, target, as a Network reads and writes


def optional(part: Any, interface: type, name: str) -> Any:
    """Read an optional member of a part: its own, or the default that its interface declares."""
    return getattr(part, name, getattr(interface, name))


class Network(Protocol):
    """Map normalised fields to normalised fields; a torch Module, built as `Network(world, *, ...)`.

    What it draws in training (`layers.sample_draws`) belongs to the sample, so that no division of a batch changes it.

    conditioning: keywords that `forward` takes besides fields and time, and is given: `interval` and `lead`, hours from
        the last known state and from the start of the rollout, (batch,); `generator`, one or one a case, to draw noise
        from; `labels` and `scalars`, (batch, channel); `noise_level`, what tells it that of its input, (batch,);
        `noise_vector`, drawn by noise=vector, (batch, channel); `units` and `tokens`, places that a masked training
        shows.
    noise_channels: channels of noise that it draws; without any, the members of an ensemble are all the same.
    grid_first: whether its norms are given (lon, lat, batch, channel) in place of the batch first.
    units: number of places that a masked training may hide; 0 where the network cannot leave any out.
    learned: names of the only variables that it learns, where all others are fixed; a validation scores these.
    additions: prefixes of parameter names that published weights may lack.
    fit: solve for the weights in closed form, in one pass over examples; in place of gradient steps.
    fit_climatology: read a climatology from examples, before the first gradient step.
    reconstructed: (fields, time, next state, normalised) -> output by latent numbers of a posterior that sees it, and
        the divergence from the prior, (batch,).
    at_rest: prefixes of parameter names that only `reconstructed` needs, which learn with objective=variational alone.
    emission: (fields, time) -> mean and standard deviation of a normal distribution, each like the output.
    """

    conditioning: Sequence[str] = ()
    noise_channels: int = 0
    grid_first: bool = False
    units: int = 0
    learned: Sequence[str] = ()
    additions: Sequence[str] = ()
    fit: Callable[[Examples], None] | None = None
    fit_climatology: Callable[[Examples], None] | None = None
    reconstructed: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]] | None = None
    at_rest: Sequence[str] = ()
    emission: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None

    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        """Forecast one step.

        fields: (batch, world.input_channels, *grid). time: seconds since 1970 UTC of the forecast state, int64
        (batch,). Returns (batch, world.output_channels, *grid).
        """
        ...


class NetworkModule(Protocol):
    """Describe the network that a Python module defines, for weights published elsewhere and for `emul models`.

    PUBLISHED: pairs (regular expression of a published parameter's name, name here).
    adapted: change what differs in more than its name in a state dict of names here.
    ABOUT: `states`, `step`, `grid` and `parity` of the published network, in words.
    EXAMPLE_GRID: name of a grid that the network takes, where it takes no rows and columns: its size is told on this,
        and its contracts are checked on it.
    """

    PUBLISHED: Sequence[tuple[str, str]] = ()
    adapted: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None
    ABOUT: Mapping[str, str] = {}
    EXAMPLE_GRID: str = ""


class Loss(Protocol):
    """Compare two States: one number for each lead element (batch, or member and batch).

    intervals: timesteps of the steps that it can judge; None: any.
    """

    intervals: Collection[int] | None = None

    def __call__(self, prediction: State, target: State) -> Tensor: ...


@dataclass(frozen=True)
class Replay:
    """Say how often a training goes on from its own predictions.

    share: chance of a sample to do so, above 0 and below 1. steps: optimiser steps from a prediction to the rollout
    that starts there; the predictions of so many batches are kept. leads: timesteps that a start may lie from the data.
    """

    share: float
    steps: int
    leads: int

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or self.steps < 1 or self.leads < 1:
            raise ValueError(
                "objective.replay must be a chance from 0 to below 1, replay_steps and replay_leads at least 1; got "
                f"{self.share}, {self.steps} and {self.leads}."
            )

    def bytes(self, world: World, batch_size: int) -> int:
        """The size of a full buffer in bytes. batch_size: samples an optimiser step."""
        return 4 * self.steps * batch_size * world.history * world.prognostic.size * world.grid.size


class Objective(Protocol):
    """Define how a network is trained: the loss of a window, to be minimised. Subclass it for the defaults.

    longest: timesteps of the longest rollout, which every window must hold. intervals: of its steps, in timesteps.
    keeps_copies: whether it keeps copies of weights, which a sharded network does not allow. replay: how often samples
    go on from predictions, for which the batches must follow them; None: never. What `begin` and `follow` change must
    be state of a Module, or in `state`.
    """

    keeps_copies: bool = False
    replay: Replay | None = None
    intervals: Sequence[int] = (1,)

    @property
    def longest(self) -> int: ...

    def length(self, step: int) -> int:
        """Timesteps of the rollout at optimiser step `step`."""
        ...

    def size(self, step: int) -> int:
        """Members of the ensemble at optimiser step `step`."""
        return 1

    def at(self, step: int) -> None:
        """Know the number of the optimiser step that is about to be made."""

    def __call__(self, step: nn.Module, window: Window, losses: Mapping[str, Loss]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimise, and its parts by name, detached."""
        ...

    def begin(self, step: Any) -> None:
        """Prepare a training; ValueError where the Step's network cannot be trained so."""

    def follow(self, step: Any) -> None:
        """Do what follows each optimiser step."""

    def state(self) -> dict[str, Tensor]:
        """What it keeps from step to step, for a checkpoint."""
        return {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on with the `state` in a checkpoint, empty where it has none."""


class Sampler(Protocol):
    """Make clean fields from noise, by a network that restores noisy ones. Subclass it for the defaults.

    levels: the noise levels that it goes through, descending, 0 at the end. processes: kinds of
    `emulators.layers.noise_levels.Process` that it can follow.
    """

    levels: Sequence[float]
    processes: Collection[str] = ("edm", "flow", "vp")

    def __call__(self, process: Any, restore: Restore, noise: Draw) -> Tensor:
        """Sample fields of the shape that `noise` draws, (batch, channel, *grid), normalised."""
        ...


class Constraint(Protocol):
    """Return the State after a step, changed so that it obeys a law. Idempotent; one with tables is a Module.

    changes: names of the variables that it changes; None where it does not say. rests_on: names of the variables whose
    change would break its law. keeps: class names of laws that it leaves intact all the same. budget: the budget that
    its law closes, for `emulators.verification.budget_ledger`. intervals: timesteps of the steps over which its law is
    known; None: any. The order of constraints is checked by these.
    """

    changes: Sequence[str] | None = None
    rests_on: Sequence[str] = ()
    keeps: Sequence[str] = ()
    budget: Any = None
    intervals: Collection[int] | None = None

    def __call__(self, before: State, after: State, forcing: State) -> State:
        """`before.start` is the State at the start of the rollout."""
        ...


def refuse_unknown_intervals(parts: Mapping[str, Any], interface: type, intervals: Collection[int]) -> None:
    """Raise ValueError where a constraint or loss knows its law over other intervals, in timesteps, than these."""
    for name, part in parts.items():
        allowed = optional(part, interface, "intervals")
        if allowed is not None and (unknown := sorted(set(intervals) - set(allowed))):
            raise ValueError(
                f"{name} takes fluxes as sums over the step, which the data hold for steps of "
                f"{', '.join(map(str, sorted(allowed)))} timesteps; some steps are of {', '.join(map(str, unknown))}. "
                f"List the sums over these among the variables, such as total_precipitation_24hr, or leave {name} out."
            )


class MatrixParameter(Protocol):
    """Mark a parameter as a stack of matrices. matrix_axes: its axes of rows and columns; None: (out, all others)."""

    matrix_axes: tuple[int, int] | None = None


class MapParameter(Protocol):
    """Mark a parameter as a map, or a stack of maps. map_axes: its axes that an output sums over, and those over
    outputs; None: `matrix_axes`, or as its module has them.
    """

    map_axes: tuple[tuple[int, ...], tuple[int, ...]] | None = None


class ScaledParameter(Protocol):
    """Mark a parameter with a learning rate of its own. rate_share: its share of the optimiser's."""

    rate_share: float = 1.0


class SpectralParameter(Protocol):
    """Mark a parameter with numbers for each spherical-harmonic degree or order, for transfer to another grid.

    degree_axes: its axes over degrees or orders, from 0 up. beyond: how higher ones begin: `held`, as the highest that
    there was, or `zero`.
    """

    degree_axes: tuple[int, ...] = ()
    beyond: str = "held"


class GridParameter(Protocol):
    """Mark a parameter with numbers for each window of the grid. grid_axes: {axis: sizes that it folds, such as
    (levels, rows)}; None: it says nothing, and axes whose length changes with the grid are taken for rows, columns or
    tokens.
    """

    grid_axes: Mapping[int, Sequence[int]] | None = None


def is_fitted_at_once(step: Any) -> bool:
    """Whether the network of a Step is fitted in closed form, or the Step has nothing to learn."""
    solved = optional(step.network, Network, "fit") is not None
    return solved or not any(p.requires_grad for p in step.parameters())
