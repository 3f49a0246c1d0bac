"""Scales: area-weighted statistics of every channel over the training period, measured or read from a file.

    mean = <x>,    std = sqrt(<(x - mean)^2>),    tendency_std = sqrt(<(d - <d>)^2>),    d = x(t + timestep) - x(t)

and likewise of the changes over the other intervals of an objective.

<.>: mean over times and, with cell-area weights, over the grid (`data_pipelines.channel_statistics`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.batches.archive import Archive
from data_pipelines.batches.channel_statistics import channel_statistics
from data_pipelines.conventions.durations import duration_text
from data_pipelines.conventions.units import refuse_other_units
from data_pipelines.derived import forcings
from data_pipelines.files.netcdf import read_netcdf
from emulators.world import Scale

ROUNDING = 1e-8  # a spread below this share of the mean is the rounding of a constant


def scales(
    archive: Archive,
    period: Sequence[str | int],
    *,
    stored: str | Path | None = None,
    known: Mapping[str, Mapping[str, Any]] | None = None,
    intervals: Sequence[int] = (1,),
    report: Callable[[str, float], None] | None = None,
) -> dict[str, Scale]:
    """Compute a Scale for every channel of the archive's World, over all times of the period.

    stored: a file of `emul data statistics` to read them from. known: numbers that override these, {"mean": {channel:
    number}}, likewise of `std`, `tendency_std` and `changes`. intervals: of changes, in timesteps. A predicted channel
    that never varies raises ValueError; a forcing or static channel that does not vary gets std 1.
    """
    intervals = (1, *sorted({*intervals} - {0, 1}))
    found = _measured(archive, period, intervals, report) if stored is None else _stored(stored, archive, intervals)
    result = {**_archived(archive, intervals, *found), **_static(archive)}
    for kind, numbers in (known or {}).items():
        result |= {name: _replaced(result[name], kind, numbers[name]) for name in numbers if name in result}
    return result


def _replaced(scale: Scale, kind: str, number: Any) -> Scale:
    changed: dict[str, Any] = {kind: {**scale.changes, **number} if kind == "changes" else number}
    return replace(scale, **changed)


def _measured(
    archive: Archive,
    period: Sequence[str | int],
    intervals: Sequence[int],
    report: Callable[[str, float], None] | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Measure mean, standard deviation and that of changes, (interval, channel), of the channels of the archive."""
    positions = archive.within(period)
    pairs = np.zeros(1, dtype=np.int64)
    if positions.size:
        found = channel_statistics(
            lambda some: archive.gather(some).numpy(),
            archive.times,
            positions,
            archive.world,
            intervals=intervals,
            report=report,
        )
        pairs = found.pairs
    if not pairs.all():
        apart = intervals[int(np.argmin(pairs))]
        raise ValueError(
            f"Statistics need at least two times {'one timestep' if apart == 1 else f'{apart} timesteps'} apart; the "
            f"period {period[0]} to {period[1]} holds {positions.size} of the {archive.times.size} times of "
            f"{archive.origin}."
        )
    return found.mean, found.std, found.change_std


def _stored(path: str | Path, archive: Archive, intervals: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read them from a file; ValueError if it lacks a channel or an interval, or is in other units."""
    try:
        found = read_netcdf(path)
        there, measured = ([str(name) for name in found[axis].values] for axis in ("channel", "interval"))
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path} holds no statistics ({error}); `emul data statistics` makes them.") from error
    steps, channels = [duration_text(archive.world.timestep * n) for n in intervals], list(archive.variables.channels)
    missing = [channel for channel in channels if channel not in there] + [s for s in steps if s not in measured]
    if missing:
        raise ValueError(
            f"{path} has no statistics of {', '.join(missing[:5])}; make them anew with "
            f"intervals={','.join(steps)}, or leave scales=null."
        )
    units = json.loads(str(found.attrs.get("units", "{}")))
    for variable in archive.variables:
        if variable.name in units:
            refuse_other_units(variable.name, variable.units, units[variable.name], str(path))
    own = found.sel(channel=channels)
    return own["mean"].values, own["std"].values, own["change_std"].sel(interval=steps).values


def _archived(
    archive: Archive, intervals: Sequence[int], means: np.ndarray, stds: np.ndarray, changes: np.ndarray
) -> dict[str, Scale]:
    found = {}
    for i, channel in enumerate(archive.variables.channels):
        mean, std, tendency = float(means[i]), float(stds[i]), float(changes[0, i])
        if channel in forcings.CLOSED_FORM:
            mean, std = forcings.CLOSED_FORM[channel]
        still, frozen = std <= ROUNDING * abs(mean), tendency <= ROUNDING * abs(mean)
        if channel in archive.world.predicted.channels and (still or frozen):
            raise ValueError(
                f"'{channel}' does not vary {'at all' if still else 'from one time to the next'} over the training "
                f"period (mean {mean:g}), so there is nothing to predict; list it as static or leave it out."
            )
        others = zip(intervals[1:], changes[1:, i].tolist(), strict=True)
        found[channel] = Scale(mean, 1.0 if still else std, tendency, dict(others))
    return found


def _static(archive: Archive) -> dict[str, Scale]:
    """Compute the mean and spread of each static field, which has no tendency."""
    world = archive.world
    if world.static_fields is None:
        return {}
    weights = archive.grid.weights
    fields = np.asarray(world.static_fields, dtype=np.float64)
    mean = (fields * weights).mean(axis=(1, 2))
    std = np.sqrt(((fields - mean[:, None, None]) ** 2 * weights).mean(axis=(1, 2)))
    still = std <= ROUNDING * abs(mean)
    return {
        channel: Scale(float(mean[i]), 1.0 if still[i] else float(std[i]), 0.0)
        for i, channel in enumerate(world.static.channels)
    }
