"""`emul data make`: make the store of a data source where it is missing."""

from __future__ import annotations

from rich.markup import escape

from emul.data.arguments import prepared_source
from emul.terminal.console import console


def main(overrides: list[str]) -> None:
    """Make the data of the chosen source where they are missing, with a line of progress."""
    source = prepared_source(overrides)[0]
    console().print(f"Ready: {escape(str(source.path))}", soft_wrap=True)
