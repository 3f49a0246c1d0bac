"""Simulate the trajectories of the planet in parallel processes, resumable after each chunk; and identical twins.

After each chunk the state of its trajectory is saved atomically beside the store. A run that was killed continues after
the last chunk it wrote, and its result is bit-identical to that of an uninterrupted run.

Twins are simulations from nearly equal states. Observers of the air do not see the temperature of the land. A twin that
is to forget it takes its estimate from what they see: the climatology of the hour and the day, and the anomaly of the
lowest layer of air,

    Ts = <Ts> + b (T - <T>),    b = cov(Ts, T) / var(T) at each point,

fitted to stored data.
"""

from __future__ import annotations

import copy
import math
import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from itertools import islice
from multiprocessing import connection
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from data_pipelines.files.archives import refuse_damaged_archive
from data_pipelines.files.atomic import atomic_file
from data_pipelines.interfaces import Progress, Sample, TwinCase, TwinSource
from data_pipelines.reading.threads import one_thread, processors
from data_pipelines.simulators.planet.simulation import Simulation
from data_pipelines.simulators.stores import CHUNK, create_store, open_arrays
from emulators.grid import LatLonGrid
from emulators.statistics.climatology import HarmonicClimatology

SMALL = 3000  # fewer timesteps than this run in the calling process
RESTART = "restart"  # folder of saved states; it is created after the arrays of the store


def fill_store(planet: PlanetSource, folder: Path, progress: Progress) -> None:
    """Fill `folder` with the store of `planet`, or continue an interrupted run."""
    template = planet.template()
    moving = [str(name) for name, variable in template.data_vars.items() if "time" in variable.dims]
    if not (folder / RESTART).exists():
        shutil.rmtree(folder, ignore_errors=True)
        create_store(folder, template, _chunk_length(planet))
        for name, field in planet.static().items():
            open_arrays(folder, [name])[name][...] = field
        (folder / RESTART).mkdir()
    _simulate(planet, folder, moving, progress)
    shutil.rmtree(folder / RESTART)


def _chunk_length(planet: PlanetSource) -> int:
    return math.gcd(4 * planet.days, CHUNK)


def _simulate(planet: PlanetSource, folder: Path, moving: list[str], progress: Progress) -> None:
    """Run all trajectories, in parallel if there are several processors and the work is long enough."""
    label = f"planet T{planet.truncation}L{planet.levels}"
    total = planet.trajectories * (planet.spinup_days + planet.days)
    processes = min(planet.trajectories, processors()) if planet.device == "cpu" else 1
    done = 0.0

    def report(days: float) -> None:
        nonlocal done
        done += days
        progress(label, done / total)

    if processes == 1 or total * 1440 // planet.timestep_minutes < SMALL:
        for trajectory in range(planet.trajectories):
            _write_trajectory(planet, trajectory, folder, moving, report)
        return
    _run_processes(planet, folder, moving, report, processes)


def _run_processes(
    planet: PlanetSource, folder: Path, moving: list[str], report: Callable[[float], None], processes: int
) -> None:
    """Run each trajectory in a process, at most `processes` at the same time."""
    context = multiprocessing.get_context("spawn")
    waiting = list(range(planet.trajectories))
    running: dict[Any, Any] = {}
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                reader, writer = context.Pipe(duplex=False)
                task = (planet, waiting.pop(0), folder, moving, writer)
                worker = context.Process(target=_worker, args=task, daemon=True)
                worker.start()
                writer.close()
                running[reader] = worker
            ready: list[Any] = connection.wait(list(running))
            for end in ready:
                try:
                    message = end.recv()
                except EOFError:
                    worker = running.pop(end)
                    worker.join()
                    if worker.exitcode:
                        raise RuntimeError(
                            f"A process of the planet died with exit code {worker.exitcode}; "
                            "give the same command again, and it goes on from the last chunk."
                        ) from None
                    continue
                if isinstance(message, Exception):
                    raise message
                report(message)
    finally:
        for worker in running.values():
            worker.terminate()
            worker.join()


def _worker(
    planet: PlanetSource, trajectory: int, folder: Path, moving: list[str], writer: connection.Connection
) -> None:
    """Run one trajectory in this process and report through `writer`; end if the parent process has gone."""
    try:
        _write_trajectory(planet, trajectory, folder, moving, writer.send)
    except BrokenPipeError:
        return
    except Exception as fault:
        writer.send(fault)


def _write_trajectory(
    planet: PlanetSource, trajectory: int, folder: Path, moving: list[str], report: Callable[[float], None]
) -> None:
    """Simulate one trajectory on one thread and write it into the store under `folder`, a chunk at a time."""
    stored = open_arrays(folder, moving)
    count, size, steps = 4 * planet.days, _chunk_length(planet), 360 // planet.timestep_minutes
    restart = folder / RESTART / f"{trajectory}.pt"
    with one_thread():
        simulation = planet.simulation(trajectory)
        done = _load_restart(simulation, restart)
        if done is None:
            for index, _ in enumerate(simulation.samples(4 * planet.spinup_days - 1, steps), start=1):
                if index % 4 == 0:
                    report(1.0)
            report(1.0)
            done = 0
        else:
            report(planet.spinup_days + done / 4)
        samples = simulation.samples(count - done, steps)
        for start in range(done, count, size):
            chunk = list(islice(samples, size))
            _require_finite(chunk, planet)
            first = trajectory * count + start
            for name, array in stored.items():
                array[first : first + size] = np.stack([sample[name] for sample in chunk])
            _save_restart(simulation, start + size, restart)
            report(size / 4)


