"""`emul data inspect`: what a data source, a file or a store holds, and what of it will be slow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.conventions.attributes import assumptions
from data_pipelines.inspection.contents import (
    chunk_advice,
    dataset_rows,
    summary_row,
    variable_summaries,
)
from emul.data.arguments import open_data
from emul.terminal.console import show_rows, table, warn

if TYPE_CHECKING:
    import xarray as xr


def main(arguments: list[str]) -> None:
    """The words after `emul data inspect`: a data source by its keys, or paths. ValueError without any."""
    if not arguments:  # else the default source would be made: minutes that nobody asked for
        raise ValueError(
            "Expected paths or a data source; write `emul data inspect era5.nc` or `emul data inspect data=planet`."
        )
    show(open_data(arguments))


def show(dataset: xr.Dataset) -> None:
    """Print the grid, the times and their gaps, the levels, and one line a variable; read a few times of each."""
    show_rows("Data", dataset_rows(dataset))
    for line in assumptions(dataset):
        warn(line)
    summaries = list(variable_summaries(dataset))
    numbers = ("size", "least", "greatest", "NaN")
    table(("variable", "units", "shape", "chunks", *numbers), [*map(summary_row, summaries)], right=numbers)
    for line in str(dataset.attrs.get("left_out", "")).splitlines():
        warn(f"left out {line}")
    for sentence in chunk_advice(dataset, summaries):
        warn(sentence)
