"""`emul data picture`: draw the weather, the mean winds, a spectrum and a month of a data source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.markup import escape

from emul.data.arguments import prepared_source
from emul.terminal.console import console, progress, warn


def main(overrides: list[str]) -> None:
    """Draw the chosen source into <output>/data/<name>: a weather map, mean winds, a spectrum, a month that moves."""
    from data_pipelines.conventions.canonical import first_member
    from data_pipelines.pictures.portraits import portraits

    source, config = prepared_source(overrides)
    folder = Path(config.output) / "data" / config.name

    def attempt(what: str, make: Callable[..., Path], *arguments: Any) -> Path | None:
        try:
            return make(*arguments)
        except (ValueError, KeyError, ImportError) as error:  # not every world has rain, levels or a whole sphere
            warn(f"{what} is left out: {error}.")
            return None

    with progress("drawing") as report:
        pictures = portraits(first_member(source.dataset()), str(config.name), folder, attempt, report)
    if not pictures:
        raise ValueError(f"No picture can be made of data={config.name}: expected weather on a whole sphere.")
    console().print(f"{', '.join(path.name for path in pictures)} in [key]{escape(str(folder))}[/]", soft_wrap=True)
