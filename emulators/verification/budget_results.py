"""Rows of numbers by lead and initial time, as they come: a batch at one lead, or at a stretch of leads."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Quantity:
    """One column of a ledger. adds_up: what is made in each timestep, to be summed for a drift; `a_year` its units."""

    units: str
    long_name: str
    definition: str
    a_year: str
    adds_up: bool = True


QUANTITIES = {
    "air_drift": Quantity(
        "1", "mass of all air, since the start", "(M(after) - M(start)) / M(start), M = <sum dp> / g", "1 year-1", False
    ),
    "dry_air_drift": Quantity(
        "1",
        "mass of dry air, since the start",
        "(M(after) - M(start)) / M(start), M = <sum (1 - q) dp> / g, q all water that is predicted on levels; "
        "<sum dp> / g where surface pressure is the weight of dry air",
        "1 year-1",
        False,
    ),
    "moisture_residual": Quantity(
        "kg m-2", "water made in a timestep", "W(after) - W(before) - <E - P>, W = <sum q dp> / g", "kg m-2 year-1"
    ),
    "moisture_residual_relative": Quantity(
        "1",
        "the same, as a share of precipitation",
        "(W(after) - W(before) - <E - P>) / <P>; missing where <P> is not above zero",
        "1",
    ),
    "energy_residual": Quantity(
        "W m-2", "energy made", "(H(after) - H(before) - <G>) / dt, G all radiation, heat and friction", "W m-2"
    ),
}
BUDGETED = {"dry_air": ("air_drift", "dry_air_drift"), "energy": ("energy_residual",)}


BUDGETED |= {"moisture": ("moisture_residual", "moisture_residual_relative")}


class RowsByLead:
    """Rows (*shape, init) of so many leads; batches of initial times follow each other as they are added.

    Stretches are kept as they are, so that a century of them takes little more than its numbers. What was added lead by
    lead comes after them.
    """

    def __init__(self, shape: tuple[int, ...], leads: int) -> None:
        self.shape, self.leads = shape, leads
        self._stretches: list[tuple[int, np.ndarray]] = []
        self._rows: dict[int, list[Tensor]] = defaultdict(list)

    def __bool__(self) -> bool:
        return bool(self._stretches or self._rows)

    def add(self, lead: int, row: Tensor) -> None:
        """Take in a batch at one lead, (*shape, init)."""
        self._rows[lead].append(row)

    def extend(self, first: int, stretch: np.ndarray) -> None:
        """Take in a batch at the leads from number `first` on, (*shape, init, lead)."""
        self._stretches.append((first, stretch))

    def array(self) -> np.ndarray:
        """All of them, float64 (*shape, init, lead); NaN where nothing was added."""
        rows = {lead: torch.cat(parts, dim=-1).double().cpu().numpy() for lead, parts in self._rows.items()}
        parts = [*self._stretches, *((lead, row[..., None]) for lead, row in rows.items())]
        count = np.zeros(self.leads, dtype=np.int64)
        for first, part in parts:
            count[first : first + part.shape[-1]] += part.shape[-2]
        whole = np.full((*self.shape, count.max(initial=0), self.leads), np.nan)
        count[:] = 0
        for first, part in parts:
            there = count[first : first + part.shape[-1]]  # how many initial times each lead has already
            for begun in np.unique(there):
                those = there == begun
                whole[..., begun : begun + part.shape[-2], first + np.flatnonzero(those)] = part[..., those]
            there += part.shape[-2]
        return whole
