"""`emul data inspect`: what a data source, a file or a store holds, and what of it will be slow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from data_pipelines.files.atomic import bytes_text
from emul.data.arguments import open_data
from emul.terminal.console import console, show_rows, warn

if TYPE_CHECKING:
    import xarray as xr


def main(arguments: list[str]) -> None:
    """The words after `emul data inspect`: a data source by its keys, or paths."""
    show(open_data(arguments))


def show(dataset: xr.Dataset) -> None:
    """Print the grid, the times and their gaps, the levels, and one line a variable; read a few times of each."""
    from data_pipelines.conventions.attributes import assumptions, grid_of
    from data_pipelines.inspection.contents import (
        chunk_advice,
        grid_description,
        level_description,
        time_axis,
        variable_summaries,
    )

    when = time_axis(dataset)
    size = sum(field.size * field.dtype.itemsize for field in dataset.data_vars.values())
    lines = {"origin": dataset.attrs.get("origin", "a data source"), "grid": grid_description(grid_of(dataset))}
    lines["levels"] = level_description(dataset)
    if when is None:
        lines["times"] = "none"
    else:
        span = f"{when.first} to {when.last}, every {when.step}" if when.count > 1 else f"{when.first}, no step"
        lines["times"] = f"{when.count}, {span}"
        gaps = "; ".join(f"{a} to {b}" for a, b in when.gaps[:4])
        more = f"; and {len(when.gaps) - 4} more" if len(when.gaps) > 4 else ""
        lines["gaps"] = gaps + more if gaps else "none"
    if "member" in dataset.dims:
        lines["members"] = f"{dataset.sizes['member']}, each a sample of its own"
    lines["size"] = f"{bytes_text(size)} uncompressed, {len(dataset.data_vars)} variables"
    show_rows("Data", lines)
    drawn = Table(show_edge=False, pad_edge=False)
    for name in ("variable", "units", "shape", "chunks"):
        drawn.add_column(name, style="key" if name == "variable" else "", overflow="fold")
    for name in ("size", "least", "greatest", "NaN"):
        drawn.add_column(name, justify="right")
    for line in assumptions(dataset):
        warn(line)
    told = list(variable_summaries(dataset))
    for row in told:
        shape = " x ".join(map(str, row.shape)) + (" static" if row.is_static else "")
        missing = f"{row.missing:.1%}" if row.missing else "0"
        chunks = " x ".join(map(str, row.chunks)) if row.chunks else "-"
        cells = (row.name, row.units, shape, chunks, bytes_text(row.bytes))
        drawn.add_row(*map(escape, cells), f"{row.least:.5g}", f"{row.greatest:.5g}", missing)
    console().print(drawn)
    for line in str(dataset.attrs.get("left_out", "")).splitlines():
        warn(f"left out {line}")
    for sentence in chunk_advice(dataset, told):
        warn(sentence)
