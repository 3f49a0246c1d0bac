"""Simulation of the planet's trajectories in parallel processes, written chunk by chunk, resumable after each chunk.

After each chunk the state of its trajectory is saved atomically beside the store. A run that was killed continues after
the last chunk it wrote, and its result is bit-identical to that of an uninterrupted run.
"""

from __future__ import annotations

import math
import multiprocessing
import shutil
from collections.abc import Callable
from itertools import islice
from multiprocessing import connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_pipelines.files.atomic import atomic_file
from data_pipelines.files.seals import refuse_damaged_archive
from data_pipelines.interfaces import Progress
from data_pipelines.reading.threads import one_thread, processors
from data_pipelines.simulators.planet.interfaces import PlanetSource
from data_pipelines.simulators.planet.simulation import Simulation
from data_pipelines.simulators.stores import CHUNK, create_store, open_arrays

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
