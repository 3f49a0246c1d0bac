"""Area-weighted statistics of every channel over the training period, in float64 and one block of time at a time.

    mean = <x>,    std = sqrt(<(x - mean)^2>),    tendency_std = sqrt(<(d - <d>)^2>),    d = x(t + timestep) - x(t)

<.>: mean over times and, with cell-area weights, over the grid. Blocks are merged by the pairwise formula of Chan,
Golub & LeVeque (1983, doi:10.1080/00031305.1983.10483115).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from data_pipelines import forcings
from data_pipelines.archive import Archive
from emulators.world import Scale

BLOCK = 32  # times
ROUNDING = 1e-8  # a spread below this share of the mean is the rounding of a constant


class Moments:
    """Mean and variance of each channel, gathered block by block."""

    def __init__(self, channels: int) -> None:
        self.weight = 0.0
        self.mean, self.squares = np.zeros(channels), np.zeros(channels)

    def add(self, fields: np.ndarray, area: np.ndarray) -> None:
        """fields: (time, channel, point); area: weights with mean 1, (point,)."""
        if not len(fields):
            return
        fields = fields.astype(np.float64, copy=False)
        weight = float(len(fields))
        mean = (fields @ area).mean(axis=0) / area.size
        squares = ((fields - mean[:, None]) ** 2 @ area).sum(axis=0) / area.size
        total = self.weight + weight
        shift = mean - self.mean
        self.squares += squares + shift**2 * self.weight * weight / total
        self.mean += shift * weight / total
        self.weight = total

    @property
    def std(self) -> np.ndarray:
        return np.sqrt(self.squares / max(self.weight, 1.0))


def scales(
    archive: Archive, period: Sequence[str | int], *, report: Callable[[str, float], None] | None = None
) -> dict[str, Scale]:
    """A Scale for every channel of the archive's World, over all times of the period.

    A predicted channel that never varies raises ValueError; a forcing or static channel that does not vary gets std 1.
    """
    return {**_archived(archive, *_moments(archive, period, report)), **_static(archive)}


def _moments(
    archive: Archive, period: Sequence[str | int], report: Callable[[str, float], None] | None
) -> tuple[Moments, Moments]:
    positions = archive.within(period)
    last = positions[-1] if positions.size else -1
    area = archive.grid.weights.reshape(-1)
    values, tendencies = Moments(archive.variables.size), Moments(archive.variables.size)
    for start in range(0, positions.size, BLOCK):
        block = positions[start : start + BLOCK]
        after = archive.following[block]
        paired = (after >= 0) & (after <= last)
        needed, places = np.unique(np.concatenate([block, after[paired]]), return_inverse=True)
        fields = archive.gather(needed).flatten(2).numpy().astype(np.float64)
        now = fields[places[: block.size]]
        values.add(now, area)
        tendencies.add(fields[places[block.size :]] - now[paired], area)
        if report:
            report("measuring scales", min(1.0, (start + BLOCK) / positions.size))
    if not tendencies.weight:
        raise ValueError(
            f"Statistics need at least two times one timestep apart; the period {period[0]} to {period[1]} holds "
            f"{positions.size} of the {archive.times.size} times of {archive.origin}."
        )
    return values, tendencies


def _archived(archive: Archive, values: Moments, tendencies: Moments) -> dict[str, Scale]:
    found = {}
    for i, channel in enumerate(archive.variables.channels):
        mean, std, tendency = float(values.mean[i]), float(values.std[i]), float(tendencies.std[i])
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
    """Static channels: the mean and spread of the one field; it has no tendency."""
    world = archive.world
    if world.static_fields is None:
        return {}
    moments = Moments(world.static.size)
    moments.add(
        np.asarray(world.static_fields)[None].reshape(1, world.static.size, -1), archive.grid.weights.reshape(-1)
    )
    still = moments.std <= ROUNDING * abs(moments.mean)
    return {
        channel: Scale(float(moments.mean[i]), 1.0 if still[i] else float(moments.std[i]), 0.0)
        for i, channel in enumerate(world.static.channels)
    }
