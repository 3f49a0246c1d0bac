"""`emul weights`: list, describe and fetch weights that others have published."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.markup import escape

from data_pipelines.files.atomic import bytes_text
from data_pipelines.opening.published import (
    PublishedWeights,
    card_of,
    entry_of,
    fetched,
    published_weights,
    weights_folder,
)
from emul.config.settings import read_settings, refuse_others
from emul.terminal.console import console, next_command, progress, show_rows, table

UNKNOWN = "not stated"


@dataclass(frozen=True)
class WeightsSettings:
    """Choose weights. table: another table of them. to: the folder that the file goes to."""

    table: str | None = None
    to: str | None = None


def main(arguments: list[str]) -> int:
    """Run `emul weights list`, `show NAME` or `get NAME`."""
    settings, words = read_settings(WeightsSettings, arguments)
    refuse_others(words, WeightsSettings, "emul weights")
    match words:
        case ["list"]:
            table(
                ["weights", "model", "trained on", "size", "licence"],
                map(row, published_weights(settings.table).values()),
            )
        case ["show", name]:
            entry = entry_of(name, settings.table)
            path = weights_folder(name) / entry.file_name
            facts = {**asdict(entry), **(card_of(path) or {}), "here": str(path) if card_of(path) else "not fetched"}
            shown = {key: UNKNOWN if value is None else str(value) for key, value in facts.items() if key != "name"}
            show_rows(f"weights {name}", shown)
        case ["get", name]:
            entry = entry_of(name, settings.table)
            with progress(f"fetching {name}") as report:
                path = fetched(entry, Path(settings.to) if settings.to else None, report)
            console().print(f"{escape(str(path))}: licence {escape(entry.licence or UNKNOWN)}", soft_wrap=True)
            next_command(
                shlex.join(["emul", "train", f"model={entry.model}", f"from_checkpoint={path}", "training.steps=0"])
            )
        case _:
            raise ValueError(f"Expected emul weights list, show NAME or get NAME; got {' '.join(words) or 'nothing'}.")
    return 0


def row(entry: PublishedWeights) -> list[str]:
    """A row of the list."""
    periods = ", ".join("-".join(period) for period in entry.train or ()) or UNKNOWN
    size = UNKNOWN if entry.bytes is None else bytes_text(entry.bytes)
    return [entry.name, entry.model, periods, size, entry.licence or UNKNOWN]
