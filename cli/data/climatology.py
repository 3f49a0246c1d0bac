"""`emul data climatology`: the normal weather of every hour and day of the year, which `emul eval` reads."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipelines.conventions.canonical import first_member
from data_pipelines.derived.shaping import shaped
from data_pipelines.files.fingerprints import fingerprint, stable
from data_pipelines.opening.datasets import open_dataset
from data_pipelines.verification.climatology_store import Recipe, climatology, days_without
from emul.config.settings import read_settings, refuse_others
from emul.data.arguments import made_from, paths_and_rest, prepared_source
from emul.terminal.console import header, next_command, progress, warn

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class ClimatologySettings:
    """Hold the settings of `emul data climatology`: the fields to average, and over which times.

    hours, window, quantiles, fields, levels, dry: as in `Recipe`. years: [first, last]; split: a period of the source,
    default train; all: every time. derive: fields to compute first. to: the store to write, default
    <output>/data/<name>/climatology.zarr. megabytes: memory of the fields that are averaged at a time.
    """

    hours: list[int] | None = None
    window: int | None = None
    quantiles: list[float] | None = None
    fields: list[str | dict[str, list[float]]] | None = None
    levels: list[float] | None = None
    dry: Mapping[str, float] | None = None
    years: str | int | list[str | int] | None = None
    split: str | None = None
    derive: list[str] | None = None
    to: str | None = None
    megabytes: float = 2048.0
    output: str = "outputs"


def main(arguments: list[str]) -> None:
    """The words after `emul data climatology`: the data, and what their climatology is made of."""
    settings, rest = read_settings(ClimatologySettings, arguments)
    dataset, name, period, provenance = _data(rest, settings)
    if settings.derive:
        dataset = shaped(dataset, derive=settings.derive)
    if "member" in dataset.dims:
        dataset = first_member(dataset)
        warn("Of the members the first is averaged, the truth of `emul eval`.")
    recipe = _recipe(settings, period)
    folder = Path(settings.output) / "data" / name
    path = Path(settings.to or folder / "climatology.zarr")
    span = "all times" if period is None else f"{period[0]} to {period[1]}"
    header(f"emul data climatology {name}", [f"{span}, a window of {recipe.window} days"])
    lacking = days_without(dataset, recipe)
    if lacking:
        reach = recipe.window // 2 - 1
        warn(f"{lacking} of the 366 days of the year have no data within {reach} days; they stay missing.")
    with progress("averaging") as report:
        provenance |= {"derive": settings.derive} if settings.derive else {}
        climatology(dataset, path, recipe, made_from=provenance, megabytes=settings.megabytes, report=report)
    next_command(f"emul eval run=... climatology={shlex.quote(str(path))}")


def _data(
    words: list[str], settings: ClimatologySettings
) -> tuple[xr.Dataset, str, tuple[str, str] | None, dict[str, Any]]:
    """The dataset of a source, given by overrides, or of files and stores, given by paths; its name; the period; its
    identity."""
    years: Any = settings.years
    if isinstance(years, str | int):
        years = str(years).split("/") if "/" in str(years) else [years, years]
    if years is not None and len(years) != 2:
        raise ValueError(f"years: expected the first and the last, such as years=[1990,2019]; got {years}.")
    paths, others = paths_and_rest(words)
    if paths:
        refuse_others(others, ClimatologySettings, "emul data climatology")
    split = settings.split
    splits: Mapping[str, Any] = {}
    if paths:
        dataset, name = open_dataset(paths if len(paths) > 1 else paths[0]), Path(paths[0].rstrip("/")).stem
        provenance = {"fingerprint": stable(fingerprint(paths))}
    else:
        source, config = prepared_source(words)
        dataset, name, splits = source.dataset(), str(config.name), source.splits
        provenance = made_from(source, config)
        split = split or ("train" if years is None and splits.get("train") is not None else None)
    if split not in (None, "all") and splits.get(split) is None:
        raise ValueError(
            f"split={split}: the data have {', '.join(splits) or 'no splits'}; or take years=[first,last]."
        )
    period = splits[split] if years is None and split not in (None, "all") else years
    return dataset, name, None if period is None else (str(period[0]), str(period[1])), provenance


def _recipe(settings: ClimatologySettings, period: tuple[str, str] | None) -> Recipe:
    options: dict[str, Any] = {
        "window": settings.window,
        "dry": settings.dry,
        "hours": _tuple(settings.hours),
        "quantiles": _tuple(settings.quantiles),
        "levels": _tuple(settings.levels),
        "variables": settings.fields,
    }
    return Recipe(period=period, **{name: value for name, value in options.items() if value is not None})


def _tuple(values: list[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)
