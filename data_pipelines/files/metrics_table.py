"""metrics.csv: the numbers that a training logs, one row a log line."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipelines.files.atomic import atomic_text
from data_pipelines.files.tables import plain_cell


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
        new = [name for name in row if name not in self.columns]
        self.rows.append(row)
        self.columns += new
        if new or not self.is_whole or not self.path.exists():
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
