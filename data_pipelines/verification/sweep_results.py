"""The results of a sweep as one Dataset and one table: a row a trial, best first."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from data_pipelines.files.atomic import atomic_file


def trials_dataset(rows: Sequence[Mapping[str, Any]], keys: Sequence[str], attributes: Mapping[str, str]) -> xr.Dataset:
    """dim trial; keys that vary, and the state, are coordinates; the rest are variables."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: _column([row.get(name) for row in rows]) for name in names}
    labels = {"trial", "state", *keys}
    return xr.Dataset(
        {name: ("trial", column) for name, column in columns.items() if name not in labels},
        {name: ("trial", column) for name, column in columns.items() if name in labels},
        dict(attributes),
    )


def _column(values: Sequence[Any]) -> np.ndarray:
    """Numbers where every value is one, or nothing; text else."""
    try:
        return np.array([np.nan if value in (None, "") else float(value) for value in values])
    except (TypeError, ValueError):
        return np.array(["" if value is None else str(value) for value in values])


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a CSV file with one line a row, atomically."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_file(path) as unfinished, open(unfinished, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
