"""Presets of an evaluation, fitted to the data: what a preset of conf/eval asks for and the data lack is left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig

from data_pipelines.derived.shaping import shaped
from data_pipelines.reading.stacking import levels_of
from emul.display.text import lead_text

if TYPE_CHECKING:
    import xarray as xr


ALL = "all"  # what undoes a preset's choice
CHOICES = ("fields", "levels", "leads", "inits")


def said(config: DictConfig, keys: Sequence[str]) -> dict[str, Any]:
    """What the command line says of these keys; None where it says `all`."""
    found = {key: _without_none(config[key]) for key in keys if config.get(key) is not None}
    return {key: None if key in CHOICES and value == ALL else value for key, value in found.items()}


def _without_none(value: Any) -> Any:
    if isinstance(value, DictConfig):
        return {key: _without_none(value[key]) for key in value if value[key] is not None}
    return value


def derived(dataset: xr.Dataset, wanted: Sequence[str], strict: bool) -> tuple[xr.Dataset, dict[str, str]]:
    """The dataset with those of the wanted fields that it does not hold already; what cannot be had, and why.

    strict: ValueError for the first of these.
    """
    absent = {}
    for name in wanted:
        if name in dataset:
            continue
        try:
            dataset = shaped(dataset, derive=[name])
        except ValueError as error:
            if strict:
                raise
            absent[name] = str(error)
    return dataset, absent


def shared_fields(
    wanted: Sequence[Any], levels: Sequence[float] | None, forecast: xr.Dataset, truth: xr.Dataset
) -> tuple[list[Any], list[str]]:
    """Those of the wanted fields and levels that both have, as entries of `fields`; and names of the others."""
    kept: list[Any] = []
    absent = []
    for entry in wanted:
        name, asked = (entry, levels) if isinstance(entry, str) else next(iter(entry.items()))
        if name not in forecast or name not in truth:
            absent.append(str(name))
            continue
        have = [set(levels_of(dataset[name])) for dataset in (forecast, truth)]
        if not have[0] or not have[1]:
            kept.append(name)
            continue
        both = [level for level in (asked or sorted(have[0])) if all(float(level) in there for there in have)]
        absent += [f"{name} at {level:g}" for level in asked or () if level not in both]
        kept += [{name: both}] if both else []
    if not kept:
        raise ValueError(f"The data have none of {', '.join(absent)}; give fields=[...], or fields=all.")
    return kept, absent


def shared_leads(wanted: np.ndarray, forecast: xr.Dataset) -> tuple[np.ndarray, list[str]]:
    """Those of the wanted lead times that the forecast has; and the others in words."""
    have = forecast["prediction_timedelta"].values.astype(wanted.dtype)
    there = np.isin(wanted, have)
    absent = [lead_text(lead) for lead in wanted[~there]]
    if not there.any():
        raise ValueError(f"The forecast has none of the leads {', '.join(absent)}; give leads=[...], or leads=all.")
    return wanted[there], absent
