"""Pairs of simulations that start almost alike, to measure error growth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import xarray as xr

Progress = Callable[[str, float], None]
Sample = Mapping[str, np.ndarray]


class Case(NamedTuple):
    """One start: the sample at lead 0, and those of control and twin from the first lead on, run as they are read."""

    first: Sample
    control: Iterator[Sample]
    twin: Iterator[Sample]


class TwinSource(Protocol):
    """A source of data that can simulate its world twice."""

    path: Path

    def dataset(self) -> xr.Dataset:
        """The stored data, lazily."""
        ...

    def twins(self, cases: int, leads: int, perturbation: float, report: Progress) -> Iterator[Case]:
        """Cases of `leads` samples, 6 hours apart; fields ([level,] lat, lon) by the names of the dataset."""
        ...
