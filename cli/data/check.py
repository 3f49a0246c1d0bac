"""`emul data check`: reads every value once; tells of gaps, of values no weather has, of missing ones, of damage."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipelines.inspection.contents import GAPS, times_in_words
from data_pipelines.inspection.quality import fault_sentences, report_row
from emul.data.arguments import Selection, paths_and_rest, selected
from emul.terminal.console import console, header, next_command, progress, show_rows, table, warn

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class CheckSettings(Selection):
    """Select the part to check. output: the folder of all results."""

    output: str = "outputs"


def main(arguments: list[str]) -> int:
    """The words after `emul data check`: the data, and the part of them; 2 where something is wrong."""
    from data_pipelines.conventions.attributes import assumptions
    from data_pipelines.inspection.quality import check_values

    dataset, settings, recipe = selected(arguments, CheckSettings)
    origin = recipe["origin"]
    header(f"emul data check {origin}", [])
    folder = Path(settings.output) / "data" / (Path(origin.rstrip("/")).stem or "data")
    damaged = damaged_files(Path(origin))
    show_rows("Data", {"times": times_in_words(dataset), "checksums": checksums_in_words(damaged)})
    if damaged:
        return report_faults([f"damaged, make or fetch it again: {fault}" for fault in damaged], GAPS)
    with progress("reading") as report:
        reports, maps = check_values(dataset, folder, report, recipe)
    for line in assumptions(dataset):
        warn(line)
    rows = [report_row(entry) for entry in reports]
    table(
        ["variable", "units", "least", "at", "greatest", "at ", "NaN", "always NaN"], rows, ["least", "greatest", "NaN"]
    )
    if any(entry.missing for entry in reports):
        path = _written(maps, folder)
        console().print(f"Where values are missing: [key]{path}[/]", soft_wrap=True)
    code = report_faults(fault_sentences(reports))
    if code == 0:
        paths, words = paths_and_rest(arguments)
        data_words = [word for word in words if word.startswith("data")]
        next_command(shlex.join(["emul", "init", *paths] if paths else ["emul", "train", *data_words]))
    return code


def report_faults(faults: list[str], most: int | None = None) -> int:
    """Print at most so many of the faults, and how many there are; the exit code."""
    for sentence in faults[:most]:
        warn(sentence)
    console().print(f"{len(faults)} fault(s)." if faults else "No faults.", style="bad" if faults else "good")
    return 2 if faults else 0


def damaged_files(path: Path) -> list[str] | None:
    """A sentence for each file or chunk at `path` that differs from its checksum; None where there are no checksums."""
    from data_pipelines.inspection.quality import verified

    checked = [entry for entry in verified(path) if entry.checked] if path.exists() else []
    return [fault for entry in checked for fault in entry.faults] if checked else None


def checksums_in_words(damaged: list[str] | None) -> str:
    """A line on the checksums of a copy."""
    if damaged is None:
        return "none stored (what `emul` itself writes has them)"
    return f"{len(damaged)} files or chunks differ" if damaged else "all files as they were written"


def _written(maps: xr.Dataset, folder: Path) -> Path:
    from data_pipelines.files.netcdf import write_netcdf

    folder.mkdir(parents=True, exist_ok=True)
    write_netcdf(folder / "missing.nc", maps)
    return folder / "missing.nc"
