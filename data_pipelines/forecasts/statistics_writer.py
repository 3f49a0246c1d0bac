"""Write statistics of the members of a forecast, or means over months and years, in place of the States themselves.

    partial/<piece>_<block>.npz           sums of a group of members over a block of leads
    partial/<piece>_<block>_<pieces>.npz  of so many groups, in place of theirs
    partial/<piece>_<lead>.npz            of means: sums over each period of the leads of a segment, from <lead> on

Two neighbouring groups are merged once both are whole, then two pairs, and so on, so that few files are kept; segments
are merged in their order at the end. Whoever made them, in whatever order and in however many processes, the bytes are
the same, and memory does not grow with the number of members, nor with the length of the forecast.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

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


class Records(Protocol):
    """Describe what is known of the files of each piece of the work; see `rollouts.Segments`."""

    def files(self, batch: int) -> dict[str, str] | None:
        """The sha256 of the files of a piece, by name; None where it is not complete."""
        ...

    def rename(self, batch: int, files: Mapping[str, tuple[str, str]]) -> None:
        """Name other files of a piece: name and sha256 of each, by the name before."""
        ...


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
            name = self._name(piece, lead // self.layout.block)
            self._files[name] = self._save(name, self._leads)
            self._leads = []

    def _save(self, name: str, leads: Sequence[Arrays]) -> str:
        """Write the sums of each lead of a block; the sha256 of the file."""
        content = io.BytesIO()
        sums = {f"{n}/{k}": v for n, s in enumerate(leads) for k, v in s.items()}
        np.savez(content, **sums)  # type: ignore[arg-type]
        write_file(self.folder / name, content.getvalue())
        return sha256(self.folder / name)

    def merge(self, piece: int, segments: Records) -> None:
        """Merge the sums of a piece with those of its neighbours, as far as these are whole; for one process at a time.

        The records of all pieces name the file that they are in, so that a damaged one costs all of them. Files are
        removed once no record names them: whoever is killed within leaves nothing that cannot be continued.
        """
        count = len(self.layout.groups)
        batch, group = divmod(piece, count)
        known = [_pieces_in(name) for name in segments.files(piece) or ()]
        span = 1
        while span < count:
            first = group - group % (2 * span)
            middle, stop = first + span, min(first + 2 * span, count)
            is_merged = middle >= stop or all(pieces >= stop - first for pieces in known)
            if not is_merged and not self._joined(batch * count + first, middle - first, stop - first, segments):
                return
            span *= 2

    def _joined(self, first: int, middle: int, pieces: int, segments: Records) -> bool:
        """Merge the sums of `pieces` pieces from `first` on: those of the first `middle` with those of the others.

        False, and nothing is done, where the sums of one side are not together yet.
        """
        files = {piece: segments.files(piece) or {} for piece in range(first, first + pieces)}
        sides = range(first, first + middle), range(first + middle, first + pieces)
        renamed: dict[int, dict[str, tuple[str, str]]] = {piece: {} for piece in files}
        for block in range(-(-self.layout.steps // self.layout.block)):
            target, parts = self._name(first, block, pieces), [self._name(s.start, block, len(s)) for s in sides]
            made = {sums[target] for sums in files.values() if target in sums}
            if not self._holds(target, made):
                listed = [
                    {files[piece].get(part, "") for piece in side} for part, side in zip(parts, sides, strict=True)
                ]
                if not all(map(self._holds, parts, listed)):
                    return False
                pairs = zip(*map(self._loaded, parts), strict=True)
                made = {self._save(target, [self.sums.merged(a, b) for a, b in pairs])}
            (checksum,) = made
            for piece, sums in files.items():
                renamed[piece] |= {name: (target, checksum) for name in sums if _block_of(name) == block}
        for piece, names in renamed.items():
            segments.rename(piece, names)
        for name in {old for names in renamed.values() for old, (new, _) in names.items() if old != new}:
            (self.folder / name).unlink(missing_ok=True)
        return True

    def _name(self, piece: int, block: int, pieces: int = 1) -> str:
        """The name of the sums of so many pieces from `piece` on, relative to the folder."""
        return f"{FOLDER}/{piece:06d}_{block:06d}{f'_{pieces:06d}' if pieces > 1 else ''}.npz"

    def _holds(self, name: str, checksums: Collection[str]) -> bool:
        """Whether a file is there and has the one checksum that is said of it."""
        path = self.folder / name
        return len(checksums) == 1 and path.is_file() and sha256(path) in checksums

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
        """Write the statistics of all groups of members, merged; return the checksums of the final files."""
        layout, count = self.layout, len(self.layout.groups)
        sums: dict[str, str] = {}
        for batch in range(len(layout.batches)):
            for block, first in enumerate(range(0, layout.steps, layout.block)):
                for number, merged in enumerate(self._loaded(self._name(batch * count, block, count))):
                    self.writer.write(batch, first + number, self.sums.fields(merged))
            sums |= self.writer.finish(batch)
        return self.writer.export(sums, progress)

    def _loaded(self, name: str) -> list[Arrays]:
        """Return the sums at each lead of a block."""
        path = self.folder / name
        with refusing_damage(path), np.load(path, allow_pickle=False) as file:
            by_lead: list[Arrays] = [{} for _ in range(1 + max(int(key.partition("/")[0]) for key in file.files))]
            for key in file.files:
                lead, _, part = key.partition("/")
                by_lead[int(lead)][part] = file[key]
        return by_lead

    def tidy(self) -> None:
        """Remove the sums of groups."""
        shutil.rmtree(self.folder / FOLDER, ignore_errors=True)
        self.writer.tidy()


def _block_of(name: str) -> int:
    """The number of the block that a file of sums is of."""
    return int(Path(name).stem.split("_")[1])


def _pieces_in(name: str) -> int:
    """The number of pieces that a file of sums is of."""
    return int([*Path(name).stem.split("_"), "1"][2])


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

    def merge(self, piece: int, segments: Records) -> None:
        """Do nothing: the segments of a piece are merged at the end, as they are read once."""

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
