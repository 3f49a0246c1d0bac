"""The planet's fast companions as data: all trajectories of a small model side by side in one tensor, and its twins.

A source tells what its store looks like and where its model begins; what is here makes the store, and the identical
twins of which `data_pipelines.predictability` measures how they part.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from data_pipelines.interfaces import Case, Progress
from data_pipelines.reading.threads import one_thread
from data_pipelines.simulators.stores import Trajectories, make_once, open_store

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


class Integration:
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


class SimulatedSource(ABC):
    """A source whose data one model makes, and which is made on first use.

    label: what it is called. seed: of its noise. path: of its store. timestep: of the model; spinup: before the first
    stored sample.
    """

    label: str
    seed: int
    path: Path
    trajectories: Trajectories
    timestep: np.timedelta64
    spinup: np.timedelta64

    @abstractmethod
    def template(self) -> xr.Dataset:
        """Coordinates, attributes and shapes of the dataset, without its numbers."""

    @abstractmethod
    def beginning(self, members: int) -> tuple[Model, Tensor]:
        """The model, and the states of so many members before the spin-up."""

    def prepare(self, progress: Progress | None = None) -> None:
        """Make the store where it is missing. A killed run leaves nothing behind that could pass for a store."""
        report = progress or (lambda label, share: None)
        count, every = self.trajectories.samples, self.trajectories.interval
        steps, before = int(every / self.timestep), int(self.spinup / every)

        def samples(run: Integration) -> Iterator[Sample]:
            for done in range(-before, count):
                if done >= 0:
                    yield run.sample()
                run.advance(steps)
                report(self.label, (before + done + 1) / (before + count))

        def fill(folder: Path) -> None:
            with one_thread():
                run = Integration(*self.beginning(self.trajectories.number))
                self.trajectories.write(folder, self.template(), samples(run), run.model.static())

        make_once(self.path, fill)

    def dataset(self) -> xr.Dataset:
        """The dataset, lazily."""
        return open_store(self.path, [str(name) for name in self.template().data_vars], self.label)

    def controls(self, cases: int, report: Progress) -> list[Integration]:
        """What twins are compared with: cases one after the other along one run after its spin-up."""
        control = Integration(*self.beginning(1))
        report("spin-up", 0.0)
        control.advance(int(self.spinup / self.timestep))
        return [control] * cases

    def twins(self, cases: int, leads: int, perturbation: float, report: Progress) -> Iterator[Case]:
        """A case for each control, from where that is by then, and a twin that differs by noise; see `Twinned`."""
        controls = self.controls(cases, report)
        steps, total = int(TWINS_INTERVAL / self.timestep), len(controls) * leads
        generator = torch.Generator().manual_seed(self.seed)

        def samples(run: Integration, done: int) -> Iterator[Mapping[str, np.ndarray]]:
            for lead in range(1, leads + 1):
                run.advance(steps)
                yield _single_member(run.sample())
                report("twins", (done + lead) / total)

        for case, control in enumerate(controls):
            twin = Integration(control.model, control.model.disturbed(control.state, perturbation, generator))
            yield Case(_single_member(control.sample()), samples(control, case * leads), samples(twin, case * leads))


def checked_intervals(name: str, timestep_minutes: int, interval_hours: int) -> tuple[np.timedelta64, np.timedelta64]:
    """Timestep and interval between samples; ValueError unless the one divides the other and 6 hours."""
    if timestep_minutes < 1 or 360 % timestep_minutes:
        raise ValueError(f"{name}: timestep_minutes must divide 6 hours; got {timestep_minutes}. Try 120, 60 or 15.")
    if interval_hours < 1 or 24 % interval_hours or 60 * interval_hours % timestep_minutes:
        raise ValueError(
            f"{name}: interval_hours must divide a day and be a multiple of timestep_minutes ({timestep_minutes}); "
            f"got {interval_hours}. Try 6, 12 or 24."
        )
    return np.timedelta64(timestep_minutes, "m"), np.timedelta64(interval_hours, "h")


def _single_member(sample: Sample) -> Sample:
    """The fields of the one member there is."""
    return {name: field[0] for name, field in sample.items()}
