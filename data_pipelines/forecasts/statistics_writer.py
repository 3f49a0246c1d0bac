"""Write statistics of the members of a forecast, or means over months and years, in place of the States themselves.

    partial/<piece>_<block>.npz   sums of a group of members over a block of leads, until the forecast is whole
    partial/<piece>_<lead>.npz    of means: sums over each period of the leads of a segment, which begins with <lead>

Groups and segments are merged in their order once all are there: whoever made them, and in however many processes, the
bytes are the same, and memory does not grow with the number of members, nor with the length of the forecast.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.conventions.durations import duration_text
from data_pipelines.files.archives import refusing_damage
from data_pipelines.files.atomic import sha256, write_file
from data_pipelines.forecasts.layout import Layout
from data_pipelines.forecasts.writers import ZarrWriter
from emulators.statistics.ensemble_statistics import Arrays, EnsembleStatistics
from emulators.variables import VariableSet
from emulators.world import World, nominal_seconds

FOLDER = "partial"


class StatisticsWriter:
    """Write mean, standard deviation, extremes, quantiles and probabilities of events with another writer.

    quantiles, events, cells: as of `EnsembleStatistics`.
    """

    def __init__(
        self, writer: ZarrWriter, *, quantiles: Sequence[float], events: Mapping[str, str], cells: int = 200
    ) -> None:
        self.writer, self.name = writer, writer.name
        self.settings: dict[str, Any] = {
            "quantiles": [float(q) for q in quantiles],
            "events": {str(name): str(text) for name, text in events.items()},
            "cells": cells,
        }

    def statistics(self, variables: VariableSet) -> EnsembleStatistics:
        """Return the statistics of these variables; ValueError where the settings do not suit them."""
        return EnsembleStatistics(variables, **self.settings)

    def leads_per_chunk(self, largest: int) -> int:
        """The number of leads in a chunk. largest: size of the largest variable at one lead of one batch."""
        return self.writer.leads_per_chunk(largest)

    def plain(self) -> dict[str, Any]:
        """The settings that the bytes on disk depend on."""
        return {**self.writer.plain(), "keep": "statistics", **self.settings}

    def _stored(self, layout: Layout) -> Layout:
        """The layout of the statistics of an ensemble in this layout."""
        variables = self.statistics(layout.world.predicted).variables
        world = replace(layout.world, prognostic=variables, diagnostic=VariableSet())
        attributes = {**layout.attributes, "ensemble_statistics": str(layout.members)}
        return replace(layout, world=world, members=0, member_batch=0, attributes=attributes)

    def refuse_unsuited(self, layout: Layout) -> None:
        """Raise ValueError where the form of the files cannot hold the statistics."""
        self.writer.refuse_unsuited(self._stored(layout))

    def open(self, folder: Path, layout: Layout) -> None:
        """Lay out the store of the statistics, or take up the one that is there."""
        self.layout, self.folder = layout, Path(folder)
        self.sums = self.statistics(layout.world.predicted)
        self.writer.open(folder, self._stored(layout))
        (self.folder / FOLDER).mkdir(exist_ok=True)
        self._leads: list[Arrays] = []
        self._files: dict[str, str] = {}

    def write(self, piece: int, lead: int, values: np.ndarray) -> None:
        """Add some members at lead number `lead` (from 0): float32 (member, init, channel, lat, lon)."""
        if lead % self.layout.block == 0:
            self._leads = []
        self._leads.append(self.sums.partial(values))
        if len(self._leads) == self.layout.block or lead == self.layout.steps - 1:
            content = io.BytesIO()
            sums = {f"{n}/{k}": v for n, s in enumerate(self._leads) for k, v in s.items()}
            np.savez(content, **sums)  # type: ignore[arg-type]
            path = self._path(piece, lead // self.layout.block)
            write_file(path, content.getvalue())
            self._files[f"{FOLDER}/{path.name}"] = sha256(path)
            self._leads = []

    def _path(self, piece: int, block: int) -> Path:
        return self.folder / FOLDER / f"{piece:06d}_{block:06d}.npz"

    def finish(self, piece: int) -> dict[str, str]:
        """Return the sha256 of the files of the piece since the last call, by path relative to the folder."""
        files, self._files = self._files, {}
        return files

    def close(self) -> None:
        """End the writing thread."""
        self.writer.close()

    def mark(self, verdict: str) -> None:
        """Write the verdict into the attributes of the store."""
        self.writer.mark(verdict)

    def export(self, checksums: dict[str, str], progress: Callable[[float], None] | None = None) -> dict[str, str]:
        """Merge the groups of members and write the statistics; return the checksums of the final files."""
        layout = self.layout
        sums: dict[str, str] = {}
        for batch in range(len(layout.batches)):
            for block, first in enumerate(range(0, layout.steps, layout.block)):
                for number, merged in enumerate(self._merged(batch, block)):
                    self.writer.write(batch, first + number, self.sums.fields(merged))
            sums |= self.writer.finish(batch)
        return self.writer.export(sums, progress)

    def _merged(self, batch: int, block: int) -> list[Arrays]:
        """Return the sums of all members of a batch at each lead of a block."""
        merged: list[Arrays] = []
        for group in range(len(self.layout.groups)):
            path = self._path(batch * len(self.layout.groups) + group, block)
            with refusing_damage(path), np.load(path, allow_pickle=False) as file:
                leads = 1 + max(int(name.partition("/")[0]) for name in file.files)
                by_lead: list[Arrays] = [{} for _ in range(leads)]
                for name in file.files:
                    lead, _, key = name.partition("/")
                    by_lead[int(lead)][key] = file[name]
            merged = [self.sums.merged(a, b) for a, b in zip(merged, by_lead, strict=True)] if merged else by_lead
        return merged

    def tidy(self) -> None:
        """Remove the sums of groups."""
        shutil.rmtree(self.folder / FOLDER, ignore_errors=True)
        self.writer.tidy()


MONTHS = {"monthly": 1, "annual": 12}  # of the periods that `keep` may name


class MeansWriter:
    """Write means over months, or years, since the initial time with another writer.

    keep: `monthly` or `annual`. Period n holds the States after n - 1 and up to n months (years) from the initial time,
    and has the latter as its valid time: from the first of January on, the months of the calendar. States after the
    last whole period count for nothing.
    """

    def __init__(self, writer: ZarrWriter, keep: str) -> None:
        self.writer, self.name, self.keep = writer, writer.name, keep
        self.step, self.period = np.timedelta64(MONTHS[keep], "M"), f"{MONTHS[keep]}mo"

    def periods(self, world: World, inits: np.ndarray, steps: int) -> np.ndarray:
        """Return the number of the period, from 0, of every State, (init, lead); -1 after the last whole one.

        Raises ValueError where timesteps are as long as periods, or the forecast is shorter than one.
        """
        if nominal_seconds(world.timestep) > nominal_seconds(self.step) / 2:
            raise ValueError(f"keep={self.keep}: one timestep is {duration_text(world.timestep)}; take keep=members.")
        valid = np.stack([world.after(inits, lead) for lead in range(1, steps + 1)], axis=1)
        means = replace(world, timestep=self.step)
        longest = int(nominal_seconds(world.timestep) * steps / nominal_seconds(self.step)) + 2
        ends = np.stack([means.after(inits, number) for number in range(1, longest + 1)], axis=1)
        whole = int((ends <= valid[:, -1:]).sum(axis=1).min())
        if not whole:
            raise ValueError(
                f"keep={self.keep}: the forecast is shorter than a period; take lead={self.period} or more."
            )
        rows = [np.searchsorted(end, times, side="left") for end, times in zip(ends, valid, strict=True)]
        return np.where(np.array(rows) < whole, rows, -1)

    def leads_per_chunk(self, largest: int) -> int:
        """The number of leads that appear together: sums are written at the end of segments of any length."""
        return 1

    def plain(self) -> dict[str, Any]:
        """The settings that the bytes on disk depend on."""
        return {**self.writer.plain(), "keep": self.keep}

    def refuse_unsuited(self, layout: Layout) -> None:
        """Raise ValueError where there are no such means, or the form of the files cannot hold them."""
        if "grib" in self.writer.plain():
            raise ValueError(f"keep={self.keep}: writer=grib says of no field that it is a mean; take writer=netcdf.")
        self.writer.refuse_unsuited(self._stored(layout))

    def _stored(self, layout: Layout) -> Layout:
        """The layout of the means."""
        count = int(self.periods(layout.world, layout.inits, layout.steps).max()) + 1
        largest = max(variable.size for variable in layout.world.predicted) * layout.batch * max(1, layout.members)
        attributes = {**layout.attributes, "time_means": self.period}
        world = replace(layout.world, timestep=self.step)
        block = self.writer.leads_per_chunk(largest * world.grid.size)
        return replace(layout, world=world, steps=count, block=min(count, block), attributes=attributes)

    def open(self, folder: Path, layout: Layout) -> None:
        """Lay out the store of the means, or take up the one that is there."""
        self.layout, self.folder = layout, Path(folder)
        self.numbers = self.periods(layout.world, layout.inits, layout.steps)
        self.writer.open(folder, self._stored(layout))
        (self.folder / FOLDER).mkdir(exist_ok=True)
        self._first: int | None = None
        self._sums: dict[int, np.ndarray] = {}

    def write(self, piece: int, lead: int, values: np.ndarray) -> None:
        """Add the States of lead number `lead` (from 0): float32 ([member,] init, channel, *grid)."""
        self._first = lead if self._first is None else self._first
        numbers = self.numbers[self.layout.pieces[piece][0], lead]
        axis = 1 if self.layout.members else 0  # of the initial times
        for number in np.unique(numbers[numbers >= 0]):
            if number not in self._sums:
                self._sums[int(number)] = np.zeros(values.shape, dtype=np.float64)
            rows = (slice(None),) * axis + (numbers == number,)
            self._sums[int(number)][rows] += values[rows]

    def finish(self, piece: int) -> dict[str, str]:
        """Write the sums since the last call; return the sha256 of their file, by path relative to the folder."""
        if self._first is None:
            return {}
        content = io.BytesIO()
        np.savez(content, **{str(number): sums for number, sums in self._sums.items()})  # type: ignore[arg-type]
        path = self.folder / FOLDER / f"{piece:06d}_{self._first:09d}.npz"
        write_file(path, content.getvalue())
        self._first, self._sums = None, {}
        return {f"{FOLDER}/{path.name}": sha256(path)}

    def close(self) -> None:
        """End the writing thread."""
        self.writer.close()

    def mark(self, verdict: str) -> None:
        """Write the verdict into the attributes of the store."""
        self.writer.mark(verdict)

    def export(self, checksums: dict[str, str], progress: Callable[[float], None] | None = None) -> dict[str, str]:
        """Merge the sums of the segments and write the means; return the checksums of the final files."""
        sums: dict[str, str] = {}
        for piece, (rows, _) in enumerate(self.layout.pieces):
            files = sorted(name for name in checksums if name.startswith(f"{FOLDER}/{piece:06d}_"))
            for number, total in self._merged(files):
                counts = (self.numbers[rows] == number).sum(axis=1)
                divisor = counts.reshape(-1, *[1] * (total.ndim - (2 if self.layout.members else 1)))
                self.writer.write(piece, number, (total / divisor).astype(np.float32))
            sums |= self.writer.finish(piece)
        return self.writer.export(sums, progress)

    def _merged(self, files: Sequence[str]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the sums over each period, in order; those of two segments at most are held."""
        pending: dict[int, np.ndarray] = {}
        for name in files:
            with np.load(self.folder / name, allow_pickle=False) as file:
                for number in file.files:
                    sums = file[number]
                    pending[int(number)] = pending[int(number)] + sums if int(number) in pending else sums
                latest = max(map(int, file.files), default=-1)
            earliest = int(self.numbers.max()) + 1 if name == files[-1] else latest - 1
            for number in sorted(pending):
                if number < earliest:
                    yield number, pending.pop(number)

    def tidy(self) -> None:
        """Remove the sums of segments."""
        shutil.rmtree(self.folder / FOLDER, ignore_errors=True)
        self.writer.tidy()


Writer = ZarrWriter | StatisticsWriter | MeansWriter


def writer_that_keeps(
    keep: str, writer: ZarrWriter, variables: VariableSet, members: int | None, **statistics: Any
) -> Writer:
    """Return `writer` where keep=members, else one that writes statistics or means of these variables with it.

    statistics: arguments of StatisticsWriter. ValueError where they do not suit the variables, or there is no ensemble.
    """
    if keep not in ("members", "statistics", *MONTHS):
        raise ValueError(f"keep: expected members or statistics, monthly or annual; got '{keep}'.")
    if keep == "members":
        return writer
    if keep in MONTHS:
        return MeansWriter(writer, keep)
    if not members:
        raise ValueError("keep=statistics is of an ensemble; give the number of its members, such as members=100.")
    statistics_writer = StatisticsWriter(writer, **statistics)
    statistics_writer.statistics(variables)  # refuses what does not suit
    return statistics_writer
