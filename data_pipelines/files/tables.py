"""Write text into CSV files so that a spreadsheet shows it, and does not take it for a formula."""

from __future__ import annotations

from collections.abc import Iterable

FORMULA = ("=", "+", "-", "@", "\t", "\r")


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
