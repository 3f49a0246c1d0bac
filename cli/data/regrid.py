"""`emul data regrid`: data on another grid, as a Zarr store; stopped, the same command goes on."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from emul.data.arguments import Selection, selected
from emul.terminal.console import header, next_command, progress


@dataclass(frozen=True)
class RegridSettings(Selection):
    """Select the part to regrid.

    grid: its name, 64x32_equiangular, O32, healpix:8. to: the store to write. weights: a file of sparse weights to keep
    or to use again.
    """

    grid: str | None = None
    method: str = "conservative"
    weights: str | None = None
    to: str | None = None


def main(arguments: list[str]) -> None:
    """The words after `emul data regrid`: the data, the grid, the method, and where to put the result."""
    from data_pipelines.conventions.attributes import grid_of
    from data_pipelines.derived.regridding import regridded
    from data_pipelines.packing.copying import copy_to_zarr
    from emulators.grids.catalogue import named_grid

    dataset, settings, recipe = selected(arguments, RegridSettings)
    if not settings.grid:
        raise ValueError("To which grid? Add one, such as grid=64x32_equiangular, grid=O32 or grid=healpix:8.")
    target, method = named_grid(settings.grid), settings.method
    result = regridded(dataset, target, method, Path(settings.weights) if settings.weights else None)
    path = Path(settings.to or f"{Path(recipe['origin'].rstrip('/')).stem}-{settings.grid.replace(':', '_')}.zarr")
    header(f"emul data regrid {recipe['origin']}", [f"{grid_of(dataset)!r} to {target!r}, {method}, to {path}"])
    with progress("regridding") as report:
        copy_to_zarr(result, path, {**recipe, "grid": settings.grid, "method": method}, report)
    next_command(f"emul data inspect {shlex.quote(str(path))}")