def _load_restart(simulation: Simulation, restart: Path) -> int | None:
    """Restore the simulation and return the number of samples already written; None if no state was saved.

    ValueError if the saved state is damaged."""
    if not restart.exists():
        return None
    refuse_damaged_archive(restart)
    saved = torch.load(restart, map_location=simulation.dynamics.device, weights_only=True)
    simulation.restore(saved["simulation"])
    return int(saved["samples"])


def _save_restart(simulation: Simulation, samples: int, restart: Path) -> None:
    """Save the state after `samples` written samples, replacing the last one."""
    with atomic_file(restart) as unfinished:
        torch.save({"samples": samples, "simulation": simulation.snapshot()}, unfinished)


def _require_finite(chunk: list[dict[str, np.ndarray]], planet: PlanetSource) -> None:
    if not all(np.isfinite(sample["temperature"]).all() for sample in chunk):
        raise ValueError(
            f"The planet's weather grew without bound at a timestep of {planet.timestep_minutes} minutes; "
            "choose a shorter timestep_minutes."
        )


FIELDS = 1000  # stored fields to which the estimate is fitted, at most
YEAR = np.timedelta64(330, "D")  # records as long have a season
LAND = 0.05  # least share of land of a cell of which it is forgotten; with less, it matters as little to the air


class SkinEstimate:
    """Estimate the skin temperature from time and the lowest layer's temperature, fitted to a store of the planet."""

    def __init__(self, dataset: xr.Dataset) -> None:
        step = -(-dataset.sizes["time"] // FIELDS) | 1  # odd, so that every hour of the day is sampled
        times = dataset["time"].values[::step].astype("datetime64[s]")
        season = times[-1] - times[0] > YEAR
        pair = [dataset["skin_temperature"], dataset["temperature"].isel(level=-1)]
        fields = torch.from_numpy(np.stack([field[::step].values for field in pair], axis=1))
        self.climatology = HarmonicClimatology(annual=2 if season else 0, diurnal=1)
        self.climatology.accumulate(times, fields)
        self.climatology = self.climatology.solve()
        skin, air = (fields.double() - self.climatology.evaluate(times).double()).unbind(1)
        self.slope = (skin * air).sum(0) / air.square().sum(0).clamp(min=1e-12)

    def __call__(self, time: np.datetime64, air: Tensor) -> Tensor:
        """Return the skin temperature in K, (lat, lon), float64. air: temperature of the lowest layer, (lat, lon)."""
        skin, usual = self.climatology.evaluate(np.asarray(time)).double()
        return skin + self.slope * (air.double() - usual)


def planet_twins(
    simulation: Simulation,
    steps: int,
    *,
    spinup: int,
    cases: int,
    leads: int,
    perturbation: float,
    seed: int,
    report: Progress,
    skin: SkinEstimate | None = None,
) -> Iterator[TwinCase]:
    """Yield cases one after the other along one control, each with a twin whose temperature differs by white noise.

    steps: timesteps between samples. spinup: samples before the first case. leads: samples in a case. perturbation: rms
    of the noise in K, before truncation. skin: where the twin takes the land's temperature from; None: it knows it.
    """
    generator = torch.Generator().manual_seed(seed)
    total = spinup + 2 * cases * leads
    first: Sample = {}
    for done, sample in enumerate(simulation.samples(spinup, steps), start=1):
        first = sample
        report("spin-up", done / total)

    def control(case: int) -> Iterator[Sample]:
        nonlocal first
        for lead, sample in enumerate(simulation.samples(leads, steps), start=1):
            first = sample
            report(f"twins, case {case + 1} of {cases}", (spinup + 2 * (case * leads + lead)) / total)
            yield sample

    for case in range(cases):
        twin = _disturbed(simulation, perturbation, generator)
        if skin is not None:
            _forget_land(twin, skin)
        yield TwinCase(first, control(case), twin.samples(leads, steps))


def _disturbed(simulation: Simulation, perturbation: float, generator: torch.Generator) -> Simulation:
    """Return a copy of the simulation whose temperature differs by noise."""
    fields, twin = simulation.fields, copy.copy(simulation)
    shape = fields.temperature.shape
    noise = torch.randn(shape, generator=generator, dtype=torch.float64).to(fields.temperature)
    coefficients, disturbed = simulation.dynamics.heated(simulation.coefficients, fields, perturbation * noise)
    twin.settle(coefficients, disturbed.humidity)
    return twin


def _forget_land(twin: Simulation, skin: SkinEstimate) -> None:
    """Replace the temperature of the land by its estimate."""
    share, ground = twin.physics.surface.land, twin.ground
    mean = skin(twin.time, twin.fields.temperature[..., -1].T.cpu()).T.to(ground.land)
    land = (mean - (1.0 - share) * ground.water) / share.clamp(min=LAND)
    twin.ground = ground._replace(land=torch.where(share > LAND, land, ground.land))


class PlanetSource(TwinSource, Protocol):
    """Provide trajectories of the planet, the settings they are made with, and the simulations that make them.

    days, spinup_days: length of each trajectory and of the simulation before it. truncation, levels: resolution.
    timestep_minutes: of the simulation. device: `cpu` or `cuda`.
    """

    days: int
    trajectories: int
    spinup_days: int
    truncation: int
    levels: int
    timestep_minutes: int
    device: str

    @property
    def has_prescribed_sea(self) -> bool:
        """Return whether the temperature of the sea is a function of the season, which is known beforehand."""
        ...

    @property
    def grid(self) -> LatLonGrid:
        """Return the Gaussian grid of the store."""
        ...

    def static(self) -> dict[str, np.ndarray]:
        """Return the fields without time by name, float32, (lat, lon)."""
        ...

    def simulation(self, trajectory: int) -> Simulation:
        """Return the simulation of a trajectory, before its spin-up."""
        ...
