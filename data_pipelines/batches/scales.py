"""Scales: area-weighted statistics of every channel over the training period, measured or read from a file.

    mean = <x>,    std = sqrt(<(x - mean)^2>),    tendency_std = sqrt(<(d - <d>)^2>),    d = x(t + timestep) - x(t)

<.>: mean over times and, with cell-area weights, over the grid (`data_pipelines.channel_statistics`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr

from data_pipelines.batches.archive import Archive
from data_pipelines.batches.channel_statistics import channel_statistics
from data_pipelines.conventions.durations import duration_text
from data_pipelines.derived import forcings
from emulators.world import Scale

ROUNDING = 1e-8  # a spread below this share of the mean is the rounding of a constant


def scales(
    archive: Archive,
    period: Sequence[str | int],
    *,
    stored: str | Path | None = None,
    known: Mapping[str, Mapping[str, float]] | None = None,
    report: Callable[[str, float], None] | None = None,
) -> dict[str, Scale]:
    """Compute a Scale for every channel of the archive's World, over all times of the period.

    stored: a file of `emul data statistics` to read them from. known: numbers that override these, {"mean": {channel:
    number}}, likewise of `std` and `tendency_std`. A predicted channel that never varies raises ValueError; a
    forcing or static channel that does not vary gets std 1.
    """
    found = _measured(archive, period, report) if stored is None else _stored(stored, archive)
    result = {**_archived(archive, *found), **_static(archive)}
    for kind, numbers in (known or {}).items():
        result |= {name: replace(result[name], **{kind: numbers[name]}) for name in numbers if name in result}
    return result


def _measured(
    archive: Archive, period: Sequence[str | int], report: Callable[[str, float], None] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Measure mean, standard deviation and that of the change over a timestep for each channel of the archive."""
    positions = archive.within(period)
    pairs = 0
    if positions.size:
        found = channel_statistics(
            lambda some: archive.gather(some).numpy(), archive.times, positions, archive.world, report=report
        )
        pairs = int(found.pairs[0])
    if not pairs:
        raise ValueError(
            f"Statistics need at least two times one timestep apart; the period {period[0]} to {period[1]} holds "
            f"{positions.size} of the {archive.times.size} times of {archive.origin}."
        )
    return found.mean, found.std, found.change_std[0]


def _stored(path: str | Path, archive: Archive) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read them from a file; ValueError if it lacks a channel or the timestep."""
    try:
        with xr.open_dataset(path) as opened:
            found = opened.load()
        there, intervals = ([str(name) for name in found[axis].values] for axis in ("channel", "interval"))
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path} holds no statistics ({error}); `emul data statistics` makes them.") from error
    step, channels = duration_text(archive.world.timestep), list(archive.variables.channels)
    missing = [channel for channel in channels if channel not in there] + [step] * (step not in intervals)
    if missing:
        raise ValueError(f"{path} has no statistics of {', '.join(missing[:5])}; make them anew, or leave scales=null.")
    own = found.sel(channel=channels)
    return own["mean"].values, own["std"].values, own["change_std"].sel(interval=step).values


def _archived(archive: Archive, means: np.ndarray, stds: np.ndarray, tendencies: np.ndarray) -> dict[str, Scale]:
    found = {}
    for i, channel in enumerate(archive.variables.channels):
        mean, std, tendency = float(means[i]), float(stds[i]), float(tendencies[i])
        if channel in forcings.CLOSED_FORM:
            mean, std = forcings.CLOSED_FORM[channel]
        still, frozen = std <= ROUNDING * abs(mean), tendency <= ROUNDING * abs(mean)
        if channel in archive.world.predicted.channels and (still or frozen):
            raise ValueError(
                f"'{channel}' does not vary {'at all' if still else 'from one time to the next'} over the training "
                f"period (mean {mean:g}), so there is nothing to predict; list it as static or leave it out."
            )
        found[channel] = Scale(mean, 1.0 if still else std, tendency)
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
