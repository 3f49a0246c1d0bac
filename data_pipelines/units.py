"""Units in which the same quantity comes: fields in other units than the expected ones are refused, never compared."""

from __future__ import annotations

# One row a unit, in its spellings; units that are not here are not judged.
SPELLINGS = (
    ("k", "kelvin"),
    ("c", "degc", "celsius", "deg_c", "degree_celsius", "degrees_celsius"),
    ("pa", "pascal", "pascals"),
    ("hpa", "mb", "mbar", "millibar", "millibars"),
    ("kpa",),
    ("m", "metre", "metres", "meter", "meters", "gpm"),
    ("dam", "gpdam"),
    ("cm",),
    ("mm",),
    ("m2 s-2", "m2 s2", "j kg-1", "j kg"),
    ("kg kg-1", "kg kg"),
    ("g kg-1", "g kg"),
    ("w m-2", "w m2"),
    ("j m-2", "j m2"),
)
_ROWS = {spelling: row for row, spellings in enumerate(SPELLINGS) for spelling in spellings}


def refuse_other_units(name: str, expected: str, found: str, origin: str) -> None:
    """ValueError where both units are known and are not the same."""
    rows = [_ROWS.get(_plain(units)) for units in (expected, found)]
    if None not in rows and rows[0] != rows[1]:
        raise ValueError(f"'{name}' is in '{found}' in {origin}; expected it in '{expected}'. Convert it first.")


def _plain(units: str) -> str:
    return units.strip().lower().replace("**", "").replace("^", "").replace("/", " ")
