"""The ensemble of the truth itself: a simulated source is run again from perturbed analyses of its stored states.

    analysis  a = x + e_0,     members  x_m(0) = a + e_m,     e_0, e_1, ... drawn alike and independently

so that the truth could be one of the members: the ensemble is reliable at every lead, and no forecast from analyses of
this quality has a better distribution. Spread over skill is 1 and the fair CRPS the least there is. Errors e have the
rms `amplitude` in units of the standard deviation of each variable and level, by shape

    differences   a / sqrt(2) (x(s) - x(t)),   two states of the record at the same hour and season: balanced
    bred          differences that were simulated on and scaled back once a day: what has grown, of random sign
                  (Toth & Kalnay 1993, doi 10.1175/1520-0477(1993)074<2317:EFANTG>2.0.CO;2)
    white         independent at all points

It is written in the layout of forecasts (Rasp et al. 2024, arXiv 2308.15560), one initial time after the other.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
import xarray as xr

from data_pipelines.batches.world import VariableRoles, world_from_dataset
from data_pipelines.conventions.attributes import grid_of
from data_pipelines.conventions.durations import bounds
from data_pipelines.files.atomic import wait_for_lock, write_text
from data_pipelines.files.identity import differences, listed
from data_pipelines.forecasts.layout import Layout
from data_pipelines.forecasts.perturbations import History, Starts, perturbed
from data_pipelines.forecasts.writers import ZarrWriter
from data_pipelines.interfaces import Progress, RestartableSource, Sample, Source
from data_pipelines.simulators.stores import ENSEMBLE_STORE, ensemble_folder, ensemble_record
from emulators.world import World

Shape = Literal["differences", "bred", "white"]
SHAPES: tuple[Shape, ...] = ("differences", "bred", "white")
EDITION = 1  # of the experiment
DAY = np.timedelta64(1, "D")
SEASON = 45  # days of the year within which states are taken for those of the same season
APART = 5  # days at least between the two states of a difference
RECORD = 200  # states of the record from which standard deviations are taken, at most
POSITIVE = ("specific_humidity",)


@dataclass(frozen=True)
class AnalysisErrors:
    """Hold what analyses are like. amplitude: rms of their errors in standard deviations of each variable and level.

    shape: see the module. breeding_days: simulated before the initial time, for bred errors. seed: of the draws.
    """

    amplitude: float = 0.05
    shape: Shape = "differences"
    breeding_days: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise ValueError(f"Expected shape to be one of {', '.join(SHAPES)}; got '{self.shape}'.")
        if not self.amplitude > 0.0 or self.breeding_days < 1:
            raise ValueError(
                "Expected an amplitude above 0 and breeding_days of at least 1; got "
                f"amplitude={self.amplitude}, breeding_days={self.breeding_days}."
            )


def ensemble_store(source: Source) -> Path | None:
    """Return where the store with the ensemble of `source` is, or would be; None for data that are not simulated."""
    return ensemble_folder(source) / ENSEMBLE_STORE if isinstance(source, RestartableSource) else None


def stored_ensemble(source: Source | None) -> Path:
    """Return the store with the ensemble of `source`; ValueError or FileNotFoundError where there is none."""
    if not isinstance(source, RestartableSource):
        raise ValueError("perfect_model is for data that are simulated here, such as data=planet or data=lorenz96.")
    folder = ensemble_folder(source)
    if not ensemble_record(folder).get("finished"):
        raise FileNotFoundError(
            f"perfect_model: expected an ensemble of the data in {folder}, got none that is finished; make it with "
            "`emul data ensemble data=... members=16 inits=... lead=10d`."
        )
    return folder / ENSEMBLE_STORE


def make_ensemble(
    source: RestartableSource,
    inits: np.ndarray,
    leads: int,
    members: int,
    errors: AnalysisErrors,
    *,
    fields: Sequence[str] | None = None,
    stride: int = 1,
    anew: bool = False,
    report: Progress | None = None,
) -> Path:
    """Make the ensemble of `source`, or what is missing of it, at `ensemble_folder`; return the folder.

    inits: initial times, all of which are stored. leads: number of samples that are kept, every `stride`-th. fields:
    names; None: all that change in time. anew: replace an ensemble with other settings, which is else a ValueError.
    """
    if members < 2 or leads < 1 or stride < 1:
        raise ValueError(
            f"Expected at least 2 members, 1 lead and every of 1 interval; got {members}, {leads} and {stride}."
        )
    folder, dataset = ensemble_folder(source), source.dataset()
    inits = np.asarray(inits, dtype="datetime64[s]")
    record = Record(source, dataset, errors)
    record.refuse_absent(inits)
    layout = _layout(source, dataset, inits, leads, members, fields, stride)
    settings = {
        "edition": EDITION, "store": source.path.name, "members": members, "stride": stride, **asdict(errors),
        **layout.plain(),
    }  # fmt: skip
    with wait_for_lock(folder.with_suffix(".ensemble.lock")):
        done = _begun(folder, settings, anew)
        writer = ZarrWriter()
        writer.open(folder, layout)
        try:
            for number, init in enumerate(inits):
                if number in done:
                    continue

                def report_lead(lead: int, number: int = number, init: np.datetime64 = init) -> None:
                    share = (number + lead / leads) / len(inits)
                    (report or (lambda label, share: None))(f"{init} member runs", share)

                _write(writer, layout, number, record.members(init, members), source, init, stride, report_lead)
                done.append(number)
                _save(folder, settings, done, finished=False)
        finally:
            writer.close()
        writer.mark("verified")
        _save(folder, settings, done, finished=True)
    return folder


def _layout(
    source: RestartableSource,
    dataset: xr.Dataset,
    inits: np.ndarray,
    leads: int,
    members: int,
    fields: Sequence[str] | None,
    stride: int,
) -> Layout:
    moving = [str(name) for name, field in dataset.data_vars.items() if "time" in field.dims]
    if unknown := [name for name in fields or () if name not in moving]:
        raise ValueError(f"fields: expected some of {', '.join(moving)}; got {', '.join(unknown)}.")
    world = world_from_dataset(dataset, VariableRoles(prognostic=list(fields or moving)))
    world = type(world)(world.grid, world.prognostic, stride * world.timestep, vertical=world.vertical)
    attributes = {"title": "Ensemble of the simulated truth", "source": f"emul data ensemble, {source.path.name}"}
    largest = max(variable.size for variable in world.predicted) * members * int(np.prod(world.grid.shape))
    return Layout(
        world, inits, leads, 1, min(leads, ZarrWriter().leads_per_chunk(largest)), attributes, members=members
    )


def _write(
    writer: ZarrWriter,
    layout: Layout,
    number: int,
    first: Sample,
    source: RestartableSource,
    init: np.datetime64,
    stride: int,
    report: Callable[[int], None],
) -> None:
    """Simulate the members from one initial time, and write every `stride`-th sample."""
    names = layout.world.predicted.names
    stream = source.continued(first, init)
    for lead in range(layout.steps):
        for _ in range(stride):
            sample = next(stream)
        channels = [sample[name] if sample[name].ndim == 4 else sample[name][:, None] for name in names]
        values = np.concatenate(channels, axis=1)
        if not np.isfinite(values).all():
            raise ValueError(f"A member from {init} grew without bound; take a smaller amplitude.")
        writer.write(number, lead, values[:, None])
        report(lead + 1)
    writer.finish(number)


def _save(folder: Path, settings: Mapping[str, Any], done: Sequence[int], *, finished: bool) -> None:
    text = json.dumps({"settings": dict(settings), "done": list(done), "finished": finished}, indent=1)
    write_text(folder / "ensemble.json", text + "\n")


def _begun(folder: Path, settings: Mapping[str, Any], anew: bool) -> list[int]:
    """Return the initial times that an earlier call has made; ValueError where it had other settings."""
    record = ensemble_record(folder)
    changes = differences(record["settings"], json.loads(json.dumps(dict(settings)))) if record else []
    if changes and not anew:
        raise ValueError(
            f"{folder} holds another ensemble ({listed(changes)}): expected the same settings, or resume=anew, which "
            "replaces it."
        )
    if changes or not record:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _save(folder, settings, [], finished=False)
        return []
    return list(record["done"])


class Record:
    """Hold the stored states of a source, and draw errors of analyses from them."""

    def __init__(self, source: RestartableSource, dataset: xr.Dataset, errors: AnalysisErrors) -> None:
        self.source, self.dataset, self.errors = source, dataset, errors
        self.moving = [str(name) for name, field in dataset.data_vars.items() if "time" in field.dims]
        self.times = dataset["time"].values.astype("datetime64[s]")
        self.interval = np.diff(self.times).min()
        self.area = grid_of(dataset).weights / grid_of(dataset).weights.size
        first, last = bounds(source.splits.get("train") or [str(self.times[0]), str(self.times[-1])])
        self.pool = np.flatnonzero((self.times >= first) & (self.times <= last))
        if len(self.pool) < 2:
            raise ValueError("Expected at least two states in the training split, of which errors are made; got fewer.")

    def refuse_absent(self, inits: np.ndarray) -> None:
        """Raise ValueError for initial times that are not stored, or lack the days before them that breeding needs."""
        required = [inits]
        if self.errors.shape == "bred":
            required += [inits - DAY * day for day in range(1, self.errors.breeding_days + 1)]
        for times in required:
            absent = np.setdiff1d(times, self.times)
            if absent.size or not inits.size:
                raise ValueError(
                    f"inits: expected times of the data, {self.times[0]} to {self.times[-1]}, and for shape=bred "
                    f"breeding_days before them; got {absent[0] if absent.size else 'none'}."
                )

    def fields(self, time: np.datetime64) -> dict[str, np.ndarray]:
        """Return all stored fields at a time, ([level,] lat, lon)."""
        snapshot = self.dataset.isel(time=int(np.searchsorted(self.times, time)))
        return {name: snapshot[name].values for name in self.moving}

    def states(self, index: int) -> dict[str, np.ndarray]:
        """Return the fields that make a state, float64."""
        snapshot = self.dataset.isel(time=int(index))
        return {name: snapshot[name].values.astype(np.float64) for name in self.source.state_variables}

    def deviations(self) -> dict[str, np.ndarray]:
        """Return the standard deviation of each variable and level over area and time, ([level,] 1, 1)."""
        sampled = self.pool[:: max(1, len(self.pool) // RECORD)]
        stds = {}
        for name in self.source.state_variables:
            values = self.dataset[name].isel(time=sampled).values.astype(np.float64)
            variance = (values.var(axis=0) * self.area).sum((-2, -1), keepdims=True)
            stds[name] = np.sqrt(variance)
        return stds

    def members(self, init: np.datetime64, members: int) -> dict[str, np.ndarray]:
        """Return the fields of all members at an initial time, (member, [level,] lat, lon)."""
        seconds = int(init.astype("datetime64[s]").astype(np.int64)) & (2**63 - 1)
        draw = np.random.default_rng((self.errors.seed, seconds))
        errors = self.errors_at(init, members + 1, draw)
        truth = self.fields(init)
        fields = {name: np.broadcast_to(field, (members, *field.shape)) for name, field in truth.items()}
        for name, error in errors.items():
            values = truth[name] + error[1:] + error[0]
            fields[name] = (values.clip(min=0.0) if name in POSITIVE else values).astype(np.float32)
        return fields

    def errors_at(self, init: np.datetime64, count: int, draw: np.random.Generator) -> dict[str, np.ndarray]:
        """Return `count` errors, (count, [level,] lat, lon) by name."""
        if self.errors.shape == "bred":
            return self._bred(init, count, draw)
        if self.errors.shape == "white":
            scales = self.deviations()
            shapes = {name: self.dataset[name].shape[1:] for name in scales}
            return {n: self.errors.amplitude * s * draw.standard_normal((count, *shapes[n])) for n, s in scales.items()}
        return _stacked([self._difference(init, draw) for _ in range(count)])

    def _difference(self, init: np.datetime64, draw: np.random.Generator) -> dict[str, np.ndarray]:
        """Return the scaled difference of two states of the record, at the same hour and season where there are any."""
        times = self.times[self.pool]
        days = (_day_of_year(times) - _day_of_year(init) + 183) % 366 - 183
        analogues = self.pool[((times - init) % DAY == np.timedelta64(0, "s")) & (abs(days) <= SEASON)]
        pool = analogues if len(analogues) > 1 else self.pool
        first = draw.choice(pool)
        distant = pool[abs(self.times[pool] - self.times[first]) >= APART * DAY]
        second = draw.choice(distant if len(distant) else pool[pool != first])
        size, left, right = self.errors.amplitude / np.sqrt(2.0), self.states(first), self.states(second)
        return {name: size * (left[name] - right[name]) for name in left}

    def _bred(self, init: np.datetime64, count: int, draw: np.random.Generator) -> dict[str, np.ndarray]:
        """Return differences that grew over days, scaled back once a day, of random sign."""
        scales, start = self.deviations(), init - self.errors.breeding_days * DAY
        errors = _stacked([self._difference(init, draw) for _ in range(count)])
        for day in range(self.errors.breeding_days):
            time = start + day * DAY
            truth, after = self.fields(time), self.fields(time + DAY)
            first = {name: np.broadcast_to(field, (count, *field.shape)) for name, field in truth.items()}
            for name, error in errors.items():
                values = truth[name] + error
                first[name] = (values.clip(min=0.0) if name in POSITIVE else values).astype(np.float32)
            stream = self.source.continued(first, time)
            for _ in range(int(DAY / self.interval)):
                sample = next(stream)
            errors = {name: sample[name] - after[name].astype(np.float64) for name in errors}
            size = self.size(errors, scales)
            errors = {n: e * _along(self.errors.amplitude / size, e.ndim) for n, e in errors.items()}
        sign = draw.choice([-1.0, 1.0], count)
        return {name: error * _along(sign, error.ndim) for name, error in errors.items()}

    def size(self, errors: Mapping[str, np.ndarray], scales: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the rms of errors over area, levels and variables in standard deviations, (count,)."""
        squares = []
        for name, error in errors.items():
            square = ((error / scales[name]) ** 2 * self.area).sum((-2, -1))
            squares.append(square.reshape(len(square), -1).mean(1))
        return np.sqrt(np.mean(squares, axis=0))


