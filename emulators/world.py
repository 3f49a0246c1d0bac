"""World: the planet that an emulator lives on. It is built first, from the data; every part is built on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np
import torch

from emulators.constants import MONTH
from emulators.grid import Grid, LatLonGrid, grid_from_plain, lat_lon
from emulators.variables import VariableSet


@dataclass(frozen=True)
class Scale:
    """Hold area-weighted statistics of one channel over the training period, in the channel's units.

    tendency_std: standard deviation of the change over one timestep. changes: of the change over others, {timesteps:
    standard deviation}. extent: least and greatest value, least and greatest area mean of any time; empty if unknown.
    """

    mean: float
    std: float
    tendency_std: float
    changes: Mapping[int, float] = field(default_factory=dict)
    extent: tuple[float, ...] = ()

    def plain(self) -> list:
        """Return the statistics as a list, for a checkpoint."""
        numbers = [self.mean, self.std, self.tendency_std]
        if self.extent:
            return [*numbers, dict(self.changes), list(self.extent)]
        return [*numbers, dict(self.changes)] if self.changes else numbers


@dataclass(frozen=True)
class Vertical:
    """Describe the vertical coordinate: half-level pressure a + b * surface pressure (Simmons & Burridge 1981).

    kind: `sigma`, `hybrid`, `pressure`, `height` (or depth, in m) or `none`; a in Pa and b at half levels, top first,
    shape (level + 1,), both of `sigma` and `hybrid` alone. dry: True if surface pressure is the weight of dry air alone
    and humidity the mass of water per mass of dry air, as in models whose pressure does not change with their water.
    """

    kind: str = "none"
    a: tuple[float, ...] = ()
    b: tuple[float, ...] = ()
    dry: bool = False


@dataclass(frozen=True, eq=False)
class World:
    """Hold the grid, variables, timestep and scales of a data source.

    prognostic: predicted and fed back. diagnostic: predicted only. forcing: prescribed at the time of the target.
    static: constant in time; static_fields holds them, shape (channel, *grid.shape).
    timestep: timedelta64 in seconds, or in months if calendar steps are uneven. history: number of States a Step reads.
    scales: one Scale for each channel name. learned: the largest total wavenumber of the coarser data from which a
    network comes that was carried to this grid; None where it learns from all scales.
    """

    grid: Grid
    prognostic: VariableSet
    timestep: np.timedelta64
    forcing: VariableSet = VariableSet()
    diagnostic: VariableSet = VariableSet()
    static: VariableSet = VariableSet()
    static_fields: np.ndarray | None = None
    history: int = 1
    scales: Mapping[str, Scale] = field(default_factory=dict)
    vertical: Vertical = Vertical()
    learned: int | None = None

    @property
    def lat_lon(self) -> LatLonGrid:
        """The grid, for parts that need rows and columns; ValueError for a set of cells."""
        return lat_lon(self.grid)

    @property
    def by_role(self) -> dict[str, VariableSet]:
        """The variables by role: `prognostic`, `forcing`, `diagnostic` and `static`."""
        return {
            "prognostic": self.prognostic,
            "forcing": self.forcing,
            "diagnostic": self.diagnostic,
            "static": self.static,
        }

    @property
    def predicted(self) -> VariableSet:
        """Prognostic, then diagnostic variables: the channels of a forecast."""
        return self.prognostic + self.diagnostic

    @property
    def available(self) -> VariableSet:
        """Predicted, then prescribed variables; one that is both, as for an autoencoder, counts once."""
        return self.predicted + VariableSet(tuple(v for v in self.forcing if v.name not in self.predicted))

    @property
    def input_channels(self) -> int:
        """The number of channels a network reads: history x prognostic, forcing, static."""
        return self.history * self.prognostic.size + self.forcing.size + self.static.size

    @property
    def output_channels(self) -> int:
        """The number of channels a network writes: prognostic and diagnostic."""
        return self.predicted.size

    def scale(self, variables: VariableSet, kind: str) -> np.ndarray:
        """Return `mean`, `std` or `tendency_std` of each channel of `variables`, float32, shape (channel,).

        Raises KeyError if the scales of a channel are unknown.
        """
        missing = [channel for channel in variables.channels if channel not in self.scales]
        if missing:
            raise KeyError(f"No statistics for {', '.join(missing[:5])}; compute them over the training period first.")
        scales = [asdict(self.scales[channel])[kind] for channel in variables.channels]
        return np.array(scales, dtype=np.float32)

    @property
    def intervals(self) -> tuple[int, ...]:
        """The intervals, in timesteps, over which the changes of all prognostic channels are known; 1 the first."""
        changes = [set(self.scales[c].changes) if c in self.scales else set() for c in self.prognostic.channels]
        return (1, *sorted(set.intersection(*changes))) if changes else (1,)

    def change_std(self, variables: VariableSet, interval: int) -> np.ndarray:
        """Return the standard deviation of the change over `interval` timesteps, float32, shape (channel,).

        Raises ValueError if it is unknown.
        """
        if interval == 1:
            return self.scale(variables, "tendency_std")
        unknown = [channel for channel in variables.channels if interval not in self.scales[channel].changes]
        if unknown:
            raise ValueError(
                f"The change of {', '.join(unknown[:3])} over {interval} timesteps was not measured; known are "
                f"intervals of {', '.join(map(str, self.intervals))}. Train with objective.intervals that hold it, or "
                "on scales of `emul data statistics intervals=...`."
            )
        return np.array([self.scales[channel].changes[interval] for channel in variables.channels], dtype=np.float32)

    def after(self, time: np.ndarray, steps: int = 1) -> np.ndarray:
        """Return the time `steps` timesteps after `time`, datetime64[s]; month steps keep the day of the month."""
        time = np.asarray(time, dtype="datetime64[s]")
        if np.datetime_data(self.timestep)[0] != "M":
            return time + steps * self.timestep.astype("timedelta64[s]")
        month = time.astype("datetime64[M]")
        return (month + steps * self.timestep).astype("datetime64[s]") + (time - month.astype("datetime64[s]"))

    def lead_time(self, steps: int) -> np.timedelta64:
        """Return the nominal length of `steps` timesteps, timedelta64[s]; a month counts 365.25 / 12 days."""
        return np.timedelta64(int(steps * nominal_seconds(self.timestep)), "s")

    def plain(self) -> dict:
        """Return the World as numbers, strings, lists, dicts and one tensor, for a checkpoint."""
        unit, _ = np.datetime_data(self.timestep)
        timestep = self.timestep if unit == "M" else self.timestep.astype("timedelta64[s]")
        return {
            "grid": self.grid.plain(),
            **{role: variables.plain() for role, variables in self.by_role.items()},
            "static_fields": None if self.static_fields is None else torch.as_tensor(self.static_fields),
            "timestep": [int(timestep.astype(int)), "M" if unit == "M" else "s"],
            "history": self.history,
            "scales": {name: scale.plain() for name, scale in self.scales.items()},
            "vertical": {
                "kind": self.vertical.kind,
                "a": list(self.vertical.a),
                "b": list(self.vertical.b),
                "dry": self.vertical.dry,
            },
            **({} if self.learned is None else {"learned": self.learned}),
        }

    @classmethod
    def from_plain(cls, plain: dict) -> World:
        """Return the World that `plain` described."""
        fields = plain["static_fields"]
        vertical = plain["vertical"]
        return cls(
            grid=grid_from_plain(plain["grid"]),
            **{name: VariableSet.from_plain(plain[name]) for name in ("prognostic", "forcing", "diagnostic", "static")},
            static_fields=None if fields is None else fields.numpy(),
            timestep=np.timedelta64(*plain["timestep"]),
            history=plain["history"],
            scales={name: Scale(*values[:4], *map(tuple, values[4:])) for name, values in plain["scales"].items()},
            vertical=Vertical(vertical["kind"], tuple(vertical["a"]), tuple(vertical["b"]), vertical.get("dry", False)),
            learned=plain.get("learned"),
        )


def counted_timesteps(timestep: np.timedelta64, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the number of timesteps from `start` to `end`, rounded where times are off by less than a tenth of one."""
    unit = "M" if np.datetime_data(timestep)[0] == "M" else "s"
    spans = end.astype(f"datetime64[{unit}]") - start.astype(f"datetime64[{unit}]")
    counts = np.asarray(spans / timestep)
    return np.where(np.abs(counts - np.rint(counts)) < 0.1, np.rint(counts), counts)


def timesteps_between(timestep: np.timedelta64, start: np.ndarray, end: np.ndarray) -> int:
    """Return the number of timesteps from `start` to `end`, the same for all cases of a batch; else ValueError.

    Equal times, as of a State made from itself, count as one timestep.
    """
    counts = np.unique(counted_timesteps(timestep, start, end))
    if counts.size != 1 or counts[0] != int(counts[0]):
        raise ValueError(
            f"Expected an interval of whole timesteps of {timestep}, the same for all cases of a batch; got "
            f"{', '.join(f'{count:g}' for count in counts)} timesteps."
        )
    return int(counts[0]) or 1


def nominal_seconds(duration: np.timedelta64) -> int:
    """Return the length of a span of time in seconds; a month counts 365.25 / 12 days."""
    if np.datetime_data(duration)[0] == "M":
        return int(duration.astype(int)) * MONTH
    return int(duration.astype("timedelta64[s]").astype(int))


def hours_of(duration: np.timedelta64) -> float:
    """Return the length of a span of time in hours; a month counts 365.25 / 12 days."""
    return nominal_seconds(duration) / 3600.0
