"""`emul data regrid`: data on another grid, as a Zarr store; stopped, the same command goes on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape

from emul.data.arguments import Selection, selected
from emul.terminal.console import console, header, progress


@dataclass(frozen=True)
class RegridSettings(Selection):
    """Select the part to regrid. grid: longitudes x latitudes and kind, 64x32_equiangular. to: the store to write."""

    grid: str | None = None
    method: str = "conservative"
    to: str | None = None


def main(arguments: list[str]) -> None:
    """The words after `emul data regrid`: the data, the grid, the method, and where to put the result."""
    from data_pipelines.conventions.attributes import grid_of
    from data_pipelines.derived.regridding import grid_named, regridded
    from data_pipelines.packing.copying import copy_to_zarr

    dataset, settings, recipe = selected(arguments, RegridSettings)
    if not settings.grid:
        raise ValueError("To which grid? Add one, longitudes x latitudes, such as grid=64x32_equiangular.")
    target, method = grid_named(settings.grid), settings.method
    made = regridded(dataset, target, method)
    path = Path(settings.to or f"{Path(recipe['origin'].rstrip('/')).stem}-{settings.grid}.zarr")
    header(f"emul data regrid {recipe['origin']}", [f"{grid_of(dataset)!r} to {target!r}, {method}, to {path}"])
    with progress("regridding") as report:
        copy_to_zarr(made, path, {**recipe, "grid": settings.grid, "method": method}, report)
    console().print(f"Ready: emul data inspect {escape(str(path))}", soft_wrap=True)