class PerfectModelPerturbation:
    """Start member n where member n of the truth's own ensemble starts, so that both have analyses of one quality.

    source: the simulated data of the run. Each State of several has the error of the last; channels that are no part of
    a state of the simulator have none. Raises ValueError or FileNotFoundError where `emul data ensemble` has made none.
    """

    def __init__(self, world: World, *, source: Source) -> None:
        stored_ensemble(source)
        self.world, self.source = world, cast(RestartableSource, source)

    def prepare(
        self, step: object, archive: object, splits: object, inits: np.ndarray, seed: int, device: str
    ) -> Starts:
        """Return the function that draws the starts; ValueError for times or members that the data do not have."""
        settings = ensemble_record(ensemble_folder(self.source))["settings"]
        errors = AnalysisErrors(**{name: settings[name] for name in AnalysisErrors.__dataclass_fields__})
        record = Record(self.source, self.source.dataset(), errors)
        record.refuse_absent(np.asarray(inits, dtype="datetime64[s]"))

        def starts(inits: np.ndarray, history: History, members: range) -> History:
            if members.stop > settings["members"]:
                raise ValueError(
                    f"perturbation=perfect_model: the ensemble of the data has {settings['members']} members; "
                    f"expected members={settings['members']} or fewer, got {members.stop}."
                )
            changes = [self._changes(record, init, settings["members"])[members.start : members.stop] for init in inits]
            return perturbed(history, torch.from_numpy(np.stack(changes, axis=1)).to(history[-1].values))

        return starts

    def _changes(self, record: Record, init: np.datetime64, members: int) -> np.ndarray:
        """Return analyses minus the truth, (member, channel, lat, lon)."""
        truth, analyses = record.fields(init), record.members(init, members)
        shape = members, self.world.prognostic.size, *self.world.grid.shape
        changes = np.zeros(shape, dtype=np.float32)
        for variable in self.world.prognostic:
            if variable.name in self.source.state_variables:
                change = analyses[variable.name] - truth[variable.name]
                if variable.levels:
                    change = change[:, record.dataset.indexes["level"].get_indexer(list(variable.levels))]
                else:
                    change = change[:, None]
                changes[:, self.world.prognostic.slice(variable.name)] = change
        return changes


def _stacked(errors: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.stack([error[name] for error in errors]) for name in errors[0]}


def _along(factors: np.ndarray, rank: int) -> np.ndarray:
    """Return factors of the first axis, ready to multiply arrays of this rank."""
    return factors.reshape(-1, *[1] * (rank - 1))


def _day_of_year(times: np.ndarray | np.datetime64) -> np.ndarray:
    days = np.asarray(times, dtype="datetime64[D]")
    return (days - days.astype("datetime64[Y]")).astype(int)
