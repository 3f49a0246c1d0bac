"""Write statistics of the members of a forecast in place of the members.

    partial/<piece>_<block>.npz   sums of a group of members over a block of leads, until the forecast is whole

Groups are merged in their order once all are there, a block of leads at a time: whoever made them, and in however many
processes, the bytes are the same, and memory does not grow with the number of members.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.files.atomic import sha256, write_file
from data_pipelines.forecasts.layout import Layout
from data_pipelines.forecasts.writers import ZarrWriter
from emulators.statistics.ensemble_statistics import Arrays, EnsembleStatistics
from emulators.variables import VariableSet

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
            np.savez(
                content, allow_pickle=False, **{f"{n}/{k}": v for n, s in enumerate(self._leads) for k, v in s.items()}
            )
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
            with np.load(self._path(batch * len(self.layout.groups) + group, block), allow_pickle=False) as file:
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
