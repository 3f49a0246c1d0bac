"""`emul data`: make the data of a source, show what it or a file holds, draw it, find how far ahead it can be known."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from emul.console import console, header, plan, progress, table, warn
from emul.data_source import made_source
from emul.verbs import DATA_WORDS

if TYPE_CHECKING:
    import xarray as xr

USAGE = f"Expected `emul data {'|'.join(DATA_WORDS)} [data=...]` or `emul data inspect path`"
TWINS: dict[str, Any] = {"cases": 8, "days": 30, "perturbation": 0.1}  # K on the planet, m/s on others


def main(arguments: list[str]) -> int:
    """The verb's words, of which some have a file of their own."""
    word, *rest = arguments or [""]
    if word == "make":
        make(rest)
    elif word == "inspect":
        show(opened(rest))
    elif word == "picture":
        picture(rest)
    elif word == "predictability":
        predictability(rest)
    elif DATA_WORDS.get(word):
        importlib.import_module(DATA_WORDS[word]).main(rest)
    else:
        raise ValueError(f"{USAGE}; got `emul data {' '.join(arguments)}`.".replace(" `.", "`."))
    return 0


def make(overrides: list[str]) -> None:
    """Make the data of the chosen source where they are missing, with a line of progress."""
    source = made_source(overrides)[0]
    console().print(f"Ready: {escape(str(source.path))}", soft_wrap=True)


def picture(overrides: list[str]) -> None:
    """Draw the chosen source into <output>/data/<name>: a weather map, mean winds, a spectrum, a month that moves."""
    from emul.portraits import portraits

    source, config = made_source(overrides)
    folder = Path(config.output) / "data" / config.name

    def attempt(what: str, make: Callable[..., Path], *arguments: Any) -> Path | None:
        try:
            return make(*arguments)
        except (ValueError, KeyError, ImportError) as error:  # not every world has rain, levels or a whole sphere
            warn(f"{what} is left out: {error}.")
            return None

    with progress("drawing") as report:
        made = portraits(source.dataset(), str(config.name), folder, attempt, report)
    if not made:
        raise ValueError(f"No picture can be made of data={config.name}: expected weather on a whole sphere.")
    console().print(f"{', '.join(path.name for path in made)} in [key]{escape(str(folder))}[/]", soft_wrap=True)


def predictability(arguments: list[str]) -> None:
    """Run twins of the chosen source, keep their error growth beside its store, and print how far it can be known."""
    from data_pipelines.predictability import experiment, predictability_path
    from data_pipelines.predictability import predictability as found_by_twins

    settings, overrides = _settings(arguments)
    source, config = made_source(overrides)
    path = predictability_path(source)
    if path is None:
        raise ValueError(f"data={config.name} is not simulated here, so it has no twins; choose data=planet.")
    header(f"emul data predictability {config.name}", [experiment(settings)])
    with progress("simulating twins") as report:
        found = found_by_twins(source, **settings, report=report)
    show_limits(found, settings["days"])
    console().print(f"`emul eval` draws it under the scores of this data source: {escape(str(path))}", soft_wrap=True)


def _settings(arguments: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Settings of the experiment, and the rest of the words."""
    settings, rest = dict(TWINS), []
    for word in arguments:
        key, _, value = word.partition("=")
        if key not in TWINS:
            rest.append(word)
            continue
        kind = type(TWINS[key])
        try:
            settings[key] = kind(value)
        except ValueError as error:
            what = "a whole number" if kind is int else "a number"
            raise ValueError(f"{key}: expected {what}, such as {key}={TWINS[key]}; got '{value}'.") from error
    return settings, rest


def show_limits(found: xr.Dataset, days: int) -> None:
    """A line a headline variable: how fast twins part, and when they know no more of each other."""
    from data_pipelines.predictability import limits
    from emul.scorecard import DASH, headline, number, rows

    def told(length: float) -> str:
        return f"> {days} d" if length == float("inf") else DASH if length != length else f"{length:.1f} d"

    lines = []
    for row in headline(rows(found), most=12):
        field = found[row.variable].sel(region="global")
        found_here = limits(field if row.level is None else field.sel(level=row.level))
        lengths = [told(length) for length in found_here[:3]]
        lines.append([row.label, *lengths, f"{number(found_here.saturation * row.factor)} {row.unit}".rstrip()])
    right = ["doubling", "as climatology", "95 % saturated", "saturation"]
    table(["RMSE of twins, global", *right], lines, right)


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
    select = choices.pop("select", None)
    if choices:
        raise ValueError(f"With a path only select={{dimension: label}} is understood; got {', '.join(choices)}.")
    return open_dataset(paths if len(paths) > 1 else paths[0], select=_mapping(select) if select else None)


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
    from data_pipelines.inspection import clock, grid_words, level_words, rows

    when = clock(dataset)
    size = sum(field.size * field.dtype.itemsize for field in dataset.data_vars.values())
    lines = {"origin": dataset.attrs.get("origin", "a data source"), "grid": grid_words(grid_of(dataset))}
    lines["levels"] = level_words(dataset)
    if when is None:
        lines["times"] = "none"
    else:
        lines["times"] = f"{when.count}, {when.first} to {when.last}, every {when.step or '(one time: give timestep)'}"
        gaps = "; ".join(f"{a} to {b}" for a, b in when.gaps[:4])
        more = f"; and {len(when.gaps) - 4} more" if len(when.gaps) > 4 else ""
        lines["gaps"] = gaps + more if gaps else "none"
    lines["size"] = f"{_bytes(size)} uncompressed, {len(dataset.data_vars)} variables"
    plan("Data", lines)
    drawn = Table(show_edge=False, pad_edge=False)
    for name in ("variable", "units", "shape", "chunks"):
        drawn.add_column(name, style="key" if name == "variable" else "", overflow="fold")
    for name in ("size", "least", "greatest", "NaN"):
        drawn.add_column(name, justify="right")
    for row in rows(dataset):
        shape = " x ".join(map(str, row.shape)) + (" static" if row.is_static else "")
        missing = f"{row.missing:.1%}" if row.missing else "0"
        chunks = " x ".join(map(str, row.chunks)) if row.chunks else "-"
        cells = (row.name, row.units, shape, chunks, _bytes(row.bytes))
        drawn.add_row(*map(escape, cells), f"{row.least:.5g}", f"{row.greatest:.5g}", missing)
    console().print(drawn)
    for line in str(dataset.attrs.get("left_out", "")).splitlines():
        warn(f"left out {line}")


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"
