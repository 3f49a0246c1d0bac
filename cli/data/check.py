"""`emul data check`: reads every value once; tells of gaps, of values no weather has, of missing ones, of damage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emul.data.arguments import Selection, selected
from emul.terminal.console import console, header, progress, show_rows, table, warn
from emulators.physics.physical_ranges import BOUNDS

if TYPE_CHECKING:
    import xarray as xr

    from data_pipelines.inspection.quality import VariableReport


GAPS = 10  # listed one by one


@dataclass(frozen=True)
class CheckSettings(Selection):
    """Select the part to check. output: the folder of all results."""

    output: str = "outputs"


def main(arguments: list[str]) -> int:
    """The words after `emul data check`: the data, and the part of them; 2 where something is wrong."""
    from data_pipelines.conventions.attributes import assumptions
    from data_pipelines.inspection.quality import check_values
    from data_pipelines.packing.copying import damaged_files

    dataset, settings, recipe = selected(arguments, CheckSettings)
    origin = recipe["origin"]
    header(f"emul data check {origin}", [])
    folder = Path(settings.output) / "data" / (Path(origin.rstrip("/")).stem or "data")
    damaged = None if "://" in origin else damaged_files(Path(origin))
    with progress("reading") as report:
        found, maps = check_values(dataset, folder, report)
    show_rows("Data", {"times": times_in_words(dataset), "checksums": checksums_in_words(damaged)})
    for line in assumptions(dataset):
        warn(line)
    rows = [_row(one) for one in found]
    table(
        ["variable", "units", "least", "at", "greatest", "at ", "NaN", "always NaN"], rows, ["least", "greatest", "NaN"]
    )
    faults = [f"damaged, fetch it again: {name}" for name in (damaged or [])[:GAPS]] + [*_faults(found)]
    if any(one.missing for one in found):
        path = _written(maps, folder)
        console().print(f"Where values are missing: [key]{path}[/]", soft_wrap=True)
    for sentence in faults:
        warn(sentence)
    console().print(f"{len(faults)} fault(s)." if faults else "No faults.", style="bad" if faults else "good")
    return 2 if faults else 0


def times_in_words(dataset: xr.Dataset) -> str:
    """How many, from when to when, and every gap in them."""
    from data_pipelines.inspection.contents import time_axis

    when = time_axis(dataset)
    if when is None:
        return "none"
    told = f"{when.count}, {when.first} to {when.last}, every {when.step}, in order"
    for first, last in when.gaps[:GAPS]:
        told += f"\n  gap: {first} to {last}"
    return told + (f"\n  and {len(when.gaps) - GAPS} more gaps" if len(when.gaps) > GAPS else "")


def checksums_in_words(damaged: list[str] | None) -> str:
    """What the checksums of a copy tell."""
    if damaged is None:
        return "none stored (copies made by `emul data download` and `regrid` have them)"
    return f"{len(damaged)} files differ" if damaged else "all files as they were written"


def _row(one: VariableReport) -> list[str]:
    share = f"{one.missing / one.count:.2%}" if one.missing else "0"
    low, high = ("" if t is None else str(t)[:16] for t in (one.least_at, one.greatest_at))
    always = f"{one.always} points" if one.always else ""
    return [one.name, one.units, f"{one.least:.5g}", low, f"{one.greatest:.5g}", high, share, always]


def _faults(found: list[VariableReport]) -> list[str]:
    """A sentence for each variable with values that cannot be, or that are missing at some times only."""
    said = []
    for one in found:
        if one.beyond and one.limits:
            low, high = one.limits
            said.append(
                f"{one.name}: expected {low:g} to {high:g} {one.units or '(units are not said)'}; got {one.beyond:,} "
                "values beyond; mend its units (data.units), or give what is something else a name (data.rename)."
            )
        if one.times and one.first is not None:
            said.append(
                f"{one.name}: values are missing at {one.times:,} times that are there at others, first {one.first}; "
                f"leave out these times, or give fill={{{one.name}: ...}} and masks=[{one.name}]."
            )
        if one.limits is None and one.name in BOUNDS:
            expected = BOUNDS[one.name][2]
            said.append(
                f"{one.name}: expected {expected}, the data say '{one.units}'; convert it, data.units={{{one.name}: "
                f"{expected}}}, or where they say it wrong: data.units={{{one.name}: '{expected} -> {expected}'}}."
            )
        if one.missing == one.count:
            said.append(f"{one.name}: every value is missing.")
    return said


def _written(maps: xr.Dataset, folder: Path) -> Path:
    from data_pipelines.files.netcdf import write_netcdf

    folder.mkdir(parents=True, exist_ok=True)
    write_netcdf(folder / "missing.nc", maps)
    return folder / "missing.nc"
