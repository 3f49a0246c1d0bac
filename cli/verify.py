"""`emul verify`: compare all that was kept with its checksums: a run, a forecast, scores, a store, a cache, or all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from emul.terminal.console import console, progress, table, warn

if TYPE_CHECKING:
    from data_pipelines.inspection.checksums import Verified

SHOWN = 20  # faults told one by one


def main(arguments: list[str]) -> int:
    """Verify the paths given; 2 where something is damaged."""
    from data_pipelines.inspection.checksums import verified

    wrong = [word for word in arguments if word.startswith("-") or ("=" in word and not Path(word).exists())]
    if wrong or not arguments:
        raise ValueError(
            f"emul verify takes paths only, such as outputs/train/planet_sfno; got {' '.join(wrong) or 'none'}."
        )
    found: list[Verified] = []
    with progress("verifying") as report:
        for word in arguments:
            for one in verified(word):
                found.append(one)
                report(str(one.path))
    if not found:
        raise ValueError(f"Nothing at {', '.join(arguments)} is of a kind that has checksums.")
    rows = [[str(one.path), one.kind, _result(one)] for one in found if not _is_cached(one) or one.faults]
    cached = sum(map(_is_cached, found))
    if cached:
        rows.append(["", "cached chunks", f"{cached:,} read"])
    table(["path", "kind", "result"], rows)
    faults = [f"{one.path}: {fault}" for one in found for fault in one.faults]
    for sentence in faults[:SHOWN]:
        warn(sentence)
    if len(faults) > SHOWN:
        warn(f"and {len(faults) - SHOWN} more")
    sound = sum(one.checked and not one.faults for one in found)
    text = f"{sound} of {len(found)} as they were written, {len(faults)} fault(s)."
    console().print(text, style="bad" if faults else "good")
    return 2 if faults else 0


def _result(one: Verified) -> str:
    return f"{len(one.faults)} fault(s)" if one.faults else "sound" if one.checked else "has no checksums"


def _is_cached(one: Verified) -> bool:
    return one.kind == "cached chunk"
