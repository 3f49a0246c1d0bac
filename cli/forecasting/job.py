"""Open and check all that `emul forecast` needs: run, data, initial times, layout and writer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from data_pipelines.batches.archive import Archive
from data_pipelines.conventions.canonical import first_member
from data_pipelines.conventions.durations import unbroken_until
from data_pipelines.files.fingerprints import data_differences, fingerprint
from data_pipelines.files.identity import file_stamp, listed, weights_digest
from data_pipelines.forecasts.layout import Layout
from data_pipelines.forecasts.manifest import discard_other
from data_pipelines.forecasts.rollouts import ForecastJob
from data_pipelines.forecasts.writers import ZarrWriter
from emul.config.build import build, build_all
from emul.config.places import absolute_places, result_folder, run_name
from emul.config.times import initial_times, lead_steps, length, thinned
from emul.jobs.processes import local_rank
from emul.jobs.shares import hardware_of, process_count
from emul.jobs.threads import set_threads
from emul.terminal.console import progress, warn
from emul.training.runs import Run, forecasting_parts, open_run, refuse_members
from emul.trust.secrets import saved_plain, saved_text
from emulators.rollout import PRECISIONS
from emulators.steps.step import Step, StepCascade
from emulators.training.hardware import Hardware
from emulators.verification.budget_ledger import Ledger
from emulators.verification.scorecard import Scorecard
from emulators.world import World, hours_of


def prepare(config: DictConfig) -> ForecastJob:
    """Open and check everything that a forecast needs. ValueError or FileNotFoundError before any work is done."""
    hardware, precision = hardware_of(config), str(config.precision)
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; got '{precision}'.")
    device = _device(config, hardware)
    set_threads(hardware.threads, hardware.devices, local_rank(), hardware.affinity)
    run = open_run(config.run, config.checkpoint, device)
    data = config.data or run.config.data
    source = build(data)
    with progress("preparing data") as report:
        source.prepare(report)
    archive = Archive(first_member(source.dataset()), run.world, persisted=config.persisted, repeated=config.repeated)
    steps = lead_steps(config.lead, run.world)
    inits = initial_times(config.init) if config.init else default_inits(archive, source.splits, steps, config.every)
    refuse_missing_times(archive, inits, steps)
    writer: ZarrWriter = build(config.writer)
    layout = _layout(run, inits, steps, config.batch_size, writer, _members(run, config))
    ranges = {str(name): tuple(limits) for name, limits in config.ranges.items()}
    step, others = _steps(run, config, device)
    way: dict[str, Any] = {"path": str(config.path), "intervals": [int(k) for k in config.intervals]}
    step.refuse_intervals(way["intervals"])
    settings = {
        "weights": weights_digest(run.card["weights"]),
        "run_config": forecasting_parts(run.config),
        "data": saved_plain(data),
        "fingerprint": fingerprint(source.path, archive.dataset),
        "persisted": list(config.persisted),
        "ranges": ranges,
        **writer.plain(),
        **layout.plain(),
        "batch_size": config.batch_size,
        **({"correction_maps": True} if config.correction_maps else {}),
        **({"repeated": list(config.repeated)} if config.repeated else {}),
        **({} if precision == PRECISIONS[0] else {"precision": precision}),
        **({} if way == {"path": "rollout", "intervals": [1]} else way),
        **others,
        **({"seed": int(config.seed)} if layout.members else {}),
    }
    warn_of_other_data(run, settings)
    return ForecastJob(
        folder=_folder(run, config, settings),
        step=step,
        archive=archive,
        layout=layout,
        writer=writer,
        scorecard=_scorecards(run, archive, layout),
        ledger=_ledgers(run.world, step),
        settings=settings,
        card=_metadata(run, config),
        ranges=ranges,
        device=device,
        correction_maps=config.correction_maps,
        scheme=way["path"],
        intervals=tuple(way["intervals"]),
        seed=int(config.seed),
        segment=-(-lead_steps(config.segment, run.world) // layout.block) * layout.block,
        precision=precision,
    )


def warn_of_other_data(run: Run, settings: Mapping[str, Any]) -> None:
    """Warn where the data of a run hold other numbers at the same times than when it was trained."""
    before, now = run.card.get("data") or {}, settings["fingerprint"]
    found = data_differences(before, now)
    if (
        found
        and settings["data"] == saved_plain(run.config.data)
        and before.get("times_digest") == now.get("times_digest")
    ):
        warn(f"The data are not those that {run.folder} was trained on ({listed(found)}).")


def _folder(run: Run, config: DictConfig, settings: Mapping[str, Any]) -> Path:
    """The folder of a forecast, without one that was made with other settings where that is to be made again."""
    if config.resume not in ("exact", "anew"):
        raise ValueError(f"resume: expected exact or anew; got '{config.resume}'.")
    folder = result_folder(config, "forecast", config.name or run_name(run.folder, config.output))
    if config.resume == "anew":
        discard_other(folder, settings)
    return folder


def _metadata(run: Run, config: DictConfig) -> dict[str, Any]:
    """The run, its checkpoint and both configurations, for the manifest."""
    return {
        "run": str(run.folder),
        "checkpoint": {
            "name": config.checkpoint,
            "step": run.card.get("step"),
            "revision": run.card.get("revision"),
            "file": file_stamp(run.file),
        },
        "places": {"run": str(run.folder.resolve()), **absolute_places(saved_plain(config.data or run.config.data))},
        "config": _text(config),
        "run_config": run.card["config"],
    }


def _ledgers(world: World, step: Step | StepCascade) -> Callable[..., Ledger]:
    """Makes empty budgets of so many leads from number `first` on, and of what the constraints of `step` change."""
    return lambda leads, first=0, maps=False: Ledger(world, step.constraints, leads=leads, first=first, maps=maps)


def _steps(run: Run, chosen: DictConfig, device: str) -> tuple[Step | StepCascade, dict[str, Any]]:
    """The Step of the run, or the Steps of several runs by lead or by interval; digests of the other weights."""
    told = {"lead": dict(chosen.cascade), "interval": dict(chosen.networks)}
    by = [name for name, runs in told.items() if runs]
    if not by:
        return run.step, {}
    if len(by) > 1:
        raise ValueError("Give other runs by lead, cascade={5d: run}, or by interval, networks={24h: run}, not both.")
    first = 0.0 if by == ["lead"] else hours_of(run.world.timestep)
    steps, digests = {first: run.step}, {}
    for text, folder in told[by[0]].items():
        other = open_run(folder, chosen.checkpoint, device)
        if other.world.predicted != run.world.predicted or not other.world.grid.same_as(run.world.grid):
            raise ValueError(f"{folder} predicts other variables, or on another grid, than {run.folder}.")
        steps[hours_of(length(str(text)))] = other.step
        digests[f"weights from {text}"] = weights_digest(other.card["weights"])
    return StepCascade(by[0], steps), digests


def _text(config: DictConfig) -> str:
    """Return the config of the forecast as YAML, without `share` and `hardware`, which change no result."""
    return saved_text(OmegaConf.masked_copy(config, [str(k) for k in config if k not in ("share", "hardware")]))


def _device(config: DictConfig, hardware: Hardware) -> str:
    """Return the device of this process; `auto`: as the chosen hardware says, else a GPU where there is one."""
    name = str(config.device)
    if config.hardware and name == "auto":
        name = {"cpu": "cpu", "gpu": "cuda"}.get(hardware.accelerator, "auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and torch.cuda.is_available() and process_count(hardware) > 1:
        return f"cuda:{local_rank() % torch.cuda.device_count()}"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device={name} was asked for, but PyTorch finds no GPU; use device=auto or device=cpu.")
    return name


def default_inits(archive: Archive, splits: Mapping[str, Sequence[str]], steps: int, every: str) -> np.ndarray:
    """Initial times from the test split, `every` so often, whose truth lies within it to the last lead."""
    if not splits.get("test"):
        raise ValueError(
            "These data have no test split to take initial times from; give init=2003-01-01, for instance."
        )
    period = splits["test"]
    world, times = archive.world, archive.times[archive.within(period)]
    known = [archive.has(world.after(times, -back)) for back in range(world.history)]
    times = times[np.logical_and.reduce(known)]
    if not times.size:
        raise ValueError(f"The test split {period[0]} to {period[1]} holds no time to start from; give init=... .")
    whole = times[world.after(times, steps) <= np.minimum(times[-1], unbroken_until(archive.times, times))]
    if not whole.size:
        warn(f"The lead is longer than the test split {period[0]} to {period[1]}; one forecast, from its first time.")
    return thinned(whole, every) if whole.size else times[:1]


def refuse_missing_times(archive: Archive, inits: np.ndarray, steps: int) -> None:
    """ValueError where the data lack a known state, or a forcing that only they can give, for these forecasts."""
    world = archive.world
    for back in range(world.history):
        archive.index(world.after(inits, -back))
    for variable in world.forcing:
        if variable.name in archive.absent:
            raise ValueError(f"Forcing '{variable.name}' is not in {archive.origin}; open data that have it.")
        if variable.name not in archive.dataset.data_vars or archive.matches_computed(variable):
            continue
        for lead in range(1, steps + 1):
            times = archive.source_times(variable, world.after(inits, lead))
            there = archive.has(times)
            if not there.all():
                raise ValueError(
                    f"Forcing '{variable.name}' ends before the forecast does: nothing at {times[~there][0]} in "
                    f"{archive.origin}. Shorten lead, start earlier, or, where the data end there, keep the last value "
                    f"with persisted=[{variable.name}], or go through the last year again and again with "
                    f"repeated=[{variable.name}]."
                )


def _members(run: Run, chosen: DictConfig) -> int:
    """The size of the ensemble, 0 for none; ValueError where the network draws no noise to tell members apart."""
    members = int(chosen.members or 0)
    if members < 0:
        raise ValueError(f"members must be at least 1, or null for none; got {members}.")
    refuse_members(run.step, members)
    if members and (chosen.path != "rollout" or chosen.cascade or chosen.networks):
        raise ValueError("Members are made by plain rollouts of one network; leave out path, cascade and networks.")
    return members


def _layout(run: Run, inits: np.ndarray, steps: int, batch_size: int, writer: ZarrWriter, members: int = 0) -> Layout:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; got {batch_size}.")
    world, batches = run.world, -(-inits.size // batch_size)
    batch = -(-inits.size // batches)  # as even as can be: chunks are as long as the longest batch
    fields = max(variable.size for variable in world.predicted) * batch * max(1, members)
    largest = fields * int(np.prod(world.grid.shape))
    attributes = {"title": f"Forecasts of {run.folder.name}", "source": f"emul, {run.folder.name}"}
    return Layout(world, inits, steps, batch, min(steps, writer.leads_per_chunk(largest)), attributes, members)


def _scorecards(run: Run, archive: Archive, layout: Layout) -> Callable[[int, int], Scorecard | None]:
    """A function that makes an empty scorecard of a range of leads, as far as their truth is known; None beyond."""
    world, until = run.world, unbroken_until(archive.times, layout.inits)
    valid = layout.valid_times
    known = np.flatnonzero((archive.has(valid) & (valid <= until[:, None])).any(axis=0))
    variables = world.predicted.select(name for name in world.predicted.names if name not in archive.absent)
    metrics = build_all(run.config.metric)
    regions = (run.config.get("eval") or {}).get("regions") or ["global"]

    def empty(first: int, stop: int) -> Scorecard | None:
        leads = layout.leads[first : min(stop, known[-1] + 1)] if known.size else ()
        return Scorecard(world, variables, metrics, list(regions), [*leads]) if len(leads) else None

    return empty
