"""`emul data climatology`: the normal weather of every hour and day of the year, which `emul eval` reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from data_pipelines.conventions.canonical import first_member
from data_pipelines.conventions.suggestions import nearest_name
from data_pipelines.derived.shaping import shaped
from data_pipelines.opening.datasets import open_dataset
from data_pipelines.verification.climatology_store import Recipe, climatology, days_without
from emul.data.arguments import made_source, settings_of
from emul.terminal.console import console, header, progress, warn

if TYPE_CHECKING:
    import xarray as xr


RECIPE = ("hours", "window", "quantiles", "fields", "levels", "dry")
KEYS = (*RECIPE, "years", "split", "derive", "path", "megabytes", "output")


def main(arguments: list[str]) -> None:
    """The words after `emul data climatology`: the data, and what their climatology is made of."""
    settings, rest = settings_of(arguments, KEYS)
    dataset, name, period = _data(rest, settings)
    if settings.get("derive"):
        dataset = shaped(dataset, derive=settings["derive"])
    if "member" in dataset.dims:
        dataset = first_member(dataset)
        warn("Of the members the first is averaged, the truth of `emul eval`.")
    recipe = _recipe(settings, period)
    folder = Path(str(settings.get("output", "outputs"))) / "data" / name
    path = Path(settings.get("path") or folder / "climatology.zarr")
    told = "all times" if period is None else f"{period[0]} to {period[1]}"
    header(f"emul data climatology {name}", [f"{told}, a window of {recipe.window} days"])
    lacking = days_without(dataset, recipe)
    if lacking:
        reach = recipe.window // 2 - 1
        warn(f"{lacking} of the 366 days of the year have no data within {reach} days; they stay missing.")
    with progress("averaging") as report:
        climatology(dataset, path, recipe, megabytes=float(settings.get("megabytes", 2048)), report=report)
    console().print(f"Ready for emul eval climatology={escape(str(path))}", soft_wrap=True)


def _data(words: list[str], settings: dict[str, Any]) -> tuple[xr.Dataset, str, tuple[str, str] | None]:
    """The dataset of a source, given by overrides, or of files and stores, given by paths; its name; the period."""
    years = settings.get("years")
    if isinstance(years, str | int):
        years = str(years).split("/") if "/" in str(years) else [years, years]
    if years is not None and len(years) != 2:
        raise ValueError(f"years: expected the first and the last, such as years=[1990,2019]; got {years}.")
    paths = [word for word in words if "=" not in word.partition("://")[0] or Path(word).exists()]
    if paths and len(paths) < len(words):
        other = next(word for word in words if word not in paths)
        best = nearest_name(other.partition("=")[0], KEYS)
        raise ValueError(f"'{other}' is no setting of a climatology{f'; write {best}=' if best else ''}.")
    split: str | None = settings.get("split")
    splits: Mapping[str, Any] = {}
    if paths:
        dataset, name = open_dataset(paths if len(paths) > 1 else paths[0]), Path(paths[0].rstrip("/")).stem
    else:
        source, config = made_source(words)
        dataset, name, splits = source.dataset(), str(config.name), source.splits
        split = split or ("train" if years is None and splits.get("train") is not None else None)
    if split not in (None, "all") and splits.get(split) is None:
        raise ValueError(
            f"split={split}: the data have {', '.join(splits) or 'no splits'}; or take years=[first,last]."
        )
    period = splits[split] if years is None and split not in (None, "all") else years
    return dataset, name, None if period is None else (str(period[0]), str(period[1]))


def _recipe(settings: dict[str, Any], period: tuple[str, str] | None) -> Recipe:
    chosen = {key: settings[key] for key in RECIPE if settings.get(key) is not None}
    if "fields" in chosen:
        chosen["variables"] = chosen.pop("fields")
    for key in ("hours", "quantiles", "levels"):
        if key in chosen:
            chosen[key] = tuple(chosen[key] if isinstance(chosen[key], list) else [chosen[key]])
    return Recipe(period=period, **chosen)
