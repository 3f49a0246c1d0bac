"""`emul data inspect`: what a data source, a file or a store holds, and what of it will be slow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from emul.console import console, plan, warn
from emul.data_source import made_source

if TYPE_CHECKING:
    import xarray as xr


def main(arguments: list[str]) -> None:
    """The words after `emul data inspect`: a data source by its keys, or paths."""
    show(opened(arguments))


def opened(arguments: list[str]) -> xr.Dataset:
    """The dataset of a source, given by overrides, or of files and stores, given by their paths."""
    from data_pipelines.store import open_dataset

    paths = [a for a in arguments if "=" not in a.split("://")[0] or Path(a).exists()]
    rest = [a for a in arguments if a not in paths]
    if not paths:
        source, _ = made_source(rest)
        dataset = source.dataset()
        return dataset.assign_attrs(origin=dataset.attrs.get("origin", str(source.path)))
    choices = dict(a.split("=", 1) for a in rest)
    select, names = choices.pop("select", None), choices.pop("names", None)
    if choices:
        raise ValueError(
            f"With a path only select={{dimension: label}} and names=cesm are understood; got {', '.join(choices)}."
        )
    path = paths if len(paths) > 1 else paths[0]
    return open_dataset(path, names=names, select=_mapping(select) if select else None)


def _mapping(text: str) -> dict[str, object]:
    """`{number: 0}` as a mapping."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    try:
        value = OverridesParser.create().parse_override(f"select={text}").value()
    except OverrideParseException:
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"Expected select={{dimension: label}}, such as select={{number: 0}}; got select={text}.")
    return {str(key): label for key, label in value.items()}


def show(dataset: xr.Dataset) -> None:
    """Print the grid, the times and their gaps, the levels, and one line a variable; read a few times of each."""
    from data_pipelines.conventions import grid_of
    from data_pipelines.inspection import chunk_advice, clock, grid_words, level_words, rows

    when = clock(dataset)
    size = sum(field.size * field.dtype.itemsize for field in dataset.data_vars.values())
    lines = {"origin": dataset.attrs.get("origin", "a data source"), "grid": grid_words(grid_of(dataset))}
    lines["levels"] = level_words(dataset)
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
    lines["size"] = f"{size_text(size)} uncompressed, {len(dataset.data_vars)} variables"
    plan("Data", lines)
    drawn = Table(show_edge=False, pad_edge=False)
    for name in ("variable", "units", "shape", "chunks"):
        drawn.add_column(name, style="key" if name == "variable" else "", overflow="fold")
    for name in ("size", "least", "greatest", "NaN"):
        drawn.add_column(name, justify="right")
    told = list(rows(dataset))
    for row in told:
        shape = " x ".join(map(str, row.shape)) + (" static" if row.is_static else "")
        missing = f"{row.missing:.1%}" if row.missing else "0"
        chunks = " x ".join(map(str, row.chunks)) if row.chunks else "-"
        cells = (row.name, row.units, shape, chunks, size_text(row.bytes))
        drawn.add_row(*map(escape, cells), f"{row.least:.5g}", f"{row.greatest:.5g}", missing)
    console().print(drawn)
    for line in str(dataset.attrs.get("left_out", "")).splitlines():
        warn(f"left out {line}")
    for sentence in chunk_advice(dataset, told):
        warn(sentence)


def size_text(number: float) -> str:
    """Bytes in the unit that suits them."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"
