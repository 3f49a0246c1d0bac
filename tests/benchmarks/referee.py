"""Recompute what the product states of its own numbers with independent code, a row for each statement.

    python tests/benchmarks/referee.py [--only 1 9 10]

A row is a function of `ROWS` in referee_laws, referee_verdicts or referee_planet, imported as it is run: it returns a
figure, its bar, whether the figure must be at least or at most the bar, and what was measured. A row that raises fails;
one whose module is absent is missing, and fails too. The figure is the number of rows that hold; below the bar the exit
code is 1.
"""

from __future__ import annotations

import argparse
import importlib
import os
import time
import warnings
from collections.abc import Callable
from typing import NamedTuple

MODULES = ("referee_laws", "referee_verdicts", "referee_planet")
NAMES = {
    1: "laws leave the truth as it is, over any interval and path",
    2: "several intervals in units of their measured changes",
    3: "effective resolution from both sides",
    4: "all listed laws hold at once",
    5: "coverage of significance tests",
    6: "the same weights however a batch is split",
    7: "splits and claims of the demo",
    8: "the planet's air",
    9: "winds padded over the pole",
    10: "CRPS where members coincide",
}


class Row(NamedTuple):
    """A figure against its bar. most: whether it must be at most the bar, else at least. what: what it measures."""

    figure: float
    bar: float
    most: bool
    what: str

    @property
    def holds(self) -> bool:
        return self.figure <= self.bar if self.most else self.figure >= self.bar


def rows() -> dict[int, Callable[[], Row]]:
    """The functions of all rows by number."""
    found: dict[int, Callable[[], Row]] = {}
    for name in MODULES:
        try:
            found |= importlib.import_module(name).ROWS
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
    return dict(sorted(found.items()))


def measured(make: Callable[[], Row]) -> Row | str:
    """The row, or what went wrong."""
    try:
        return make()
    except Exception as error:  # a row that fails is one that does not hold
        return f"{type(error).__name__}: {error}"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", type=int, nargs="+", choices=list(NAMES), default=list(NAMES))
    chosen = parser.parse_args().only
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    warnings.simplefilter("ignore")
    known, held = rows(), 0
    for number in chosen:
        begun = time.perf_counter()
        row = measured(known[number]) if number in known else "missing"
        seconds = time.perf_counter() - begun
        if isinstance(row, str):
            print(f"{number:3d} no   {NAMES[number]}: {row}", flush=True)
            continue
        held += row.holds
        sign = "at most" if row.most else "at least"
        told = f"{row.figure:.3g} (bar {sign} {row.bar:g})"
        print(f"{number:3d} {'yes' if row.holds else 'no ':3s}  {NAMES[number]}: {told}; {row.what}; {seconds:.0f} s")
    print(f"referee: {held} of {len(chosen)} rows hold (bar {len(chosen)})")
    return 0 if held == len(chosen) else 1


if __name__ == "__main__":
    raise SystemExit(main())
