"""Scores as files: those of several forecasts side by side, and those of an earlier evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr

OF_ONE_FORECAST = ("forecast", "verdict", "number_of_inits", "nan_share", "metrics_left_out")


def side_by_side(parts: Mapping[str, xr.Dataset], like: xr.Dataset) -> xr.Dataset | None:
    """Scores of several sources in one Dataset, dimension `source` first, metrics as in `like`; None for no source."""
    if not parts:
        return None
    aligned = [dataset.drop_vars("inits").reindex(metric=like["metric"].values) for dataset in parts.values()]
    source = xr.DataArray(list(parts), dims="source", name="source")
    joined = xr.concat(aligned, dim=source, combine_attrs="override")
    counts = np.stack([dataset["inits"].values for dataset in parts.values()])
    joined = joined.assign_coords(inits=(("source", "lead_time"), counts))
    joined.attrs = {name: value for name, value in like.attrs.items() if name not in OF_ONE_FORECAST}
    if "level" in joined.coords:
        joined["level"].attrs.update(like["level"].attrs)
    return joined


def read_scores(path: str | Path) -> xr.Dataset:
    """The scores.nc of an evaluation, in memory; FileNotFoundError or ValueError where it is none."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"No scores at {path}; expected a scores.nc that `emul eval` wrote.")
    with xr.open_dataset(path, decode_timedelta=True) as stored:
        absent = {"metric", "region", "lead_time"} - set(stored.dims)
        if absent:
            raise ValueError(
                f"{path} holds no scores: it lacks {', '.join(sorted(absent))}; take a scores.nc of `emul eval`."
            )
        return stored.load()


def read_budgets(folder: str | Path) -> xr.Dataset | None:
    """The budgets.nc in the folder of a forecast, in memory; None where there is none."""
    path = Path(folder) / "budgets.nc"
    if not path.is_file():
        return None
    with xr.open_dataset(path, decode_timedelta=True) as stored:
        return stored.load()
