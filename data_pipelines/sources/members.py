"""Simulated data beside the members of their own ensemble, which `emul data ensemble` writes, for step=seeds.

Times are the initial times of the ensemble and the valid times of its leads, one initial time after the other. Member n
of temperature is member_n_temperature. At an initial time the store has no members, and all of them are the truth, so
that no training window may end there: initial times lie at least two intervals after the last lead of those before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from data_pipelines.conventions.durations import bounds
from data_pipelines.interfaces import Progress, RestartableSource
from data_pipelines.simulators.stores import ENSEMBLE_STORE, ensemble_folder, ensemble_record
from emulators.variables import member_name


@dataclass(frozen=True)
class Members:
    """Join a simulated source and members of its ensemble, in memory.

    source: such as data=planet. members: that are handed on. only: of these, that are read; the others are copies of
    them, where fewer are there or to show that no more are used; None: all. Raises ValueError for a source that cannot
    be simulated on, and for more than `members`.
    """

    source: RestartableSource
    members: int = 8
    only: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.source, RestartableSource):
            raise ValueError("data=members takes data that are simulated here, such as planet, as data.source.")
        if not 1 <= (self.only or self.members) <= self.members:
            raise ValueError(f"Expected data.only between 1 and data.members={self.members}; got {self.only}.")

    @property
    def folder(self) -> Path:
        """Return the folder of the ensemble."""
        return ensemble_folder(self.source)

    @property
    def path(self) -> list[str]:
        """Return the stores of the source and of its ensemble."""
        return [str(self.source.path), str(self.folder / ENSEMBLE_STORE)]

    @property
    def splits(self) -> Mapping[str, Sequence[str | int] | None]:
        """Return the splits of the source; where the ensemble is there, from its first to its last time in each."""
        if not self._is_there:
            return self.source.splits
        times, splits = self.template()["time"].values.astype("datetime64[s]"), dict(self.source.splits)
        for name, period in splits.items():
            first, last = bounds(period) if period else (times[-1], times[0])
            inside = times[(times >= first) & (times <= last)]
            if inside.size:
                splits[name] = [str(inside[0]), str(inside[-1])]
        return splits

    def prepare(self, progress: Progress | None = None) -> None:
        """Make the source if it is missing; FileNotFoundError where its ensemble is."""
        self.source.prepare(progress)
        self._require()

    def template(self) -> xr.Dataset:
        """Return the shapes of the dataset; at all times of the source where the ensemble is not there yet."""
        whole = self.source.template()
        if self._is_there:
            whole = whole.isel(time=self._positions(whole["time"].values))
        return whole.assign({name: whole[v] for v in self._moving(whole) for name in self._names(v)})

    def dataset(self) -> xr.Dataset:
        """Read the source at the times of the ensemble, and the members."""
        self._require()
        whole = self.source.dataset()
        times = whole.isel(time=self._positions(whole["time"].values)).load()
        with xr.open_zarr(self.folder / ENSEMBLE_STORE, chunks=None, decode_timedelta=True) as stored:
            return times.assign(
                {
                    name: times[variable].copy(data=self._fields(stored, times[variable], number))
                    for variable in self._moving(times)
                    if variable in stored
                    for number, name in enumerate(self._names(variable))
                }
            )

    def _fields(self, stored: xr.Dataset, truth: xr.DataArray, number: int) -> np.ndarray:
        """Return the fields of a member at all times, (time, [level,] lat, lon)."""
        member = stored[str(truth.name)].isel(number=number % (self.only or self.members))
        order = ("time", "prediction_timedelta", *truth.dims[1:])
        simulated = member.compute().transpose(*order).values.astype(truth.dtype)
        starts = truth.values[:: simulated.shape[1] + 1][:, None]
        return np.concatenate([starts, simulated], axis=1).reshape(truth.shape)

    def _positions(self, times: np.ndarray) -> np.ndarray:
        """Return the positions in `times` of all times; ValueError where initial times are too close, or not there."""
        with xr.open_zarr(self.folder / ENSEMBLE_STORE, chunks=None, decode_timedelta=True) as stored:
            count, leads = stored.sizes["number"], stored["prediction_timedelta"].values
            valid = stored["time"].values[:, None] + np.concatenate([[np.timedelta64(0, "ns")], leads])
        if count < (self.only or self.members):
            raise ValueError(f"{self.folder} has {count} members; expected data.members={self.members} or more.")
        if (np.diff(leads) != leads[0]).any() or (valid[1:, 0] - valid[:-1, -1] < 2 * leads[0]).any():
            raise ValueError(
                f"{self.folder}: expected initial times in order, each two intervals or more after the last lead of "
                f"those before; got leads up to {leads[-1].astype('timedelta64[h]')}. Simulate a shorter `lead`, or "
                "fewer initial times, by `emul data ensemble`."
            )
        wanted = valid.reshape(-1)
        positions = np.searchsorted(times, wanted)
        if not np.array_equal(times[positions.clip(max=len(times) - 1)], wanted):
            raise ValueError(f"{self.folder}: expected leads within the data, and as far apart; got others.")
        return positions

    def _moving(self, dataset: xr.Dataset) -> list[str]:
        return [str(name) for name, field in dataset.data_vars.items() if "time" in field.dims]

    def _names(self, variable: str) -> list[str]:
        return [member_name(number, variable) for number in range(1, self.members + 1)]

    @property
    def _is_there(self) -> bool:
        return bool(ensemble_record(self.folder).get("finished"))

    def _require(self) -> None:
        if not self._is_there:
            raise FileNotFoundError(
                f"data=members: expected an ensemble of the data in {self.folder}, got none that is finished; make it "
                f"with `emul data ensemble data=... members={self.members} inits=... lead=2d`, initial times in all "
                "splits."
            )
