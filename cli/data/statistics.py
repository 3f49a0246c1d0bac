"""`emul data statistics`: means, spreads, extremes and changes of every channel, which `emul train scales=` reads."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.files.identity import digest
from emul.config.settings import read_settings
from emul.data.arguments import made_from, prepared_source, roles
from emul.terminal.console import header, next_command, progress, table


@dataclass(frozen=True)
class StatisticsSettings:
    """Hold the settings of `emul data statistics`: the period, the intervals of changes and the file to write.

    split: the period, default train or all times. intervals: of changes, such as [6h,24h], default one timestep.
    to: the file to write. workers: threads, default one a processor, at most 4.
    """

    split: str | None = None
    intervals: list[str] | None = None
    to: str | None = None
    workers: int | None = None


def main(arguments: list[str]) -> None:
    """The words after `emul data statistics`: the period (a split), the intervals of changes, the data."""
    from data_pipelines.batches.archive import Archive
    from data_pipelines.batches.scales import channel_statistics
    from data_pipelines.batches.world import world_from_dataset
    from data_pipelines.conventions.durations import duration_text
    from data_pipelines.files.atomic import sole_maker
    from data_pipelines.files.batch_records import open_batch_records
    from data_pipelines.files.netcdf import write_netcdf
    from data_pipelines.packing.pack import PackingSettings

    settings, overrides = read_settings(StatisticsSettings, arguments)
    source, config = prepared_source(overrides)
    dataset = source.dataset()
    world = world_from_dataset(dataset, roles(config, dataset), history=config.history)
    archive = Archive(dataset, world, cache_gigabytes=0)
    split = settings.split
    if split is not None and source.splits.get(split) is None:
        choices = [name for name, period in source.splits.items() if period is not None]
        raise ValueError(
            f"split: expected one of {', '.join(choices) or 'none, as the data have no splits'}; got '{split}'."
        )
    period = source.splits.get(split or "train") or [str(archive.times[0]), str(archive.times[-1])]
    steps = timesteps(settings.intervals or [], world.timestep)
    path = Path(settings.to or Path(config.output) / "data" / str(config.name) / "statistics.nc")
    names = [duration_text(world.timestep * step) for step in steps]
    header(f"emul data statistics {config.name}", [f"{period[0]} to {period[1]}, changes over {', '.join(names)}"])
    positions = archive.within(period)
    description = {"period": [str(end) for end in period], "channels": archive.variables.channels, "intervals": names}
    folder = path.with_name(f".{path.name}.parts")
    provenance = made_from(source, config)
    with sole_maker(path), progress("measuring") as report:
        records = open_batch_records(folder, {**description, "times": positions.size, "made_from": provenance})
        statistics = channel_statistics(
            lambda some: archive.gather(some).numpy(),
            archive.times,
            positions,
            world,
            intervals=steps,
            workers=PackingSettings(workers=settings.workers).threads,
            parts=records,
            report=report,
        )
        facts = {"period": f"{period[0]} to {period[1]}", "origin": archive.origin, "made_from": digest(provenance)}
        units = [variable.units for variable in archive.variables for _ in variable.channels]
        write_netcdf(path, statistics.dataset(archive.variables.channels, units, names, facts))
        shutil.rmtree(folder)
    show(statistics, archive.variables.channels, names)
    next_command(f"emul train scales={shlex.quote(str(path))}")


def timesteps(intervals: Sequence[str], timestep: np.timedelta64) -> list[int]:
    """Durations such as 6h and 24h as numbers of timesteps, sorted; one timestep is always among them."""
    from data_pipelines.conventions.durations import duration, duration_text

    counts = [1]
    for text in intervals:
        length = duration(text)
        steps = length / timestep if np.datetime_data(length)[0] == np.datetime_data(timestep)[0] else 0.5
        if steps != int(steps) or steps < 1:
            raise ValueError(f"intervals: expected whole timesteps of {duration_text(timestep)}; got {text}.")
        counts.append(int(steps))
    return sorted(set(counts))


def show(measured: Any, channels: tuple[str, ...], intervals: list[str]) -> None:
    """A line a channel."""
    columns = ["mean", "std", "least", "greatest", *(f"change {name}" for name in intervals)]
    numbers = np.stack([measured.mean, measured.std, measured.minimum, measured.maximum, *measured.change_std], axis=1)
    rows = [[channel, *(f"{number:.5g}" for number in row)] for channel, row in zip(channels, numbers, strict=True)]
    table(["channel", *columns], rows, columns)
