"""Read pairs of forecast and truth, matched by valid time, a block at a time.

Valid time = initial time + lead, or what the forecast's own `valid_time` says. A pair whose truth does not exist is
counted and left out; so is, by default, one whose truth lies beyond a gap in its times (`durations.unbroken_until`),
since the times after it may belong to another trajectory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr

from data_pipelines.conventions.attributes import grid_of
from data_pipelines.conventions.durations import unbroken_until
from data_pipelines.reading.stacking import channel_array, on_grid
from data_pipelines.verification.matching import shared_variables, with_labels
from data_pipelines.verification.truth import Reader
from emulators.scores.interfaces import Pair
from emulators.state import State
from emulators.variables import Variable, VariableSet
from emulators.world import World


@dataclass(frozen=True)
class Block:
    """Positions of initial times and leads that are read at once."""

    inits: slice
    leads: slice


class Pairs:
    """Read pairs of a forecast and a truth, both canonical datasets on the same grid.

    variables: names or {name: [levels]}; None: all that both hold. leads, inits: which of the forecast's; None: all.
    across_gaps: score against truth beyond a gap as well. megabytes: how much of the forecast is read at a time; twice
    that is held of the forecast, and of the truth.
    """

    def __init__(
        self,
        forecast: xr.Dataset,
        truth: xr.Dataset,
        *,
        variables: Sequence | None = None,
        levels: Sequence[float] | None = None,
        leads: np.ndarray | None = None,
        inits: np.ndarray | None = None,
        across_gaps: bool = False,
        megabytes: float = 512,
    ) -> None:
        self.grid, self.across_gaps = grid_of(forecast), across_gaps
        self.variables = shared_variables(forecast, truth, variables, levels)
        self.forecast = with_labels(with_labels(forecast, "prediction_timedelta", leads), "time", inits)
        self.truth = Reader(on_grid(truth, self.grid), self.variables, 2 * megabytes)
        self.inits = self.forecast["time"].values.astype("datetime64[s]")
        self.leads = self.forecast["prediction_timedelta"].values.astype("timedelta64[s]")
        self.valid = self.forecast["valid_time"].values.astype("datetime64[s]")
        self.index, self.starts = self.truth.find(self.valid), self.truth.find(self.inits)
        if not across_gaps:
            self.index[self.valid > unbroken_until(self.truth.times, self.inits)[:, None]] = -1
        self.members = forecast.sizes.get("member", 0)
        fields = self.variables.size * max(1, self.members)
        self.room = max(1, int(megabytes * 2**20 / (4 * fields * np.prod(self.grid.shape))))
        if not (self.index >= 0).any():
            have, assumed = self.truth.times, str(forecast.attrs.get("assumed", ""))
            raise ValueError(
                f"No valid time of the forecast ({self.valid.min()} to {self.valid.max()}) is in the truth "
                f"({f'{have.min()} to {have.max()}, {have.size} times' if have.size else 'it has no times'}); "
                f"give a truth that covers the forecast.{' ' if assumed else ''}{assumed}"
            )

    @property
    def missing(self) -> int:
        """The number of pairs (init and lead) without truth."""
        return int((self.index < 0).sum())

    @property
    def absent(self) -> np.ndarray:
        """The valid times that lack their truth, in order, datetime64[s]."""
        return np.unique(self.valid[self.index < 0])

    @property
    def total(self) -> int:
        """The number of pairs (init and lead) that can be scored."""
        return int((self.index >= 0).sum())

    def world(self) -> World:
        """The World on which scores are computed: the forecast's grid, and the land where the truth has it."""
        static, fields = VariableSet(), None
        if "land_sea_mask" in self.truth.dataset:
            land = self.truth.dataset["land_sea_mask"]
            land = land.isel(time=0) if "time" in land.dims else land
            static, fields = VariableSet((Variable("land_sea_mask"),)), land.values[None].astype(np.float64)
        return World(self.grid, self.variables, self.leads[0], static=static, static_fields=fields)

    def attributes(self) -> dict[str, str]:
        """The initial times and valid times that are scored, for the attributes of scores."""
        inits, scored = self.inits, (self.index >= 0).any(axis=1)
        return {
            "inits": f"{inits[0]} to {inits[-1]}",
            "inits_used": _times_text(inits[scored]),
            "inits_skipped": _times_text(inits[~scored]) or "none",
            "valid_times_missing": _times_text(self.absent) or "none",
            "pairs": f"{self.total} of {self.total + self.missing} (initial time x lead) scored",
        }

    def missing_note(self) -> str:
        """A sentence on the pairs that lack their truth; empty where none does."""
        if not self.missing:
            return ""
        absent = np.datetime_as_string(self.absent, "h").tolist()
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        return (
            f"{self.missing} of {self.missing + self.total} pairs of initial time and lead have no truth"
            f"{'' if self.across_gaps else ' before a gap'} and were left out, those valid at {', '.join(absent[:5])}"
            f"{more} (the truth runs from {self.truth.times[0]} to {self.truth.times[-1]})."
        )

    def __iter__(self) -> Iterator[Pair]:
        return self.of(self.blocks())

    def blocks(self, share: int = 1, shares: int = 1) -> list[Block]:
        """The blocks that are read at once, in order: as many initial times and leads as fit, where any has its truth.

        share, shares: only those of the initial times of one share (from 1) of several, as even as can be.
        """
        leads = min(len(self.leads), self.room)
        inits = max(1, self.room // leads)
        begin, end = (len(self.inits) * place // shares for place in (share - 1, share))
        found = [
            Block(slice(first, min(first + inits, end)), slice(start, start + leads))
            for first in range(begin, end, inits)
            for start in range(0, len(self.leads), leads)
        ]
        return [block for block in found if self.count(block)]

    def count(self, block: Block) -> int:
        """The number of pairs (init and lead) of a block that can be scored."""
        return int((self.index[block.inits, block.leads] >= 0).sum())

    def of(self, blocks: Sequence[Block]) -> Iterator[Pair]:
        """The pairs of some blocks."""
        with ThreadPoolExecutor(1) as reader:  # the next block of the forecast is read while this one is scored
            ahead: deque[tuple[Block, Future[torch.Tensor]]] = deque()
            for block in blocks:
                ahead.append((block, reader.submit(self._read, block)))
                if len(ahead) > 1:
                    yield from self._pairs(*ahead.popleft())
            while ahead:
                yield from self._pairs(*ahead.popleft())

    def _read(self, block: Block) -> torch.Tensor:
        """A block of the forecast, (lead, [member,] init, channel, lat, lon)."""
        part = self.forecast.isel(time=block.inits, prediction_timedelta=block.leads)
        member = ("member",) if self.members else ()
        return torch.from_numpy(channel_array(part, self.variables, ("prediction_timedelta", *member, "time")))

    def _pairs(self, block: Block, read: Future[torch.Tensor]) -> Iterator[Pair]:
        """The pairs of a block; the truth they share is read in one go where it fits."""
        rows, first = block.inits, block.leads.start
        index, starts = self.index[rows, block.leads], self.starts[rows]
        self._prefetch(index)
        values = read.result()
        leads = np.flatnonzero((index >= 0).any(axis=0))
        for lead in leads.tolist():
            there = np.flatnonzero(index[:, lead] >= 0)
            known = starts[there] >= 0

            def start(wanted: np.ndarray = starts[there][known]) -> State:
                self._prefetch(starts)
                return self.truth.read(wanted)

            yield Pair(
                first + lead,
                self.inits[rows][there],
                State(_rows(values[lead], there), self.variables, self.valid[rows, first + lead][there]),
                self.truth.read(index[there, lead]),
                known,
                lead == leads[-1],
                start,
            )

    def _prefetch(self, index: np.ndarray) -> None:
        """Read the truth at `index` at once, where it fits."""
        needed = np.unique(index[index >= 0])
        if needed.size <= self.truth.fields.room:
            self.truth.fields.prefetch(needed)


def _rows(values: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
    """Some initial times of (..., init, channel, lat, lon); not a copy where it is all of them."""
    return values if rows.size == values.shape[-4] else values[..., torch.from_numpy(rows), :, :, :]


def _times_text(times: np.ndarray) -> str:
    """`2020-01-01T00 to 2020-12-30T00 every 12 hours (730)` where the steps are even, else every time."""
    steps = np.unique(np.diff(times))
    if len(times) > 2 and len(steps) == 1:
        step = steps[0].astype("timedelta64[h]") if not steps[0].astype(int) % 3600 else steps[0]
        first, last = np.datetime_as_string(times[[0, -1]], "h")
        return f"{first} to {last} every {step} ({len(times)})"
    return " ".join(np.datetime_as_string(times, "h").tolist())
