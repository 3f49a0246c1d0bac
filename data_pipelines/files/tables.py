"""CSV files: `metrics.csv`, one row a line of a training's log, and text that no spreadsheet takes for a formula."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipelines.files.atomic import atomic_text

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def plain_cell(value: object) -> object:
    """The value of a cell; text that a spreadsheet would take for a formula gets a `'` before it. Numbers stay."""
    if not isinstance(value, str) or not value.startswith(FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def plain_cells(row: Iterable[object]) -> list[object]:
    """A row of `plain_cell`."""
    return [plain_cell(value) for value in row]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.csv without their empty cells; a line that a kill cut short is skipped."""
    if not path.exists():
        return []
    rows = []
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            try:
                numbers = {name.removeprefix("'"): float(value) for name, value in row.items() if value}
                rows.append({**numbers, "step": int(numbers["step"])})
            except (KeyError, TypeError, ValueError):
                continue
    return rows


class MetricsTable:
    """Append rows to a metrics.csv whose columns may grow.

    resumed_at, validated: the step that the training resumes at, and that of its last validation. Rows that it will log
    again are dropped.
    """

    def __init__(self, path: Path, resumed_at: int = 0, validated: int = -1) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = [
            row
            for row in read_rows(path)
            if row["step"] <= resumed_at and ("score" not in row or row["step"] <= validated)
        ]
        self.columns = list(dict.fromkeys(name for row in self.rows for name in row))
        self.is_whole = False  # whether the file holds just these rows

    def append(self, metrics: Mapping[str, float], step: int | None) -> None:
        """Write one row; the whole file where it has new columns."""
        row = {"step": step, **{name: float(value) for name, value in metrics.items()}}
        new_columns = [name for name in row if name not in self.columns]
        self.rows.append(row)
        self.columns += new_columns
        if new_columns or not self.is_whole or not self.path.exists():
            self.save()
            return
        with open(self.path, "a", newline="") as file:
            csv.DictWriter(file, self.columns).writerow(row)

    def save(self) -> None:
        """Write the whole file."""
        with atomic_text(self.path) as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writerow({name: plain_cell(name) for name in self.columns})
            writer.writerows(self.rows)
        self.is_whole = True


@dataclass(frozen=True)
class Place:
    """Hold what loggers are built with. start: step that the training resumes at; validated: of its last validation."""

    folder: Path
    name: str
    start: int = 0
    validated: int = -1
