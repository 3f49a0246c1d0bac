"""`emul check`: every fault of a configuration at once, before anything is made, read or trained.

First names and types, from source text alone; then, with the metadata of the data, what the parts say of each other:
variables, levels, splits, the shape a network takes, what losses and constraints need.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from emul.checks.examination import examine, findings
from emul.config.command_line import run_composed
from emul.terminal.findings import ConfigErrors

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(arguments: list[str]) -> int:
    """Prints the findings and returns 2, or a line of what would be done and returns 0."""
    flags = [word for word in arguments if word.startswith("-")]
    if flags:
        raise ValueError(f"emul check takes key=value, --config-dir and --trust only; got {', '.join(flags)}.")
    from emul.terminal.console import next_command, show_findings, warn

    try:
        code = run_composed("check", arguments, check)
        next_command(shlex.join(["emul", "train", *arguments]))
        return code
    except ConfigErrors as error:
        found = list(error.findings)
        if error.rest is not None:
            found += [finding for finding in findings(error.rest) if finding not in found]
        show_findings(found)
        warn(f"{len(found)} fault{'s' if len(found) > 1 else ''}; nothing was run.")
        return 2


def check(config: DictConfig) -> int:
    """Prints what a sound configuration would do; ConfigErrors where it is not sound."""
    from emul.terminal.console import plan, warn

    found, facts = examine(config)
    if found:
        raise ConfigErrors(found)
    for sentence in facts.warnings:
        warn(sentence)
    plan(f"{config.name}: no faults", facts.rows)
    return 0
