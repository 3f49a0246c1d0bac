"""Interfaces of data sources: what a dataset of `conf/data` offers, and what some of them can do besides.

A source is any class with the members of `Source`; it need not inherit from it. The file of a new source goes into
`data_pipelines/sources` or into a folder of the user's own, with a YAML in `conf/data` that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import xarray as xr

Progress = Callable[[str, float], None]  # called with a label and the completed share of the work, 0 to 1
Sample = Mapping[str, np.ndarray]  # the fields at one time by name, ([level,] lat, lon)


class Source(Protocol):
    """Provide a dataset for training, forecasting and verification."""

    @property
    def path(self) -> str | Path | Sequence[str]:
        """Return where the data are: a file, a store, a pattern, an address, or a list of these."""
        ...

    @property
    def splits(self) -> Mapping[str, Sequence[str | int] | None]:
        """Return first and last time of each split, both included: {"train": ["1979", "2015"], ...}; None if unset."""
        ...

    def prepare(self, progress: Progress | None = None) -> None:
        """Make the data if they are missing, and check that they can be opened.

        Several processes may call this at the same time. Raises FileNotFoundError or ValueError if the data cannot be
        used.
        """
        ...

    def template(self) -> xr.Dataset:
        """Return a dataset with the coordinates, attributes and shapes of `dataset`, without making or reading data."""
        ...

    def dataset(self) -> xr.Dataset:
        """Open the data lazily as one canonical dataset: WeatherBench 2 names, SI units, latitude north to south."""
        ...


class TwinCase(NamedTuple):
    """Hold one case of an identical-twin experiment.

    first: the sample at lead 0. control, twin: the samples from the first lead on, simulated as they are read.
    """

    first: Sample
    control: Iterator[Sample]
    twin: Iterator[Sample]


@runtime_checkable
class TwinSource(Source, Protocol):
    """Provide simulated data, and simulate again from nearly equal states; `isinstance(source, TwinSource)` tells."""

    @property
    def path(self) -> Path:
        """Return the path of the store."""
        ...

    @property
    def hidden(self) -> Collection[str]:
        """Return the variables of the simulated state that a twin can forget, for emulators that are not given them."""
        ...

    def twins(
        self, cases: int, leads: int, perturbation: float, report: Progress, forgotten: Collection[str] = ()
    ) -> Iterator[TwinCase]:
        """Yield `cases` pairs of simulations of `leads` samples, 6 hours apart.

        perturbation: rms of the noise that is added to the twin, in the units of the variable that it disturbs.
        forgotten: variables of `hidden` that the twin starts with as they are estimated from all others.
        """
        ...


@runtime_checkable
class RestartableSource(TwinSource, Protocol):
    """Provide simulated data that can be simulated on from any stored time; `isinstance(source, ...)` tells."""

    @property
    def state_variables(self) -> tuple[str, ...]:
        """Return the names of the stored fields that make a state: what an analysis would be of."""
        ...

    def continued(self, first: Sample, start: np.datetime64) -> Iterator[Sample]:
        """Yield what follows the fields of several members at `start`, (member, [level,] lat, lon), without an end.

        first: all stored fields that have a time. Samples are an interval of the store apart, the first one later.
        """
        ...
