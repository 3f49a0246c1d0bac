"""`emul data`: make the data of a source, draw it, find how far ahead it can be known; the other words stand apart."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from emul.console import console, header, progress, table, warn
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
    elif word == "picture":
        picture(rest)
    elif word == "predictability":
        predictability(rest)
    elif DATA_WORDS.get(word):
        return importlib.import_module(DATA_WORDS[word]).main(rest) or 0
    else:
        raise ValueError(f"{USAGE}; got `emul data {' '.join(arguments)}`.".replace(" `.", "`."))
    return 0


def make(overrides: list[str]) -> None:
    """Make the data of the chosen source where they are missing, with a line of progress."""
    source = made_source(overrides)[0]
    console().print(f"Ready: {escape(str(source.path))}", soft_wrap=True)


def picture(overrides: list[str]) -> None:
    """Draw the chosen source into <output>/data/<name>: a weather map, mean winds, a spectrum, a month that moves."""
    from data_pipelines.archive import first_member
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
        made = portraits(first_member(source.dataset()), str(config.name), folder, attempt, report)
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
