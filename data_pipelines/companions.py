"""The planet's fast companions as data: all trajectories of a small model side by side in one tensor, and its twins.

A source tells what its store looks like and where its model begins; the functions here make the store, and the
identical twins of which `data_pipelines.predictability` measures how they part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from data_pipelines.generation import Progress, Trajectories, make_once
from data_pipelines.simulation import one_thread

if TYPE_CHECKING:
    from data_pipelines.predictability import Case

GAP = np.timedelta64(10, "D")  # between trajectories
TWINS_INTERVAL = np.timedelta64(6, "h")

Sample = dict[str, np.ndarray]


class Model(Protocol):
    """Equations of motion for several members at once."""

    def step(self, state: Tensor) -> Tensor:
        """The state one timestep later."""
        ...

    def sample(self, state: Tensor) -> Sample:
        """The fields that change, by name, float32, (member, [level,] lat, lon)."""
        ...

    def static(self) -> Sample:
        """The fields that do not, (lat, lon)."""
        ...

    def disturbed(self, state: Tensor, size: float, generator: torch.Generator) -> Tensor:
        """The state with noise of rms `size`, in the units of its wind or of its one variable."""
        ...


class Companion(Protocol):
    """A source whose data one model makes. timestep: of the model; spinup: before the first stored sample."""

    label: str
    seed: int
    path: Path
    trajectories: Trajectories
    timestep: np.timedelta64
    spinup: np.timedelta64

    def template(self) -> xr.Dataset:
        """Coordinates, attributes and shapes of the dataset."""
        ...

    def beginning(self, members: int) -> tuple[Model, Tensor]:
        """The model, and the states of so many members before the spin-up."""
        ...


class Run:
    """A model under way."""

    def __init__(self, model: Model, state: Tensor) -> None:
        self.model, self.state = model, state

    def advance(self, steps: int) -> None:
        """Go on by `steps` timesteps."""
        for _ in range(steps):
            self.state = self.model.step(self.state)

    def sample(self) -> Sample:
        """The present fields."""
        return self.model.sample(self.state)


def periods(name: str, timestep_minutes: int, interval_hours: int) -> tuple[np.timedelta64, np.timedelta64]:
    """Timestep and interval between samples; ValueError unless the one divides the other and 6 hours."""
    if timestep_minutes < 1 or 360 % timestep_minutes:
        raise ValueError(f"{name}: timestep_minutes must divide 6 hours; got {timestep_minutes}. Try 120, 60 or 15.")
    if interval_hours < 1 or 24 % interval_hours or 60 * interval_hours % timestep_minutes:
        raise ValueError(
            f"{name}: interval_hours must divide a day and be a multiple of timestep_minutes ({timestep_minutes}); "
            f"got {interval_hours}. Try 6, 12 or 24."
        )
    return np.timedelta64(timestep_minutes, "m"), np.timedelta64(interval_hours, "h")


def make(source: Companion, progress: Progress | None = None) -> None:
    """Make the store of a source where it is missing; what a killed run leaves behind does not pass for one."""
    report = progress or (lambda label, share: None)
    count, every = source.trajectories.samples, source.trajectories.interval
    steps, before = int(every / source.timestep), int(source.spinup / every)

    def samples(run: Run) -> Iterator[Sample]:
        for done in range(-before, count):
            if done >= 0:
                yield run.sample()
            run.advance(steps)
            report(source.label, (before + done + 1) / (before + count))

    def fill(folder: Path) -> None:
        with one_thread():
            run = Run(*source.beginning(source.trajectories.number))
            source.trajectories.write(folder, source.template(), samples(run), run.model.static())

    make_once(source.path, fill)


def twins(source: Companion, cases: int, leads: int, perturbation: float, report: Progress) -> Iterator[Case]:
    """Cases one after the other along one control, each with a twin that differs by noise; see `Twinned`."""
    control = Run(*source.beginning(1))
    report("spin-up", 0.0)
    control.advance(int(source.spinup / source.timestep))
    return _cases(source, [control] * cases, leads, perturbation, report)


def twins_of_members(
    source: Companion, cases: int, leads: int, perturbation: float, report: Progress
) -> Iterator[Case]:
    """Cases that each begin with the initial state of a member (last dimension), for worlds that age."""
    model, states = source.beginning(cases)
    controls = [Run(model, state.contiguous()) for state in states.split(1, dim=-1)]
    return _cases(source, controls, leads, perturbation, report)


def _cases(
    source: Companion, controls: Sequence[Run], leads: int, perturbation: float, report: Progress
) -> Iterator[Case]:
    """A case for each control, from where that is by then."""
    from data_pipelines.predictability import Case

    steps, total = int(TWINS_INTERVAL / source.timestep), len(controls) * leads
    generator = torch.Generator().manual_seed(source.seed)

    def samples(run: Run, done: int) -> Iterator[Mapping[str, np.ndarray]]:
        for lead in range(1, leads + 1):
            run.advance(steps)
            yield _only(run.sample())
            report("twins", (done + lead) / total)

    for case, control in enumerate(controls):
        twin = Run(control.model, control.model.disturbed(control.state, perturbation, generator))
        yield Case(_only(control.sample()), samples(control, case * leads), samples(twin, case * leads))


def _only(sample: Sample) -> Sample:
    """The fields of the one member there is."""
    return {name: field[0] for name, field in sample.items()}
