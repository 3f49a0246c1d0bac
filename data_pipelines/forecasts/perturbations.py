"""Perturb the initial States of members, so that a deterministic network forecasts an ensemble.

A part is built on the World; `prepare` opens it for one job and returns a function (inits, history, members) -> history
whose States are (member, init, channel, *grid). Member 0 is the control, from the unperturbed State. Where fields are
drawn for the others they come in pairs, +d and -d, each drawn from a generator seeded by (seed, pair, initial time), so
that a member's start does not depend on which others are made with it; nor does it on the other initial times, as the
error of a timestep is measured at times of a split of the data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from data_pipelines.conventions.durations import bounds, duration, duration_text
from emulators.rollout import Rollout, Stepper
from emulators.sphere.transform import SphericalHarmonics
from emulators.state import State
from emulators.world import World, nominal_seconds

if TYPE_CHECKING:
    from data_pipelines.batches.archive import Archive
    from emulators.grid import LatLonGrid

History = tuple[State, ...]
Starts = Callable[[np.ndarray, History, range], History]
Splits = Mapping[str, Sequence[str]]
STREAM = 1_000_003  # keeps these draws apart from the noise of networks, which has the same seed and member


class PerturbationPart(Protocol):
    """Perturb initial States."""

    def prepare(
        self, step: Stepper, archive: Archive, splits: Splits, inits: np.ndarray, seed: int, device: str
    ) -> Starts:
        """Return the function that makes the starts of these initial times; ValueError where it cannot."""


class GaussianPerturbation:
    """Add Gaussian fields with the power spectrum of the error of a forecast over one timestep.

    amplitude: times the standard deviation of that error, channel by channel. cases: times, spread over the split
    `split` of the data, at which the error is measured; data without it: see `error_times`.
    """

    def __init__(self, world: World, *, amplitude: float = 1.0, cases: int = 16, split: str = "validation") -> None:
        if not amplitude > 0 or cases < 1:
            raise ValueError(f"Expected an amplitude above 0 and one case or more; got {amplitude} and {cases}.")
        self.world, self.amplitude, self.cases, self.split = world, amplitude, cases, split

    def prepare(
        self, step: Stepper, archive: Archive, splits: Splits, inits: np.ndarray, seed: int, device: str
    ) -> Starts:
        """Measure the error; ValueError where no time of the data has a State before it."""
        times = error_times(archive, splits, self.split, self.cases)
        fields = IsotropicFields(self.world.lat_lon, one_step_errors(step, archive, times, device))

        def starts(inits: np.ndarray, history: History, members: range) -> History:
            draws = paired(members, inits, seed, self.amplitude, fields.draw)
            return perturbed(history, draws.to(history[-1].values))

        return starts


class BredPerturbation:
    """Add bred vectors: differences that grew over cycles of the emulator, scaled back after each.

    d <- amplitude s (x'(T) - x(T)) / |x'(T) - x(T)|,    |d|^2 = mean over channels of <d_c^2> / s_c^2

    with s_c the standard deviation of the one-step error: breeding starts from Gaussian fields `cycles` times `cycle`
    before the initial time, and the control is the analysis at each cycle's start (Toth & Kalnay 1993,
    doi 10.1175/1520-0477(1993)074<2317:EFANTG>2.0.CO;2). cases, split: as of `GaussianPerturbation`.
    """

    def __init__(
        self,
        world: World,
        *,
        amplitude: float = 1.0,
        cycle: str = "1d",
        cycles: int = 5,
        cases: int = 16,
        split: str = "validation",
    ) -> None:
        if not amplitude > 0 or cases < 1 or cycles < 1:
            raise ValueError(
                f"Expected an amplitude above 0, a case and a cycle or more; got {amplitude}, {cases}, {cycles}."
            )
        self.world, self.amplitude, self.cases, self.cycles = world, amplitude, cases, cycles
        self.steps, self.split = whole_steps("cycle", cycle, world), split

    def prepare(
        self, step: Stepper, archive: Archive, splits: Splits, inits: np.ndarray, seed: int, device: str
    ) -> Starts:
        """Measure the error; ValueError where the data do not reach back over all cycles."""
        refuse_missing_past(archive, inits, self.steps * self.cycles, "perturbation.cycles or perturbation.cycle")
        errors = one_step_errors(step, archive, error_times(archive, splits, self.split, self.cases), device)
        fields, scale = IsotropicFields(self.world.lat_lon, errors), channel_std(errors, self.world.lat_lon).to(device)
        weights = torch.as_tensor(self.world.grid.weights, dtype=torch.float32, device=device)

        def bred(member: int, inits: np.ndarray, first: Tensor) -> Tensor:
            """(init, channel, *grid): the vector of one pair."""
            change = first.to(device) * self.amplitude
            for cycle in range(self.cycles, 0, -1):
                start = self.world.after(inits, -cycle * self.steps)
                history = tuple(state.to(device) for state in archive.history(start))
                after = [
                    self._forecast(step, archive, perturbed(history, d), start, seed, device)
                    for d in (change, torch.zeros_like(change))
                ]
                grown = (after[0] - after[1]) / scale
                size = (grown.square() * weights).mean(dim=(-3, -2, -1), keepdim=True).sqrt()
                change = torch.where(size > 0, self.amplitude * grown / size, grown) * scale
            return change

        def starts(inits: np.ndarray, history: History, members: range) -> History:
            draws = paired(members, inits, seed, 1.0, fields.draw, bred)
            return perturbed(history, draws.to(history[-1].values))

        return starts

    def _forecast(
        self, step: Stepper, archive: Archive, history: History, start: np.ndarray, seed: int, device: str
    ) -> Tensor:
        """The prognostic fields after one cycle, (init, channel, *grid)."""
        rollout = Rollout(step, self.world, history, members=range(1), seed=seed)
        forcings = (archive.forcing(self.world.after(start, n + 1)).to(device) for n in range(self.steps))
        *_, last = rollout.states(forcings)
        return last.select(self.world.prognostic.names).values[0].float()


class LaggedPerturbation:
    """Start member n from an analysis n `lag` earlier, brought to the initial time by the emulator.

    Lagged average forecasting (Hoffman & Kalnay 1983, doi 10.3402/tellusa.v35i2.11425).
    """

    def __init__(self, world: World, *, lag: str = "6h") -> None:
        self.world, self.steps = world, whole_steps("lag", lag, world)

    def prepare(
        self, step: Stepper, archive: Archive, splits: Splits, inits: np.ndarray, seed: int, device: str
    ) -> Starts:
        """Return the function that makes the starts; ValueError where the data do not reach back one lag."""
        refuse_missing_past(archive, inits, self.steps, "perturbation.lag")
        world = self.world

        def starts(inits: np.ndarray, history: History, members: range) -> History:
            return stacked([lagged(inits, history, member) for member in members], history)

        def lagged(inits: np.ndarray, history: History, member: int) -> Sequence[Tensor]:
            if not member:
                return [state.values for state in history]
            back = member * self.steps
            refuse_missing_past(archive, inits, back, "perturbation.lag or members")
            start = world.after(inits, -back)
            past = tuple(state.to(device) for state in archive.history(start))
            rollout = Rollout(step, world, past, members=range(member, member + 1), seed=seed)
            forcings = (archive.forcing(world.after(start, n + 1)).to(device) for n in range(back))
            states = [state.values for state in past]
            for state in rollout.states(forcings):
                states = [*states[1:], state.select(world.prognostic.names).values[0]]
            return states

        return starts


class MembersOfAnalysis:
    """Start member n from member n of the analysis, where the data have several, as data=gefs has."""

    def __init__(self, world: World) -> None:
        self.world = world

    def prepare(
        self, step: Stepper, archive: Archive, splits: Splits, inits: np.ndarray, seed: int, device: str
    ) -> Starts:
        """Return the function that reads the starts, which raises ValueError where the data have fewer members."""

        def starts(inits: np.ndarray, history: History, members: range) -> History:
            if members.stop > archive.members:
                raise ValueError(
                    f"perturbation=analyses: {archive.origin} holds {archive.members} members; expected "
                    f"{members.stop} or more: data.members={members.stop}, or a dimension of members in files."
                )
            histories = (archive.history(inits, member) for member in members)
            return stacked([[state.values.to(history[-1].values) for state in states] for states in histories], history)

        return starts


class IsotropicFields:
    """Draw Gaussian fields with the mean power by total wavenumber (on a circle: by wavenumber) of given fields.

    fields: (case, channel, lat, lon). Each channel has their standard deviation over area and cases.
    """

    def __init__(self, grid: LatLonGrid, fields: Tensor) -> None:
        self.grid, self.std = grid, channel_std(fields, grid)
        self.harmonics = SphericalHarmonics(grid) if grid.shape[0] > 1 else None
        self.shape = fields.shape[1:]
        power = self._coefficients(fields).abs().square().mean(dim=0)
        if self.harmonics is not None:  # the mean over orders, of which l + 1 are stored
            inside = torch.ones(power.shape[-2:]).tril()
            power = power.mul(inside).sum(-1, keepdim=True) / inside.sum(-1, keepdim=True)
            power = power * inside
        self.amplitude = power.sqrt()
        drawn = torch.stack([self._raw(torch.Generator().manual_seed(n)) for n in range(16)])
        self.scale = self.std / channel_std(drawn, grid).clamp_min(torch.finfo(torch.float32).tiny)

    def draw(self, generator: torch.Generator) -> Tensor:
        """Return one field of every channel, (channel, lat, lon)."""
        return self._raw(generator) * self.scale

    def _coefficients(self, fields: Tensor) -> Tensor:
        return torch.fft.rfft(fields.contiguous()) if self.harmonics is None else self.harmonics.coefficients(fields)

    def _raw(self, generator: torch.Generator) -> Tensor:
        parts = torch.randn(*self.amplitude.shape[:-2], *self._size, 2, generator=generator)
        coefficients = torch.view_as_complex(parts) * self.amplitude
        if self.harmonics is None:
            return torch.fft.irfft(coefficients, n=self.grid.shape[1])
        return self.harmonics.field(coefficients)

    @property
    def _size(self) -> torch.Size:
        return self.amplitude.shape[-2:]


def error_times(archive: Archive, splits: Splits, split: str, cases: int) -> np.ndarray:
    """Return at most `cases` times at which the error of one timestep is known, spread over a split, (time,).

    Of `split`, else of the training split, else of all the data, whichever is the first to have any. They are the same
    whichever initial times are forecast. Raises ValueError for data without two times a timestep apart.
    """
    world, clock = archive.world, np.unique(archive.times)
    known = np.all([archive.has(world.after(clock, -back)) for back in range(1, world.history + 1)], axis=0)
    for period in (splits.get(split), splits.get("train"), (clock[0], clock[-1])):
        first, last = bounds(period) if period else (clock[-1], clock[0])
        times = clock[known & (clock >= first) & (clock <= last)]
        if times.size:
            return times[np.unique(np.linspace(0, times.size - 1, min(cases, times.size)).round().astype(int))]
    raise ValueError(
        f"The error of one timestep is not known: {archive.origin} holds no two times {duration_text(world.timestep)} "
        "apart. Give data with more times, or take perturbation=null."
    )


def one_step_errors(step: Stepper, archive: Archive, times: np.ndarray, device: str) -> Tensor:
    """Return forecasts over one timestep to each of `times` minus the truth, (time, channel, lat, lon)."""
    world = archive.world
    errors = []
    for time in times[:, None]:
        history = tuple(state.to(device) for state in archive.history(world.after(time, -1)))
        rollout = Rollout(step, world, history, members=range(1))
        state = next(rollout.states(iter([archive.forcing(time).to(device)])))
        truth = archive.states(time, world.prognostic)
        errors.append(state.select(world.prognostic.names).values[0].float().cpu() - truth.values)
    return torch.cat(errors)


def channel_std(fields: Tensor, grid: LatLonGrid) -> Tensor:
    """Return the standard deviation over area and the first axis of (n, channel, lat, lon), (channel, 1, 1)."""
    weights = torch.as_tensor(grid.weights, dtype=torch.float64)
    mean = (fields.double() * weights).mean(dim=(0, -2, -1), keepdim=True)
    return ((fields.double() - mean).square() * weights).mean(dim=(0, -2, -1)).sqrt().float()[:, None, None]


def paired(
    members: range,
    inits: np.ndarray,
    seed: int,
    amplitude: float,
    draw: Callable[[torch.Generator], Tensor],
    grown: Callable[[int, np.ndarray, Tensor], Tensor] | None = None,
) -> Tensor:
    """Return the perturbations of members, (member, init, channel, lat, lon): 0 for member 0, then +d, -d, ..."""
    by_pair: dict[int, Tensor] = {}
    for pair in sorted({(member + 1) // 2 for member in members if member}):
        first = torch.stack([draw(generator) for generator in _generators(seed, pair, inits)])
        by_pair[pair] = amplitude * (first if grown is None else grown(pair, inits, first))
    zero = torch.zeros(1)
    signed = [by_pair[(m + 1) // 2] * (1 if m % 2 else -1) if m else zero for m in members]
    shape = next(iter(by_pair.values())).shape if by_pair else (len(inits), 1, 1, 1)
    return torch.stack([d.expand(shape) for d in signed])


def _generators(seed: int, pair: int, inits: np.ndarray) -> Iterator[torch.Generator]:
    times = np.asarray(inits, dtype="datetime64[s]").astype(np.int64) & (2**63 - 1)
    for time in times:
        entropy = np.random.SeedSequence((seed, STREAM, pair, int(time))).generate_state(1, np.uint64)[0]
        yield torch.Generator().manual_seed(int(entropy) >> 1)


def perturbed(history: History, change: Tensor) -> History:
    """Return States with a change (..., init, channel, lat, lon) added to each."""
    return tuple(replace(state, values=state.values + change) for state in history)


def stacked(members: Sequence[Sequence[Tensor]], history: History) -> History:
    """Return States (member, ...) from the values of each member, a tensor for each State of `history`."""
    return tuple(
        replace(state, values=torch.stack([member[n] for member in members])) for n, state in enumerate(history)
    )


def whole_steps(name: str, text: str, world: World) -> int:
    """Return a duration in timesteps; ValueError where it is no whole number of them."""
    steps = nominal_seconds(duration(text)) / nominal_seconds(world.timestep)
    if steps < 1 or steps != int(steps):
        raise ValueError(f"perturbation.{name}: expected whole timesteps of {world.timestep}; got {text}.")
    return int(steps)


def refuse_missing_past(archive: Archive, inits: np.ndarray, back: int, options: str) -> None:
    """Raise ValueError where the data lack a State `back` timesteps before an initial time."""
    world = archive.world
    for more in range(world.history):
        times = world.after(inits, -back - more)
        if not (available := archive.has(times)).all():
            raise ValueError(
                f"{archive.origin} has nothing at {times[~available][0]}, from where the perturbation of "
                f"{inits[~available][0]} starts; start later, or lower {options}."
            )
