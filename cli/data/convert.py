"""`emul data convert`: any source as a packed store, from which a training reads at the speed of the disk."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emul.config.settings import read_settings
from emul.data.arguments import made_from, prepared_source, roles
from emul.terminal.console import header, next_command, progress, show_rows, table

if TYPE_CHECKING:
    from data_pipelines.packing.pack import PackingResult


@dataclass(frozen=True)
class Target:
    """Name the store to write; default: <output>/data/<name>.zarr."""

    to: str | None = None


def main(arguments: list[str]) -> None:
    """The words after `emul data convert`: how to pack, the data, its variables (all, where none are named)."""
    from data_pipelines.batches.world import world_from_dataset
    from data_pipelines.packing.pack import PackingSettings, pack

    target, rest = read_settings(Target, arguments)
    packing, overrides = read_settings(PackingSettings, rest)
    source, config = prepared_source(overrides)
    dataset = source.dataset()
    path = Path(target.to or Path(config.output) / "data" / f"{config.name}.zarr")
    header(f"emul data convert {config.name}", [f"to {path}"])
    with progress("converting") as report:
        world, provenance = world_from_dataset(dataset, roles(config, dataset)), made_from(source, config)
        done = pack(dataset, world, path, packing, splits=source.splits, made_from=provenance, report=report)
    tell(done)


def tell(done: PackingResult) -> None:
    """What was written, at which precision, and how to train from it."""
    if done.measured:
        rows_tried = [
            [compression.name, f"{compression.share:.0%}", f"{compression.seconds:.2f} s"]
            for compression in done.measured
        ]
        table(["compression", "bytes", "to read 1 GB"], rows_tried, ["bytes", "to read 1 GB"])
    rows = {"times": f"{done.added:,} added, {done.of:,} in all"}
    if done.errors:
        worst, error = max(done.errors.items(), key=lambda pair: pair[1])
        rows["error"] = f"at most {error:.2g} standard deviations ({worst}), in a sample of times"
    show_rows(str(done.path), rows)
    next_command(f"emul train data=packed data.path={shlex.quote(str(done.path))}")
