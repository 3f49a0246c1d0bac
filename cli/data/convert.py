"""`emul data convert`: any source as a packed store, from which a training reads at the speed of the disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf
from rich.markup import escape

from emul.config.build import build
from emul.config.settings import read_settings
from emul.data.arguments import made_from, prepared_source
from emul.terminal.console import console, header, progress, show_rows, table

if TYPE_CHECKING:
    import xarray as xr

    from data_pipelines.batches.world import VariableRoles
    from data_pipelines.packing.pack import PackingResult


@dataclass(frozen=True)
class Target:
    """The store to write; default: <output>/data/<name>.zarr."""

    to: str | None = None


def main(arguments: list[str]) -> None:
    """The words after `emul data convert`: how to pack, the data, its variables (all, where none are named)."""
    from data_pipelines.batches.world import world_from_dataset
    from data_pipelines.packing.pack import PackingSettings, pack

    target, rest = read_settings(Target, arguments)
    how, overrides = read_settings(PackingSettings, rest)
    source, config = prepared_source(overrides)
    dataset = source.dataset()
    path = Path(target.to or Path(config.output) / "data" / f"{config.name}.zarr")
    header(f"emul data convert {config.name}", [f"to {path}"])
    with progress("converting") as report:
        world, made = world_from_dataset(dataset, roles(config, dataset)), made_from(source, config)
        done = pack(dataset, world, path, how, splits=source.splits, made_from=made, report=report)
    tell(done)


def roles(config: DictConfig, dataset: xr.Dataset) -> VariableRoles:
    """The roles of the configuration; where it leaves them open, all that varies in time, and all that does not."""
    from data_pipelines.batches.world import VariableRoles

    if not OmegaConf.is_missing(config.variables, "prognostic"):
        return build(config.variables)
    moving = [str(name) for name, field in dataset.data_vars.items() if "time" in field.dims]
    if not moving:
        held = ", ".join(map(str, dataset.data_vars))
        raise ValueError(f"Expected fields at several times; {dataset.attrs.get('origin', 'the data')} has {held}.")
    return VariableRoles(prognostic=moving, static=[str(name) for name in dataset.data_vars if name not in moving])


def tell(done: PackingResult) -> None:
    """What was written, at which precision, and how to train from it."""
    if done.measured:
        tried = [[one.name, f"{one.share:.0%}", f"{one.seconds:.2f} s"] for one in done.measured]
        table(["compression", "bytes", "to read 1 GB"], tried, ["bytes", "to read 1 GB"])
    rows = {"times": f"{done.added:,} added, {done.of:,} in all"}
    if done.errors:
        worst, error = max(done.errors.items(), key=lambda pair: pair[1])
        rows["error"] = f"at most {error:.2g} standard deviations ({worst}), in a sample of times"
    show_rows(str(done.path), rows)
    console().print(f"emul train data=packed data.path={escape(str(done.path))}", style="key", soft_wrap=True)
