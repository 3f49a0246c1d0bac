"""Other forecasts to be drawn beside the one that is evaluated: their scores and budgets, as they were made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipelines.scores import read_budgets, read_scores

if TYPE_CHECKING:
    import xarray as xr

RESERVED = ("forecast", "truth", "persistence", "climatology", "predictability", "saturation")  # lines of the report


@dataclass(frozen=True)
class Beside:
    """Another forecast, as far as `emul forecast` scored it and kept account of its budgets."""

    scores: xr.Dataset | None
    budgets: xr.Dataset | None


def forecasts_beside(chosen: Mapping[Any, Any]) -> dict[str, Beside]:
    """By name what is known of forecasts; chosen: name -> folder. ValueError, FileNotFoundError where nothing is."""
    return {str(name): _opened(str(name), Path(folder)) for name, folder in chosen.items()}


def _opened(name: str, folder: Path) -> Beside:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name) or name in RESERVED:
        raise ValueError(f"beside: a name is of letters and digits, none of {', '.join(RESERVED)}; got '{name}'.")
    scores = read_scores(folder / "scores.nc") if (folder / "scores.nc").is_file() else None
    budgets = read_budgets(folder)
    if scores is None and budgets is None:
        raise FileNotFoundError(
            f"beside.{name}: no scores.nc and no budgets.nc in {folder}; give a folder of `emul forecast`."
        )
    return Beside(scores, budgets)
