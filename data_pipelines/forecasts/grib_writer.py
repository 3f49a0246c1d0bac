"""Write forecasts as GRIB edition 2, a file a lead, beside the Zarr store that they are made in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.files.atomic import atomic_file, could_not_write, sha256
from data_pipelines.forecasts.grib_messages import GribCode, MessageTemplate, code_of, refuse_unwritable
from data_pipelines.forecasts.layout import Layout
from data_pipelines.forecasts.writers import ZarrWriter
from emulators.grid import lat_lon
from emulators.variables import Variable, VariableSet

FOLDER = "grib"


class GribWriter(ZarrWriter):
    """Write forecast.zarr while the forecast runs, and grib/<initial time>_<lead>.grib2 once it is whole.

    variables, levels: what the GRIB files hold; None: all. names: short names of ecCodes for variables that have none
    here, {variable: shortName}. bits: of a value. packing: grid_simple, or grid_ccsds, which is smaller and loses no
    more. centre: number of the originating centre in WMO's common table 11; 255: none. compression,
    chunk_megabytes: of the store, as in ZarrWriter.
    """

    def __init__(
        self,
        *,
        variables: Sequence[str] | None = None,
        levels: Sequence[float] | None = None,
        names: Mapping[str, str] | None = None,
        bits: int = 16,
        packing: str = "grid_ccsds",
        centre: int = 255,
        compression: int = 0,
        chunk_megabytes: float = 1.0,
    ) -> None:
        super().__init__(compression=compression, chunk_megabytes=chunk_megabytes)
        if not 1 <= bits <= 24 or packing not in ("grid_simple", "grid_ccsds"):
            raise ValueError(
                "writer=grib needs bits within 1..24 and packing=grid_simple or grid_ccsds; got "
                f"bits={bits}, packing={packing}."
            )
        self.chosen, self.levels, self.names = variables, levels, {str(k): str(v) for k, v in (names or {}).items()}
        self.encoding: dict[str, Any] = {"bits": bits, "packing": packing, "centre": centre}

    def plain(self) -> dict[str, Any]:
        """The settings that the bytes on disk depend on."""
        subset = {"variables": self.chosen and list(self.chosen), "levels": self.levels and list(self.levels)}
        return {**super().plain(), "grib": {**subset, "names": self.names, **self.encoding}}

    def refuse_unsuited(self, layout: Layout) -> None:
        """Raise ValueError where ecCodes is absent, or where these fields have no place in GRIB."""
        try:
            import eccodes  # noqa: F401
        except (ImportError, RuntimeError) as error:
            raise ValueError("writer=grib needs eccodes: pip install 'emul[grib]'.") from error
        world = layout.world
        for name in self.chosen or ():
            if name not in world.predicted:
                raise ValueError(f"writer.variables: no {name}; predicted are {', '.join(world.predicted.names)}.")
        held = {level for variable in world.predicted for level in variable.levels}
        if absent := [level for level in self.levels or () if float(level) not in held]:
            raise ValueError(f"writer.levels: no level {absent[0]:g}; there are {', '.join(f'{x:g}' for x in held)}.")
        refuse_unwritable(self._written(world.predicted), world.grid, world.vertical, self.names)

    def _written(self, predicted: VariableSet) -> VariableSet:
        """The variables that the GRIB files hold."""
        return VariableSet(tuple(v for v in predicted if self.chosen is None or v.name in self.chosen))

    def export(self, checksums: dict[str, str], progress: Callable[[float], None] | None = None) -> dict[str, str]:
        """Write the GRIB files from the finished store; the checksums of all files."""
        import zarr

        checksums = super().export(checksums, progress)
        layout = self.layout
        root = zarr.open_group(self.store, mode="r")
        folder = self.folder / FOLDER
        folder.mkdir(exist_ok=True)
        template = MessageTemplate(lat_lon(layout.world.grid), layout.world.vertical, **self.encoding)
        try:
            for number, rows in enumerate(layout.batches):
                for first in range(0, layout.steps, layout.block):
                    leads = slice(first, min(first + layout.block, layout.steps))
                    for path, messages in self._files(root, rows, leads, template):
                        _write(folder / path, messages)
                        checksums[f"{FOLDER}/{path}"] = sha256(folder / path)
                if progress:
                    progress((number + 1) / len(layout.batches))
        finally:
            template.close()
        return checksums

    def _files(
        self, root: Any, rows: slice, leads: slice, template: MessageTemplate
    ) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Yield the name of each file of a batch and a block of leads, and its messages."""
        layout = self.layout
        written = self._written(layout.world.predicted)
        members = [slice(None)] if layout.members else []
        fields = {v.name: np.asarray(root[v.name][(rows, *members, leads)]) for v in written}
        for row, init in enumerate(layout.inits[rows]):
            for lead in range(leads.start, leads.stop):
                length = layout.valid_times[rows.start + row, lead] - init
                hours = length / np.timedelta64(1, "h")
                name = f"{init.item():%Y%m%dT%H%M}_{hours:05.0f}h" if hours.is_integer() else ""
                name = name or f"{init.item():%Y%m%dT%H%M}_{length.astype(int):08d}s"
                axis = 1 if layout.members else 0
                place = {key: array[row].take(lead - leads.start, axis) for key, array in fields.items()}
                yield f"{name}.grib2", self._messages(place, written, template, init, length)

    def _messages(
        self,
        fields: Mapping[str, np.ndarray],
        written: VariableSet,
        template: MessageTemplate,
        init: np.datetime64,
        lead: np.timedelta64,
    ) -> Iterator[bytes]:
        for variable in written:
            code = code_of(variable, self.names) or GribCode(variable.name)
            for member, values in self._by_member(fields[variable.name]):
                for level, field in self._by_place(variable, values):
                    yield template.message(field, code, init, lead, level=level, member=member)

    def _by_member(self, values: np.ndarray) -> Iterator[tuple[tuple[int, int] | None, np.ndarray]]:
        if not self.layout.members:
            yield None, values
            return
        yield from (((number, len(values)), values[number]) for number in range(len(values)))

    def _by_place(
        self, variable: Variable, values: np.ndarray
    ) -> Iterator[tuple[tuple[int, float] | None, np.ndarray]]:
        if not variable.levels:
            yield None, values
            return
        positions = np.arange(self.layout.levels.size)[self.layout.level_positions(variable)]
        for place, level in zip(positions, variable.levels, strict=True):
            if self.levels is None or level in map(float, self.levels):
                yield (int(place) + 1, float(level)), values[place]


def _write(path: Path, messages: Iterator[bytes]) -> None:
    try:
        with atomic_file(path) as unfinished, open(unfinished, "wb") as file:
            file.writelines(messages)
    except OSError as error:
        raise could_not_write(path, error) from error
