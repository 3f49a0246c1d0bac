"""`emul verify`: compare all that was kept with its checksums: a run, a forecast, scores, a store, a cache, or all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from emul.terminal.console import console, progress, table, warn

if TYPE_CHECKING:
    from data_pipelines.inspection.quality import Verified

SHOWN = 20  # faults printed one by one


def main(arguments: list[str]) -> int:
    """Verify the paths given; 2 where something is damaged."""
    from data_pipelines.inspection.quality import verified

    wrong = [word for word in arguments if word.startswith("-") or ("=" in word and not Path(word).exists())]
    if wrong or not arguments:
        raise ValueError(
            f"emul verify takes paths only, such as outputs/train/planet_sfno; got {' '.join(wrong) or 'none'}."
        )
    reports: list[Verified] = []
    with progress("verifying") as report:
        for word in arguments:
            for entry in verified(word):
                reports.append(entry)
                report(str(entry.path))
    if not reports:
        raise ValueError(f"Nothing at {', '.join(arguments)} is of a kind that has checksums.")
    rows = [[str(entry.path), entry.kind, _result(entry)] for entry in reports if not _is_cached(entry) or entry.faults]
    cached = sum(map(_is_cached, reports))
    if cached:
        rows.append(["", "cached chunks", f"{cached:,} read"])
    table(["path", "kind", "result"], rows)
    faults = [f"{entry.path}: {fault}" for entry in reports for fault in entry.faults]
    for sentence in faults[:SHOWN]:
        warn(sentence)
    if len(faults) > SHOWN:
        warn(f"and {len(faults) - SHOWN} more")
    sound = sum(entry.checked and not entry.faults for entry in reports)
    text = f"{sound} of {len(reports)} as they were written, {len(faults)} fault(s)."
    console().print(text, style="bad" if faults else "good")
    return 2 if faults else 0


def _result(record: Verified) -> str:
    return f"{len(record.faults)} fault(s)" if record.faults else "sound" if record.checked else "has no checksums"


def _is_cached(record: Verified) -> bool:
    return record.kind == "cached chunk"
