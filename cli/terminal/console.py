"""How `emul` speaks: a panel at the top, a table of the plan, a line of progress; plain lines away from a terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table
from rich.theme import Theme

from data_pipelines.conventions.suggestions import Finding

THEME = Theme({"key": "cyan", "quiet": "dim", "good": "green", "bad": "bold red", "warning": "yellow"})
INTERVAL = 15.0  # seconds between lines of progress where no bar can be drawn


# What makes a terminal do something, other than ends of lines and tabs: control characters and changes of direction.
CONTROLS = dict.fromkeys(
    (*range(9), *range(11, 32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)),
    "\N{REPLACEMENT CHARACTER}",
)


class _QuietConsole(Console):
    """Show control characters in what files say as a replacement character, so that they command no terminal."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else text.translate(CONTROLS), style, control)


@cache
def _made(stderr: bool) -> Console:
    plain = bool(os.environ.get("CI")) or os.environ.get("TERM") == "dumb"
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else 10_000  # as wide as its content: no number of a table is cut
    forced = False if plain else None
    return _QuietConsole(stderr=stderr, theme=THEME, highlight=False, width=width, force_terminal=forced)


def console(stderr: bool = False) -> Console:
    """The one console of the process, on standard output or standard error."""
    return _made(stderr)


def header(title: str, lines: Iterable[str] = ()) -> None:
    """What is about to happen: a panel on a terminal, plain lines elsewhere."""
    if console().is_terminal:
        console().print(
            Panel("\n".join(map(escape, lines)) or "", title=escape(title), title_align="left", expand=False)
        )
        return
    console().print(escape(title), style="bold")
    for line in lines:
        console().print(f"  {escape(line)}", soft_wrap=True)


def stage(title: str) -> None:
    """Say which part of a command begins: a line across a terminal, the title elsewhere."""
    if console().is_terminal:
        console().rule(escape(title))
    else:
        console().print(escape(title), style="bold")


def show_rows(title: str, rows: Mapping[str, Any]) -> None:
    """Keys and values in two columns."""
    console().print(escape(title), style="bold")
    width = max(map(len, rows), default=0)
    for key, value in rows.items():
        console().print(f"  [key]{escape(key.ljust(width))}[/]  {escape(str(value))}", soft_wrap=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Rows under headings; columns named in `right` are set to the right. Away from a terminal no line is broken."""
    rows = [list(row) for row in rows]
    if not console().is_terminal:
        widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        for row in [list(columns), *rows]:
            cells = zip(row, columns, widths, strict=True)
            line = "  ".join(cell.rjust(width) if name in right else cell.ljust(width) for cell, name, width in cells)
            console().print(escape(line.rstrip()), soft_wrap=True)
        return
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        drawn.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*map(escape, row))
    console().print(drawn)


def next_command(command: str) -> None:
    """Say which command follows."""
    console().print(f"Next: [key]{escape(command)}[/]", soft_wrap=True)


def warn(sentence: str) -> None:
    """A warning on standard error."""
    console(stderr=True).print(f"[warning]warning:[/] {escape(sentence)}", soft_wrap=True)


def show_findings(findings: list[Finding]) -> None:
    """Findings as a table on a terminal, one line each elsewhere."""
    if not console().is_terminal:
        for finding in findings:
            console().print(escape(str(finding)), soft_wrap=True)
        return
    table = Table(show_edge=False, pad_edge=False)
    for name, style in (("key", "key"), ("expected", ""), ("got", "bad"), ("fix", "good")):
        table.add_column(name, style=style, overflow="fold")
    for finding in findings:
        table.add_row(*map(escape, (finding.key, finding.expected, finding.got, finding.fix)))
    console().print(table)


def bar(*extra: TextColumn) -> Progress:
    """A progress bar in house style; silent where there is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=min(30, console().width // 4)),
        TextColumn("{task.percentage:>3.0f} %"),
        *extra,
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console(),
        disable=not console().is_terminal,
        transient=False,
    )


@contextmanager
def progress(title: str) -> Iterator[Callable[..., None]]:
    """Yields report(text, fraction): a bar on a terminal, else a line every few seconds and one at the end.

    Nothing appears before the first report, so that work that turns out to be done already stays silent.
    """
    drawn = bar(TextColumn("{task.fields[text]}", style="quiet"))
    state: dict[str, Any] = {"task": None, "said": time.monotonic(), "text": "", "fraction": 0.0}

    def report(text: str = "", fraction: float = 0.0) -> None:
        state.update(text=text, fraction=fraction)
        if console().is_terminal:
            if state["task"] is None:
                drawn.start()
                state["task"] = drawn.add_task(escape(title), total=1.0, text="")
            drawn.update(TaskID(state["task"]), completed=fraction, text=escape(text))
        elif time.monotonic() - state["said"] >= INTERVAL:
            state["said"] = time.monotonic()
            console().print(f"{escape(title)}: {fraction:.0%} {escape(text)}".rstrip())

    start = time.monotonic()
    try:
        yield report
        if not console().is_terminal and time.monotonic() - start >= INTERVAL:
            console().print(f"{escape(title)}: done in {time.monotonic() - start:.0f} s")
    finally:
        drawn.stop()


def attempt(what: str, make: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """make(*args, **kwargs), or None and a warning."""
    try:
        return make(*args, **kwargs)
    except Exception as error:  # a picture may fail in any way; the scores are on disk
        warn(f"{what} could not be made ({type(error).__name__}: {error}); the scores are not touched by this.")
        return None
