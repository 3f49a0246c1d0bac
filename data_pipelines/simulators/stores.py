"""Stores of simulated data: where they are kept, their layout, how each is made once, and by which model.

A store has the layout of WeatherBench 2 (Rasp et al. 2024, arXiv 2308.15560) and the attributes of CF (Eaton et al.
2022, doi 10.5281/zenodo.11288138). It is made in a temporary folder and then moved to its path, so a store that exists
is complete. Processes that need the same store wait for the one that makes it.

A source with a small model defines the template of its store and the initial state of the model. `SimulatedSource`
makes the store from them, all trajectories side by side in one tensor, and runs identical twins for
`data_pipelines.inspection.predictability`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from data_pipelines.files.atomic import atomic_folder, wait_for_lock
from data_pipelines.files.fingerprints import every_chunk, seal_store, sealed_root
from data_pipelines.interfaces import Progress, RestartableSource, Sample, TwinCase
from data_pipelines.reading.threads import one_thread
from data_pipelines.reading.zarr_chunks import with_direct_reads
from emulators.grid import LatLonGrid

COLUMN = ("time", "level", "latitude", "longitude")
SURFACE = ("time", "latitude", "longitude")
CHUNK, CHUNK_BYTES = 20, 2**20  # a chunk holds at most 20 samples, or as many as fit into 1 MiB
ENSEMBLE_STORE = "forecast.zarr"  # in the folder of an ensemble
TIME_ENCODING = {"units": "hours since 1970-01-01", "dtype": "int64"}


# dimensions, units, CF standard name or "", long name
VariableDescription = tuple[tuple[str, ...], str, str, str]


@dataclass(frozen=True)
class Trajectories:
    """Lay trajectories of equal length one after the other along one time axis, with gaps between them.

    number: of trajectories. samples: of each trajectory. interval: between samples. start: of the first trajectory.
    gap: from the end of a trajectory to the start of the next.
    """

    number: int
    samples: int
    interval: np.timedelta64
    start: np.datetime64
    gap: np.timedelta64

    @property
    def times(self) -> np.ndarray:
        """Return the valid times of all samples, datetime64[s], (number * samples,)."""
        step = self.interval.astype("timedelta64[s]")
        first = self.start.astype("datetime64[s]") + np.arange(self.samples) * step
        period = self.samples * step + self.gap.astype("timedelta64[s]")
        return (first + np.arange(self.number)[:, None] * period).ravel()

    def plain(self) -> dict[str, str]:
        """Return the settings as strings, for `store_path`."""
        return {name: str(value) for name, value in asdict(self).items()}

    def write(
        self,
        folder: Path,
        template: xr.Dataset,
        samples: Iterable[Mapping[str, np.ndarray]],
        static: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Write a store, holding one chunk of samples in memory.

        samples: the fields of all trajectories at each time, (trajectory, [level,] lat, lon). static: fields without
        time. Raises ValueError if a sample is not finite.
        """
        largest = max(array[:1].nbytes for array in template.data_vars.values() if "time" in array.dims)
        limit = max(CHUNK, CHUNK_BYTES // largest)
        chunk = max(size for size in range(1, limit + 1) if self.samples % size == 0)
        create_store(folder, template, chunk)
        stored = open_arrays(folder, [str(name) for name in template.data_vars])
        for name, field in (static or {}).items():
            stored.pop(name)[...] = field
        pending: list[Mapping[str, np.ndarray]] = []
        for end, sample in enumerate(samples, start=1):
            pending.append(sample)
            if len(pending) < chunk:
                continue
            for name, array in stored.items():
                fields = np.stack([fields_at_time[name] for fields_at_time in pending], axis=1)
                if not np.isfinite(fields).all():
                    raise ValueError(f"'{name}' grew without bound; choose a shorter timestep.")
                for trajectory, values in enumerate(fields):
                    last = trajectory * self.samples + end
                    array[last - chunk : last] = values
            pending.clear()


def require_at_least(owner: str, settings: Mapping[str, tuple[float, float]]) -> None:
    """Raise ValueError if a setting is too small. settings: {name: (value, least value)}."""
    for name, (value, least) in settings.items():
        if value < least:
            raise ValueError(f"{owner}'s {name} must be at least {least:g}; got {value:g}.")


def store_path(folder: str | None, name: str, settings: Mapping[str, Any]) -> Path:
    """Return the path of the store with these settings, in `folder` or by default in the user's cache."""
    text = json.dumps(dict(settings), sort_keys=True)
    return _cache(folder) / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.zarr"


def make_once(path: Path, make: Callable[[Path], None], *, resumable: bool = False) -> None:
    """Call `make` with a temporary folder to fill with a store, seal that and move it to `path`, unless `path` exists.

    resumable: after an interruption the temporary folder is kept, and the next call of `make` continues it. Otherwise,
    and after a ValueError, which would occur again, the temporary folder is removed.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with wait_for_lock(path.with_suffix(".lock")):
        if path.exists():  # another process made it while this one waited
            return
        with atomic_folder(path, resumable=resumable) as unfinished:
            try:
                make(unfinished)
            except ValueError:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
            seal_store(unfinished)


def empty_dataset(
    variables: Mapping[str, VariableDescription],
    grid: LatLonGrid,
    times: np.ndarray,
    levels: tuple[Sequence[float], Mapping[str, str]] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Return a dataset with coordinates, attributes and shapes, whose fields take no memory.

    levels: values and attributes of the coordinate `level`. attributes: of the dataset.
    """
    coordinates: dict[str, Any] = {
        "time": ("time", times.astype("datetime64[ns]"), {"standard_name": "time", "axis": "T"})
    }
    if levels is not None:
        coordinates["level"] = ("level", np.asarray(levels[0]), dict(levels[1]))
    coordinates |= {
        "latitude": ("latitude", grid.latitude, {"standard_name": "latitude", "units": "degrees_north"}),
        "longitude": ("longitude", grid.longitude, {"standard_name": "longitude", "units": "degrees_east"}),
    }
    sizes = {name: len(values) for name, (_, values, _) in coordinates.items()}
    fields = {
        name: (
            dimensions,
            np.broadcast_to(np.float32(0.0), tuple(sizes[d] for d in dimensions)),
            {"long_name": long_name, "units": units} | ({"standard_name": standard} if standard else {}),
        )
        for name, (dimensions, units, standard, long_name) in variables.items()
    }
    return xr.Dataset(fields, coordinates, {"Conventions": "CF-1.8", **(attributes or {})})


def create_store(folder: Path, template: xr.Dataset, chunk: int) -> None:
    """Create a store with the coordinates and attributes of `template` and empty arrays, `chunk` times in a chunk."""
    import zarr
    from zarr.codecs import Crc32cCodec

    coordinates = template.drop_vars(list(template.data_vars))
    encoding: dict[str, dict[str, Any]] = {str(name): {"compressors": (Crc32cCodec(),)} for name in coordinates.coords}
    encoding["time"] |= TIME_ENCODING
    with every_chunk():
        coordinates.to_zarr(folder, mode="w", zarr_format=3, consolidated=False, encoding=encoding)
    group = zarr.open_group(folder, mode="r+")
    for name, variable in template.data_vars.items():
        shape = variable.shape
        group.create_array(
            str(name),
            shape=shape,
            dtype="float32",
            chunks=(chunk, *shape[1:]) if "time" in variable.dims else shape,
            fill_value=float("nan"),
            compressors=[Crc32cCodec()],  # weather hardly shrinks, and is read many times
            dimension_names=[str(dimension) for dimension in variable.dims],
            attributes=variable.attrs,
        )


def open_arrays(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """Open the named arrays of the store in `folder` for writing."""
    import zarr

    group = zarr.open_group(folder, mode="r+")
    return {name: group[name] for name in names}


def open_store(path: Path, names: Sequence[str], owner: str) -> xr.Dataset:
    """Open the named variables of the store at `path` lazily; FileNotFoundError if it is not made yet.

    ValueError if the store is damaged; damaged chunks are found when they are read.
    """
    if not path.exists():
        raise FileNotFoundError(f"{owner} data are not made yet: no {path}. Call prepare() first.")
    try:
        sealed = sealed_root(path) is not None
        stored = with_direct_reads(xr.open_zarr(path, consolidated=sealed, chunks=None, decode_cf=False), path)
        return xr.decode_cf(stored)[list(names)]
    except (ValueError, KeyError, OSError) as error:
        raise ValueError(f"{owner} data are damaged ({error}): remove {path}, and they are made again.") from error


def _cache(folder: str | None) -> Path:
    if folder is not None:
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "emul"


GAP = np.timedelta64(10, "D")  # between trajectories
TWINS_INTERVAL = np.timedelta64(6, "h")


class Model(Protocol):
    """Integrate equations of motion for several members at once; each model defines the shape of its states."""

    def step(self, state: Tensor) -> Tensor:
        """Return the state one timestep later."""
        ...

    def sample(self, state: Tensor) -> Sample:
        """Return the fields that change by name, float32, (member, [level,] lat, lon)."""
        ...

    @property
    def state_variables(self) -> tuple[str, ...]:
        """Return the names of the fields of a sample that make a state."""
        ...

    def state(self, sample: Sample) -> Tensor:
        """Return the state whose sample this is, to the precision of the sample."""
        ...

    def static(self) -> Sample:
        """Return the fields that do not change by name, (lat, lon)."""
        ...

    def disturbed(self, state: Tensor, size: float, generator: torch.Generator) -> Tensor:
        """Return the state with noise of rms `size`, in the units of the model's wind or of its only variable."""
        ...


class Integration:
    """Hold a model and its present state, and advance it."""

    def __init__(self, model: Model, state: Tensor) -> None:
        self.model, self.state = model, state

    def advance(self, steps: int) -> None:
        """Advance by `steps` timesteps."""
        for _ in range(steps):
            self.state = self.model.step(self.state)

    def sample(self) -> Sample:
        """Return the present fields; see `Model.sample`."""
        return self.model.sample(self.state)


class SimulatedSource(ABC):
    """Simulate a store with one model on first use; base class of such sources.

    label: name for progress and messages. seed: of the noise. path: of the store. splits: first and last time by name.
    timestep: of the model. spinup: time simulated before the first stored sample.
    """

    label: str
    seed: int
    path: Path
    splits: Mapping[str, list[str | int]]
    trajectories: Trajectories
    timestep: np.timedelta64
    spinup: np.timedelta64
    hidden: Collection[str] = ()  # the data hold the whole state

    @abstractmethod
    def template(self) -> xr.Dataset:
        """Return the coordinates, attributes and shapes of the dataset, without its values."""

    @abstractmethod
    def initial_state(self, members: int) -> tuple[Model, Tensor]:
        """Return the model, and the states of `members` trajectories before their spin-up."""

    def prepare(self, progress: Progress | None = None) -> None:
        """Make the store if it is missing. An interrupted run leaves no store behind."""
        report = progress or (lambda label, share: None)
        count, interval = self.trajectories.samples, self.trajectories.interval
        steps, spinup = int(interval / self.timestep), int(self.spinup / interval)

        def samples(run: Integration) -> Iterator[Sample]:
            for index in range(-spinup, count):
                if index >= 0:
                    yield run.sample()
                run.advance(steps)
                report(self.label, (spinup + index + 1) / (spinup + count))

        def fill(folder: Path) -> None:
            with one_thread():
                run = Integration(*self.initial_state(self.trajectories.number))
                self.trajectories.write(folder, self.template(), samples(run), run.model.static())

        make_once(self.path, fill)

    def dataset(self) -> xr.Dataset:
        """Open the dataset lazily; FileNotFoundError if the store is not made yet."""
        return open_store(self.path, [str(name) for name in self.template().data_vars], self.label)

    @cached_property
    def model(self) -> Model:
        """Return the model."""
        return self.initial_state(1)[0]

    @property
    def state_variables(self) -> tuple[str, ...]:
        """Return the names of the stored fields that make a state."""
        return self.model.state_variables

    def continued(self, first: Sample, start: np.datetime64) -> Iterator[Sample]:
        """Yield what follows; see `data_pipelines.interfaces.RestartableSource`."""
        run, steps = Integration(self.model, self.model.state(first)), int(self.trajectories.interval / self.timestep)
        while True:
            with one_thread():
                run.advance(steps)
            yield run.sample()

    def controls(self, cases: int, report: Progress) -> list[Integration]:
        """Return the control of each twin case; here the cases follow each other along one trajectory."""
        control = Integration(*self.initial_state(1))
        report("spin-up", 0.0)
        control.advance(int(self.spinup / self.timestep))
        return [control] * cases

    def twins(
        self, cases: int, leads: int, perturbation: float, report: Progress, forgotten: Collection[str] = ()
    ) -> Iterator[TwinCase]:
        """Yield twin cases, each from the present state of its control; see `data_pipelines.interfaces.TwinSource`.

        forgotten: none; `hidden` is empty.
        """
        controls = self.controls(cases, report)
        steps, total = int(TWINS_INTERVAL / self.timestep), len(controls) * leads
        generator = torch.Generator().manual_seed(self.seed)

        def samples(run: Integration, done: int) -> Iterator[Sample]:
            for lead in range(1, leads + 1):
                run.advance(steps)
                yield _first_member(run.sample())
                report("twins", (done + lead) / total)

        for case, control in enumerate(controls):
            twin = Integration(control.model, control.model.disturbed(control.state, perturbation, generator))
            first, done = _first_member(control.sample()), case * leads
            yield TwinCase(first, samples(control, done), samples(twin, done))


def checked_intervals(name: str, timestep_minutes: int, interval_hours: int) -> tuple[np.timedelta64, np.timedelta64]:
    """Return the timestep and the interval between samples.

    Raises ValueError unless the timestep divides the interval and 6 hours, and the interval divides a day.
    """
    if timestep_minutes < 1 or 360 % timestep_minutes:
        raise ValueError(f"{name}: timestep_minutes must divide 6 hours; got {timestep_minutes}. Try 120, 60 or 15.")
    if interval_hours < 1 or 24 % interval_hours or 60 * interval_hours % timestep_minutes:
        raise ValueError(
            f"{name}: interval_hours must divide a day and be a multiple of timestep_minutes ({timestep_minutes}); "
            f"got {interval_hours}. Try 6, 12 or 24."
        )
    return np.timedelta64(timestep_minutes, "m"), np.timedelta64(interval_hours, "h")


def _first_member(sample: Sample) -> Sample:
    """Return the fields of the first member."""
    return {name: field[0] for name, field in sample.items()}


def ensemble_folder(source: RestartableSource) -> Path:
    """Return the folder beside the store of `source` that holds its own ensemble."""
    return source.path.with_suffix(".ensemble")


def ensemble_record(folder: Path) -> dict[str, Any]:
    """Return what is recorded of an ensemble: its settings, what of it is done, and whether all of it is."""
    return json.loads(p.read_text(encoding="utf-8")) if (p := folder / "ensemble.json").is_file() else {}
