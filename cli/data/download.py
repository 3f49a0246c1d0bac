"""`emul data download`: a part of a store elsewhere, copied here; stopped, the same command goes on."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from data_pipelines.files.atomic import bytes_text
from emul.data.arguments import Selection, selected
from emul.terminal.console import header, next_command, progress


@dataclass(frozen=True)
class DownloadSettings(Selection):
    """Select the part to copy. to: the store to write."""

    to: str | None = None


def main(arguments: list[str]) -> None:
    """The words after `emul data download`: the data, the part of them, and where to put it."""
    from data_pipelines.packing.copying import copy_to_zarr

    dataset, settings, recipe = selected(arguments, DownloadSettings)
    if not settings.to:
        raise ValueError("Where to? Add the place of the copy, such as to=era5.zarr.")
    path = Path(settings.to)
    size = sum(4 * field.size for field in dataset.data_vars.values())
    times = f"{dataset.sizes['time']:,} times, " if "time" in dataset.dims else ""
    header(
        f"emul data download {recipe['origin']}",
        [f"{len(dataset.data_vars)} variables, {times}{bytes_text(size)} before compression, to {path}"],
    )
    with progress("downloading") as report:
        copy_to_zarr(dataset, path, recipe, report)
    next_command(f"emul data inspect {shlex.quote(str(path))}")
