"""Sources simulated by a small model: all trajectories side by side in one tensor, and identical twins.

A source defines the template of its store and the initial state of its model. `SimulatedSource` makes the store from
them, and runs the twins for `data_pipelines.inspection.predictability`.
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

from data_pipelines.interfaces import Progress, Sample, TwinCase
from data_pipelines.reading.threads import one_thread
from data_pipelines.simulators.stores import Trajectories, make_once, open_store

GAP = np.timedelta64(10, "D")  # between trajectories
TWINS_INTERVAL = np.timedelta64(6, "h")


class Model(Protocol):
    """Integrate equations of motion for several members at once; each model defines the shape of its states."""

    def step(self, state: Tensor) -> Tensor:
        """Return the state one timestep later."""
        ...

    def sample(self, state: Tensor) -> Sample:
        """Return the fields that change by name, float32, (member, [level,] lat, lon)."""
        ...

    def static(self) -> Sample:
        """Return the fields that do not change by name, (lat, lon)."""
        ...

    def disturbed(self, state: Tensor, size: float, generator: torch.Generator) -> Tensor:
        """Return the state with noise of rms `size`, in the units of the model's wind or of its only variable."""
        ...


class Integration:
    """Hold a model and its present state, and advance it."""

    def __init__(self, model: Model, state: Tensor) -> None:
        self.model, self.state = model, state

    def advance(self, steps: int) -> None:
        """Advance by `steps` timesteps."""
        for _ in range(steps):
            self.state = self.model.step(self.state)

    def sample(self) -> Sample:
        """Return the present fields; see `Model.sample`."""
        return self.model.sample(self.state)


class SimulatedSource(ABC):
    """Simulate a store with one model on first use; base class of such sources.

    label: name for progress and messages. seed: of the noise. path: of the store. splits: first and last time by name.
    timestep: of the model. spinup: time simulated before the first stored sample.
    """

    label: str
    seed: int
    path: Path
    splits: Mapping[str, list[str | int]]
    trajectories: Trajectories
    timestep: np.timedelta64
    spinup: np.timedelta64

    @abstractmethod
    def template(self) -> xr.Dataset:
        """Return the coordinates, attributes and shapes of the dataset, without its values."""

    @abstractmethod
    def initial_state(self, members: int) -> tuple[Model, Tensor]:
        """Return the model, and the states of `members` trajectories before their spin-up."""

    def prepare(self, progress: Progress | None = None) -> None:
        """Make the store if it is missing. An interrupted run leaves no store behind."""
        report = progress or (lambda label, share: None)
        count, interval = self.trajectories.samples, self.trajectories.interval
        steps, spinup = int(interval / self.timestep), int(self.spinup / interval)

        def samples(run: Integration) -> Iterator[Sample]:
            for index in range(-spinup, count):
                if index >= 0:
                    yield run.sample()
                run.advance(steps)
                report(self.label, (spinup + index + 1) / (spinup + count))

        def fill(folder: Path) -> None:
            with one_thread():
                run = Integration(*self.initial_state(self.trajectories.number))
                self.trajectories.write(folder, self.template(), samples(run), run.model.static())

        make_once(self.path, fill)

    def dataset(self) -> xr.Dataset:
        """Open the dataset lazily; FileNotFoundError if the store is not made yet."""
        return open_store(self.path, [str(name) for name in self.template().data_vars], self.label)

    def controls(self, cases: int, report: Progress) -> list[Integration]:
        """Return the control of each twin case; here the cases follow each other along one trajectory."""
        control = Integration(*self.initial_state(1))
        report("spin-up", 0.0)
        control.advance(int(self.spinup / self.timestep))
        return [control] * cases

    def twins(self, cases: int, leads: int, perturbation: float, report: Progress) -> Iterator[TwinCase]:
        """Yield twin cases, each from the present state of its control; see `data_pipelines.interfaces.TwinSource`."""
        controls = self.controls(cases, report)
        steps, total = int(TWINS_INTERVAL / self.timestep), len(controls) * leads
        generator = torch.Generator().manual_seed(self.seed)

        def samples(run: Integration, done: int) -> Iterator[Sample]:
            for lead in range(1, leads + 1):
                run.advance(steps)
                yield _first_member(run.sample())
                report("twins", (done + lead) / total)

        for case, control in enumerate(controls):
            twin = Integration(control.model, control.model.disturbed(control.state, perturbation, generator))
            first, done = _first_member(control.sample()), case * leads
            yield TwinCase(first, samples(control, done), samples(twin, done))


def checked_intervals(name: str, timestep_minutes: int, interval_hours: int) -> tuple[np.timedelta64, np.timedelta64]:
    """Return the timestep and the interval between samples.

    Raises ValueError unless the timestep divides the interval and 6 hours, and the interval divides a day.
    """
    if timestep_minutes < 1 or 360 % timestep_minutes:
        raise ValueError(f"{name}: timestep_minutes must divide 6 hours; got {timestep_minutes}. Try 120, 60 or 15.")
    if interval_hours < 1 or 24 % interval_hours or 60 * interval_hours % timestep_minutes:
        raise ValueError(
            f"{name}: interval_hours must divide a day and be a multiple of timestep_minutes ({timestep_minutes}); "
            f"got {interval_hours}. Try 6, 12 or 24."
        )
    return np.timedelta64(timestep_minutes, "m"), np.timedelta64(interval_hours, "h")


def _first_member(sample: Sample) -> Sample:
    """Return the fields of the first member."""
    return {name: field[0] for name, field in sample.items()}
