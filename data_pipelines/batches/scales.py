"""Scales: area-weighted statistics of every channel over the training period, measured or read from a file.

    mean = <x>,    std = sqrt(<(x - mean)^2>),    tendency_std = sqrt(<(d - <d>)^2>),    d = x(t + timestep) - x(t)

and likewise of the changes over the other intervals of an objective.
Mean, spread and extremes of every channel and the spread of its changes are computed in one pass.

<.>: mean over times and, with cell-area weights, over the grid. Blocks of times are summed in float64 by themselves and
merged in order by the pairwise formula of Chan, Golub & LeVeque (1983, doi:10.1080/00031305.1983.10483115): how the
work is divided, or where it is taken up again, changes no digit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from data_pipelines.batches.archive import TOLERANCE, Archive
from data_pipelines.conventions.durations import duration_text, nearest_positions
from data_pipelines.conventions.units import refuse_other_units
from data_pipelines.derived import forcings
from data_pipelines.files.netcdf import read_netcdf
from emulators.world import Scale, World

if TYPE_CHECKING:
    from data_pipelines.files.batch_records import BatchRecords


BLOCK = 64  # times that are summed together
PIECE_BYTES = 32e6  # of fields read at once
EXTENT = ("minimum", "maximum", "least_mean", "greatest_mean")
IN_WORDS = {
    "mean": "mean over area and time",
    "std": "standard deviation over area and time",
    "minimum": "least value",
    "maximum": "greatest value",
    "least_mean": "least area mean of all times",
    "greatest_mean": "greatest area mean of all times",
}
Read = Callable[[np.ndarray], np.ndarray]  # ascending positions -> float32 (position, channel, lat, lon)
Report = Callable[[str, float], None]


@dataclass(frozen=True, eq=False)
class ChannelStatistics:
    """Hold statistics of channels.

    mean, std, minimum, maximum: float64 (channel,). least_mean, greatest_mean: of the area means of all times.
    change_std: (interval, channel). times, pairs: counts.
    """

    mean: np.ndarray
    std: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray
    least_mean: np.ndarray
    greatest_mean: np.ndarray
    change_std: np.ndarray
    times: int
    pairs: np.ndarray

    def dataset(
        self, channels: Sequence[str], units: Sequence[str], intervals: Sequence[str], attributes: Mapping[str, str]
    ) -> xr.Dataset:
        """Return the statistics as a dataset. units: of each channel. intervals: their names."""
        fields: dict[str, Any] = {
            name: ("channel", getattr(self, name), {"long_name": text}) for name, text in IN_WORDS.items()
        }
        change = {"long_name": "standard deviation of the change over an interval"}
        counts = {"long_name": "pairs of times that lie an interval apart", "units": "1"}
        fields |= {"change_std": (("interval", "channel"), self.change_std, change)}
        fields |= {"pairs": ("interval", self.pairs, counts)}
        coordinates: dict[str, Any] = {
            "channel": ("channel", list(channels), {"long_name": "variable and level"}),
            "channel_units": ("channel", list(units), {"long_name": "units of the statistics of a channel"}),
            "interval": ("interval", list(intervals), {"long_name": "time between two fields"}),
        }
        title = "Statistics of the channels of a dataset, in channel_units"
        return xr.Dataset(fields, coordinates, {"title": title, **attributes, "times": self.times})


def channel_statistics(
    read: Read,
    times: np.ndarray,
    positions: np.ndarray,
    world: World,
    *,
    intervals: Sequence[int] = (1,),
    workers: int = 1,
    parts: BatchRecords | None = None,
    report: Report | None = None,
) -> ChannelStatistics:
    """Compute statistics of the fields at `positions` of `times`, ascending within each member of an ensemble.

    A change counts if both times are among them. intervals: in timesteps.
    parts: records of finished blocks, from which an interrupted pass continues.
    """
    area = world.grid.weights.reshape(-1)
    partners = np.stack([_partners(times, positions, world, steps) for steps in intervals])
    starts = range(0, positions.size, BLOCK)

    def block(number: int) -> dict[str, np.ndarray]:
        record = parts.read(number) if parts is not None else None
        if record is not None:
            return record[0]
        rows = slice(number * BLOCK, (number + 1) * BLOCK)
        sums = _sums(read, positions[rows], partners[:, rows], area)
        if parts is not None:
            parts.write(number, sums, {})
        return sums

    total: dict[str, np.ndarray] | None = None
    with ThreadPoolExecutor(workers, thread_name_prefix="statistics") as pool:
        jobs = pool.map(block, range(len(starts))) if workers > 1 else map(block, range(len(starts)))
        for number, sums in enumerate(jobs, start=1):
            total = sums if total is None else _merged(total, sums)
            if report:
                report("measuring", number / len(starts))
    if total is None:
        raise ValueError("Statistics need at least one time; there is none in the period.")
    return ChannelStatistics(
        total["mean"],
        np.sqrt(total["squares"] / total["weight"]),
        total["minimum"],
        total["maximum"],
        total["least_mean"],
        total["greatest_mean"],
        np.sqrt(total["change_squares"] / np.maximum(total["change_weight"], 1)[:, None]),
        int(total["weight"]),
        total["change_weight"].astype(np.int64),
    )


def _partners(times: np.ndarray, positions: np.ndarray, world: World, steps: int) -> np.ndarray:
    """Return for each position that of the time `steps` timesteps before, -1 if it is not among the positions.

    If times go back, another member of an ensemble begins, whose changes do not reach into the one before.
    """
    members = np.flatnonzero(np.diff(times[positions]) <= np.timedelta64(0, "s")) + 1
    return np.concatenate([_partners_within(times, block, world, steps) for block in np.split(positions, members)])


def _partners_within(times: np.ndarray, positions: np.ndarray, world: World, steps: int) -> np.ndarray:
    """Return them for one member."""
    if not positions.size:
        return positions
    times = times[positions].astype("datetime64[s]")
    place = nearest_positions(times, world.after(times, -steps), TOLERANCE * world.lead_time(1))
    return np.where((place >= 0) & (place < np.arange(positions.size)), positions[place], -1)


def _sums(read: Read, positions: np.ndarray, partners: np.ndarray, area: np.ndarray) -> dict[str, np.ndarray]:
    """Sum a block: weight, mean and sum of squared deviations, of fields and of changes; area weights sum to 1."""
    root = np.sqrt(area / area.size)
    last_use = {int(p): int(at) for row in partners for p, at in zip(row, positions, strict=True) if p >= 0}
    needed = np.unique(np.concatenate([positions, np.array(list(last_use), dtype=positions.dtype)]))
    row = {int(position): n for n, position in enumerate(positions)}
    earlier: dict[int, np.ndarray] = {}
    sums: _Sums | None = None
    for position, fields in _one_by_one(read, needed, area.size):
        sums = sums or _Sums(fields, root, len(partners))
        if position in row:
            sums.add(fields, [earlier.get(int(p)) for p in partners[:, row[position]]])
        if position in last_use:
            earlier[position] = fields.copy()
        earlier = {p: f for p, f in earlier.items() if last_use[p] > position}
    assert sums is not None
    return sums.arrays()


def _one_by_one(read: Read, positions: np.ndarray, points: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (position, float32 fields (channel, point)), reading a piece at a time."""
    piece = 1
    start = 0
    while start < positions.size:
        fields = read(positions[start : start + piece])
        fields = fields.reshape(*fields.shape[:2], points)
        yield from zip(positions[start : start + piece].tolist(), fields, strict=True)
        start += piece
        piece = max(1, min(BLOCK, int(PIECE_BYTES // fields[0].nbytes)))


class _Sums:
    """Sum the deviations of one block from its first field's means, so that large means cost no digits."""

    def __init__(self, first: np.ndarray, root: np.ndarray, intervals: int) -> None:
        channels = len(first)
        self.root, self.memory = root, np.empty(first.shape)
        self.shift = first @ root**2
        self.count, self.first, self.second = 0, np.zeros(channels), np.zeros(channels)
        self.minimum, self.maximum = np.full(channels, np.inf), np.full(channels, -np.inf)
        self.least_mean, self.greatest_mean = self.minimum, self.maximum
        self.counts = np.zeros(intervals)
        self.firsts, self.seconds = np.zeros((intervals, channels)), np.zeros((intervals, channels))

    def add(self, fields: np.ndarray, before: Sequence[np.ndarray | None]) -> None:
        """Add the fields of one time. before: those of an interval earlier, for each interval; None if unknown."""
        np.subtract(fields, self.shift[:, None], out=self.memory)
        self.count += 1
        mean = self.shift + self._summed(self.first, self.second)
        self.least_mean, self.greatest_mean = np.minimum(self.least_mean, mean), np.maximum(self.greatest_mean, mean)
        self.minimum, self.maximum = np.minimum(self.minimum, fields.min(1)), np.maximum(self.maximum, fields.max(1))
        for n, earlier in enumerate(before):
            if earlier is not None:
                np.subtract(fields, earlier, out=self.memory, dtype=np.float64)
                self.counts[n] += 1
                self._summed(self.firsts[n], self.seconds[n])

    def _summed(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Add the area means of what is in memory, and of its squares; these means."""
        self.memory *= self.root
        mean: np.ndarray = self.memory @ self.root
        first += mean
        second += np.einsum("cp,cp->c", self.memory, self.memory)
        return mean

    def arrays(self) -> dict[str, np.ndarray]:
        counts = np.maximum(self.counts, 1)[:, None]
        return {
            "weight": np.array(float(self.count)),
            "mean": self.shift + self.first / self.count,
            "squares": np.maximum(self.second - self.first**2 / self.count, 0.0),
            "minimum": self.minimum,
            "maximum": self.maximum,
            "least_mean": self.least_mean,
            "greatest_mean": self.greatest_mean,
            "change_weight": self.counts,
            "change_mean": self.firsts / counts,
            "change_squares": np.maximum(self.seconds - self.firsts**2 / counts, 0.0),
        }


def _merged(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Merge the sums of two blocks."""
    merged = {name: np.minimum(first[name], second[name]) for name in EXTENT[::2]}
    merged |= {name: np.maximum(first[name], second[name]) for name in EXTENT[1::2]}
    for prefix in ("", "change_"):
        w1, w2 = first[f"{prefix}weight"], second[f"{prefix}weight"]
        total = w1 + w2
        share = (w2 / np.maximum(total, 1))[..., None]
        shift = second[f"{prefix}mean"] - first[f"{prefix}mean"]
        merged[f"{prefix}weight"] = total
        merged[f"{prefix}mean"] = first[f"{prefix}mean"] + shift * share
        squares = first[f"{prefix}squares"] + second[f"{prefix}squares"]
        merged[f"{prefix}squares"] = squares + shift**2 * w1[..., None] * share
    return merged


Measured = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # mean, std, change (interval, channel), extent
ROUNDING = 1e-8  # a spread below this share of the mean is the rounding of a constant


def scales(
    archive: Archive,
    period: Sequence[str | int],
    *,
    stored: str | Path | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    intervals: Sequence[int] = (1,),
    report: Callable[[str, float], None] | None = None,
) -> dict[str, Scale]:
    """Compute a Scale for every channel of the archive's World, over all times of the period.

    stored: a file of `emul data statistics` to read them from. overrides: numbers in their place, {"mean": {channel:
    number}}, likewise of `std`, `tendency_std` and `changes`. intervals: of changes, in timesteps. A predicted channel
    that never varies raises ValueError; a forcing or static channel that does not vary gets std 1.
    """
    intervals = (1, *sorted({*intervals} - {0, 1}))
    measured = _measured(archive, period, intervals, report) if stored is None else _stored(stored, archive, intervals)
    result = {**_archived(archive, intervals, *measured), **_static(archive)}
    for kind, numbers in (overrides or {}).items():
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
) -> Measured:
    """Measure the channels of the archive."""
    positions = archive.within(period)
    pairs = np.zeros(1, dtype=np.int64)
    if positions.size:
        statistics = channel_statistics(
            lambda some: archive.gather(some).numpy(),
            archive.times,
            positions,
            archive.world,
            intervals=intervals,
            report=report,
        )
        pairs = statistics.pairs
    if not pairs.all():
        steps = intervals[int(np.argmin(pairs))]
        raise ValueError(
            f"Statistics need at least two times {'one timestep' if steps == 1 else f'{steps} timesteps'} apart; the "
            f"period {period[0]} to {period[1]} holds {positions.size} of the {archive.times.size} times of "
            f"{archive.origin}."
        )
    extent = np.stack([statistics.minimum, statistics.maximum, statistics.least_mean, statistics.greatest_mean], 1)
    return statistics.mean, statistics.std, statistics.change_std, extent


def _stored(path: str | Path, archive: Archive, intervals: Sequence[int]) -> Measured:
    """Read them from a file; ValueError if it lacks a channel or an interval, or is in other units."""
    try:
        statistics = read_netcdf(path)
        present, measured = ([str(name) for name in statistics[axis].values] for axis in ("channel", "interval"))
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path} holds no statistics ({error}); `emul data statistics` makes them.") from error
    steps, channels = [duration_text(archive.world.timestep * n) for n in intervals], list(archive.variables.channels)
    missing = [channel for channel in channels if channel not in present] + [s for s in steps if s not in measured]
    if missing:
        raise ValueError(
            f"{path} has no statistics of {', '.join(missing[:5])}; make them anew with "
            f"intervals={','.join(steps)}, or leave scales=null."
        )
    subset = statistics.sel(channel=channels)
    if "channel_units" in subset:
        channel_variables = [variable for variable in archive.variables for _ in variable.channels]
        for variable, units in zip(channel_variables, subset["channel_units"].values.tolist(), strict=True):
            refuse_other_units(variable.name, variable.units, str(units), str(path))
    extent = np.stack([subset[name].values for name in EXTENT if name in subset] or [np.empty(len(channels))], 1)
    return subset["mean"].values, subset["std"].values, subset["change_std"].sel(interval=steps).values, extent


def _archived(
    archive: Archive,
    intervals: Sequence[int],
    means: np.ndarray,
    stds: np.ndarray,
    changes: np.ndarray,
    extents: np.ndarray,
) -> dict[str, Scale]:
    by_channel = {}
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
        longer = zip(intervals[1:], changes[1:, i].tolist(), strict=True)
        extent = tuple(extents[i].tolist()) if extents.shape[1] == len(EXTENT) else ()
        by_channel[channel] = Scale(mean, 1.0 if still else std, tendency, dict(longer), extent)
    return by_channel


def _static(archive: Archive) -> dict[str, Scale]:
    """Compute the mean and spread of each static field, which has no tendency."""
    world = archive.world
    if world.static_fields is None:
        return {}
    weights = archive.grid.weights.reshape(-1)
    fields = np.asarray(world.static_fields, dtype=np.float64).reshape(world.static.size, -1)
    mean = (fields * weights).mean(axis=1)
    std = np.sqrt(((fields - mean[:, None]) ** 2 * weights).mean(axis=1))
    still = std <= ROUNDING * abs(mean)
    return {
        channel: Scale(float(mean[i]), 1.0 if still[i] else float(std[i]), 0.0)
        for i, channel in enumerate(world.static.channels)
    }
