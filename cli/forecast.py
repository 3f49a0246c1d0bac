"""`emul forecast`: from a run and initial times to outputs/forecast/<name>/, begun or continued, checked and scored."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from rich.markup import escape

from data_pipelines.batches.archive import Archive
from data_pipelines.batches.seen import Guards, Marks, SeenDates, seen_of_card, together
from data_pipelines.batches.windows import forecast_inits
from data_pipelines.conventions.attributes import grid_of
from data_pipelines.conventions.canonical import first_member
from data_pipelines.conventions.durations import lead_steps, length, length_of_lead
from data_pipelines.files.fingerprints import data_differences, fingerprint
from data_pipelines.files.identity import absolute_places, file_stamp, listed, weights_digest
from data_pipelines.forecasts.analyses import guarded_marks, on_grid_of
from data_pipelines.forecasts.boundary import ForecastBoundary, ForecastForcing, OtherForecast, driving_data, told_names
from data_pipelines.forecasts.layout import Layout, batched_layout
from data_pipelines.forecasts.manifest import discard_other, read_manifest
from data_pipelines.forecasts.nudging import adjust
from data_pipelines.forecasts.perturbations import PerturbationPart, Splits, Starts
from data_pipelines.forecasts.production import make_forecast
from data_pipelines.forecasts.rollouts import ForecastJob, known_leads
from data_pipelines.forecasts.statistics_writer import Writer, writer_that_keeps
from data_pipelines.jobs.processes import (
    device_of_process,
    local_rank,
    process_count,
    rank,
    set_threads,
    share_of_process,
    started_from_outside,
    worker_processes,
)
from data_pipelines.options.folders import result_folder, run_name
from emul.config.build import build, build_all
from emul.config.compose import compose, run_composed
from emul.config.overrides import assignment
from emul.config.saved import read_saved, saved_plain, saved_text
from emul.terminal.console import console, next_command, progress, warn
from emul.training.runs import Run, forecasting_parts, open_run, read_adapter, refuse_members
from emulators.layers.low_rank import switch
from emulators.layers.noise import scale_noise
from emulators.rollout import PRECISIONS, Stepper, known_precision
from emulators.steps.ensembles import CasesApart, SeedEnsemble, StepCascade
from emulators.steps.step import Step
from emulators.training.hardware import Hardware
from emulators.verification.budget_ledger import Ledger
from emulators.verification.scorecard import Scorecard
from emulators.world import World, hours_of

if TYPE_CHECKING:
    import xarray as xr

ALL, AGAIN = (1, 1), "what is written is kept: give the same command again."


def main(arguments: list[str]) -> int:
    """Exit code 1 where the forecast failed a check."""

    def task(config: DictConfig) -> int:
        hardware = hardware_of(config)
        share = share_of_process(config.share, hardware)
        words = sys.argv[1:] if {"--multirun", "-m"} & {*arguments} else ["forecast", *arguments]
        with worker_processes(hardware or Hardware(), words, AGAIN):
            job = prepare(config)
            with progress(f"forecast {job.folder.name}") as report:
                make_forecast(job, share, report=report, warn=warn)
        show_verdict(job.folder, share)
        if read_manifest(job.folder)["verdict"] == "verified":
            named = [f"forecast={job.folder}", f"name={config.name}"] * (config.name != Path(str(config.run)).name)
            next_command(shlex.join(["emul", "eval", f"run={config.run}", *named]))
        return 0 if rank() and not started_from_outside() else exit_code(job.folder, share)

    return run_composed("forecast", arguments, task)


def hardware_of(config: DictConfig) -> Hardware | None:
    """Return the hardware that a configuration chooses; None: one process."""
    return build(config.hardware) if "_target_" in config.hardware else None


def forecast(config: DictConfig) -> Path:
    """Make the forecast that `config` describes, or what is missing of it; the folder with data and manifest."""
    share = share_of_process(config.share, hardware_of(config)) if config.share else ALL
    job = prepare(config)
    with progress(f"forecast {job.folder.name}") as report:
        make_forecast(job, share, report=report, warn=warn)
    show_verdict(job.folder, share)
    return job.folder


def exit_code(target: Path, share: tuple[int, int] = ALL) -> int:
    """0, or 1 where the forecast in `target` failed a check; an unfinished share has not failed."""
    manifest = read_manifest(target)
    return int(manifest["verdict"] == "failed" and (manifest["finished"] or share == ALL))


def show_verdict(target: Path, share: tuple[int, int] = ALL) -> None:
    """Print where the forecast is, its verdict and the reasons; or that other shares are missing."""
    manifest = read_manifest(target)
    if not manifest["finished"]:
        waiting = manifest["reasons"][0].removeprefix("unfinished: ")
        console().print(
            f"Share {share[0]}/{share[1]} of {escape(str(target))} is made; {escape(waiting)}", soft_wrap=True
        )
        return
    style = {"verified": "good", "unverified": "warning"}.get(manifest["verdict"], "bad")
    count, leads = manifest["inits"]["count"], manifest["leads"]
    console().print(
        f"[{style}]{manifest['verdict']}[/] [bold]{escape(str(target))}[/]: "
        f"{count} initial time{'s' * (count > 1)}, {leads['steps']} steps of {leads['timestep']}",
        soft_wrap=True,
    )
    for reason in manifest["reasons"]:
        console().print(f"  {escape(reason)}", soft_wrap=True)


def prepare(config: DictConfig) -> ForecastJob:
    """Open and check everything that a forecast needs. ValueError or FileNotFoundError before any work is done."""
    requested, precision = hardware_of(config), known_precision(str(config.precision))
    hardware, device = requested or Hardware(), device_of_process(str(config.device), requested)
    length_of_lead(config.lead)
    set_threads(hardware.threads, hardware.devices, local_rank(), hardware.affinity)
    run, adapted = _run(config, device)
    data = config.data or run.config.data
    source = build(data)
    with progress("preparing data") as report:
        source.prepare(report)
    archive = _archive(config, run, source.dataset(), saved_plain(data))
    steps = lead_steps(config.lead, run.world)
    inits = forecast_inits(config.init, archive, source.splits, steps, config.every, warn)
    other = _other(config, saved_plain(data), run.world, inits, steps)
    writer, layout = _written(run, inits, steps, config)
    adapted |= adjust(run.step, archive, layout.valid_times, config.nudging, config.increments)
    step, others, seen = _steps(run, config, layout.members, device)
    guards = Guards(**saved_plain(config.guards))
    marks = guarded_marks(guards, seen, archive, inits, steps, other, warn)
    way: dict[str, Any] = {"path": str(config.path), "intervals": [int(k) for k in config.intervals]}
    step.refuse_intervals(way["intervals"])
    settings = {
        "weights": weights_digest(run.card["weights"]),
        "run_config": forecasting_parts(run.config),
        "data": saved_plain(data),
        "fingerprint": fingerprint(source.path, archive.dataset),
        "persisted": list(config.persisted),
        "ranges": {str(name): tuple(limits) for name, limits in config.ranges.items()},
        **writer.plain(),
        **layout.plain(),
        "batch_size": config.batch_size,
        **_unusual(config, precision, way, other),
        **(adapted | others),
        **({"seed": int(config.seed)} if layout.members else {}),
        **({"perturbation": saved_plain(config.perturbation)} if config.perturbation else {}),
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
        card=_metadata(run, config, seen, marks),
        ranges=settings["ranges"],
        device=device,
        correction_maps=config.correction_maps,
        scheme=way["path"],
        intervals=tuple(way["intervals"]),
        seed=int(config.seed),
        segment=-(-lead_steps(config.segment, run.world) // layout.block) * layout.block,
        precision=precision,
        perturbation=_perturbation(config, step, archive, source.splits, inits, device),
        other=other,
        drift=guards.drift,
    )


def _archive(config: DictConfig, run: Run, dataset: xr.Dataset, data: Mapping[str, Any]) -> Archive:
    """The data of a forecast; what another forecast tells keeps its last value where they end."""
    persisted = [*config.persisted, *told_names(run.world, config.boundary, config.forcing, data)]
    dataset = on_grid_of(run.world, dataset if config.perturbation else first_member(dataset), config.regrid)
    return Archive(dataset, run.world, persisted=persisted, repeated=config.repeated, held=config.held)


def _unusual(config: DictConfig, precision: str, way: dict[str, Any], other: OtherForecast | None) -> dict[str, Any]:
    """The settings that are recorded where they are not the usual ones."""
    return {
        **({"correction_maps": True} if config.correction_maps else {}),
        **({"repeated": list(config.repeated)} if config.repeated else {}),
        **({"held": list(config.held)} if config.held else {}),
        **({} if config.noise_factor == 1.0 else {"noise_factor": saved_plain(config.noise_factor)}),
        **({"regrid": str(config.regrid)} if config.regrid else {}),
        **({other.option: fingerprint(other.path)} if other else {}),
        **({} if precision == PRECISIONS[0] else {"precision": precision}),
        **({} if way == {"path": "rollout", "intervals": [1]} else way),
    }


def _run(config: DictConfig, device: str) -> tuple[Run, dict[str, Any]]:
    """The run, with the adapter that `adapter_file` names in place; and the digest of what they are together."""
    run = _opened(config.run, config, device)
    if not config.adapter_file:
        return run, {}
    switch(run.step, read_adapter(config.adapter_file, run), merge=config.merge_adapter)
    return run, {"adapter": weights_digest(run.step.state_dict())}


def _opened(folder: str, config: DictConfig, device: str) -> Run:
    """Open a run, with its noise scaled as `config` says."""
    run = open_run(folder, config.checkpoint, device)
    scale_noise(run.step.network, saved_plain(config.noise_factor))
    return run


def warn_of_other_data(run: Run, settings: Mapping[str, Any]) -> None:
    """Warn where the data of a run hold other numbers at the same times than when it was trained."""
    before, now = run.card.get("data") or {}, settings["fingerprint"]
    changes = data_differences(before, now)
    same_times = before.get("times_digest") == now.get("times_digest")
    if changes and same_times and settings["data"] == saved_plain(run.config.data):
        warn(f"The data are not those that {run.folder} was trained on ({listed(changes)}).")


def _folder(run: Run, config: DictConfig, settings: Mapping[str, Any]) -> Path:
    """The folder of a forecast, without one that was made with other settings where that is to be made again."""
    if config.resume not in ("exact", "anew"):
        raise ValueError(f"resume: expected exact or anew; got '{config.resume}'.")
    folder = result_folder(config.output, "forecast", config.name or run_name(run.folder, config.output))
    if config.resume == "anew":
        discard_other(folder, settings)
    return folder


def _metadata(run: Run, config: DictConfig, seen: SeenDates, marks: Marks) -> dict[str, Any]:
    """The run, its checkpoint, both configurations, and what the guards found, for the manifest.

    `share` and `hardware` change no result and are left out of the configuration.
    """
    return {
        "run": str(run.folder),
        "checkpoint": {
            "name": config.checkpoint,
            "step": run.card.get("step"),
            "revision": run.card.get("revision"),
            "file": file_stamp(run.file),
        },
        "places": {"run": str(run.folder.resolve()), **absolute_places(saved_plain(config.data or run.config.data))},
        "seen": seen.plain(),
        "marks": marks,
        "config": saved_text(OmegaConf.masked_copy(config, [str(k) for k in config if k not in ("share", "hardware")])),
        "run_config": run.card["config"],
    }


def _other(config: DictConfig, data: Any, world: World, inits: np.ndarray, steps: int) -> OtherForecast | None:
    """What another forecast tells, at the boundary that of a run once it is made; None where the data do.

    data: configuration of the data. steps: of the forecast that is told.
    """
    if config.forcing:
        return ForecastForcing(config.forcing, world, inits, steps, data.get("accumulated", {}))
    if not config.boundary:
        return None
    if not (Path(config.boundary) / "checkpoints").is_dir():
        return ForecastBoundary(config.boundary, world, inits, steps)
    driving = _driving(config, data, inits, steps * hours_of(world.timestep))
    return ForecastBoundary(forecast(driving), world, inits, steps)


def _driving(config: DictConfig, data: Any, inits: np.ndarray, hours: float) -> DictConfig:
    """Compose the forecast of the run that `config.boundary` names; it lands beside that of the area, as x_boundary.

    ValueError where several processes or shares would each make it, or where its grid does not suit.
    """
    hardware = hardware_of(config)
    if config.share or (hardware is not None and process_count(hardware) > 1):
        raise ValueError(
            "boundary: a run makes its forecast in one process; forecast with it first, and give the result: "
            "boundary=outputs/forecast/..."
        )
    name = f"{config.name or run_name(config.run, config.output)}_boundary"
    values = {"run": config.boundary, "name": name, "output": config.output, "resume": config.resume}
    driving = compose("forecast", [assignment(key, value) for key, value in values.items()])
    driving.init, driving.lead = [str(time) for time in inits], f"{hours:g}h"
    driving_config = read_saved(Path(config.boundary) / "config.yaml", given=["data"])
    driving.data = driving_data(data, grid_of(build(driving_config.data).template()))
    return driving


Stepping = Step | StepCascade | SeedEnsemble | CasesApart


def _ledgers(world: World, step: Stepping) -> Callable[..., Ledger]:
    """Makes empty budgets of so many leads from number `first` on, and of what the constraints of `step` change."""
    return lambda leads, first=0, maps=False: Ledger(world, step.constraints, leads=leads, first=first, maps=maps)


def _steps(run: Run, config: DictConfig, members: int, device: str) -> tuple[Stepping, dict[str, Any], SeenDates]:
    """The Step of the run, or Steps of several by lead, interval or member; digests of other weights; dates seen."""
    dates = seen_of_card(run.card)
    if config.apart:
        if config.seeds or config.cascade or config.networks:
            raise ValueError("apart=true steps the cases of one run; leave out seeds, cascade and networks.")
        return CasesApart(run.step), {"apart": True}, dates
    if config.seeds:
        seeds = [_other_run(run, str(folder), config, device) for folder in config.seeds]
        seed_digests = {"weights of seeds": [weights_digest(seed.card["weights"]) for seed in seeds]}
        dates = together([dates, *(seen_of_card(seed.card) for seed in seeds)])
        several = [run.step, *(seed.step for seed in seeds)]
        return SeedEnsemble(several, members, starts_differ=bool(config.perturbation)), seed_digests, dates
    folders = {"lead": dict(config.cascade), "interval": dict(config.networks)}
    by = [name for name, runs in folders.items() if runs]
    if not by:
        return run.step, {}, dates
    if len(by) > 1:
        raise ValueError("Give other runs by lead, cascade={5d: run}, or by interval, networks={24h: run}, not both.")
    first = 0.0 if by == ["lead"] else hours_of(run.world.timestep)
    steps, digests = {first: run.step}, {}
    for text, folder in folders[by[0]].items():
        other_run = _other_run(run, folder, config, device)
        steps[hours_of(length(str(text)))] = other_run.step
        digests[f"weights from {text}"] = weights_digest(other_run.card["weights"])
        dates = together([dates, seen_of_card(other_run.card)])
    return StepCascade(by[0], steps), digests, dates


def _other_run(run: Run, folder: str, config: DictConfig, device: str) -> Run:
    """Open a run that forecasts with another; ValueError where it predicts something else."""
    other_run = _opened(folder, config, device)
    if other_run.world.predicted != run.world.predicted or not other_run.world.grid.same_as(run.world.grid):
        raise ValueError(f"{folder} predicts other variables, or on another grid, than {run.folder}.")
    return other_run


def _members(run: Run, config: DictConfig) -> int:
    """The size of the ensemble, 0 for none; ValueError where nothing tells its members apart."""
    members = int(config.members or (config.seeds and len(config.seeds) + 1) or 0)
    if members < 0:
        raise ValueError(f"members must be at least 1, or null for none; got {members}.")
    if config.perturbation and not members:
        raise ValueError("A perturbation makes members; give their number, such as members=20.")
    if not config.perturbation and not config.seeds:
        refuse_members(run.step, members)
    needs_one = members or config.seeds or config.nudging or config.increments
    if needs_one and (config.path != "rollout" or config.cascade or config.networks):
        raise ValueError(
            "Members, nudging and increments are of plain rollouts of one network; leave out path, cascade, networks."
        )
    return members


def _perturbation(
    config: DictConfig, step: Stepper, archive: Archive, splits: Splits, inits: np.ndarray, device: str
) -> Starts | None:
    """The function that perturbs the initial States; None where all members start alike."""
    part: PerturbationPart | None = build(config.perturbation, archive.world) if config.perturbation else None
    return part.prepare(step, archive, splits, inits, int(config.seed), device) if part else None


def _written(run: Run, inits: np.ndarray, steps: int, config: DictConfig) -> tuple[Writer, Layout]:
    """The writer of members, statistics or means, and the layout of the forecast that it is handed."""
    kept = {"quantiles": list(config.quantiles), "events": dict(config.events), "cells": int(config.quantile_cells)}
    members, name = _members(run, config), run.folder.name
    writer = writer_that_keeps(config.keep, build(config.writer), run.world.predicted, members, **kept)
    layout = batched_layout(
        run.world, inits, steps, config.batch_size, name, writer.leads_per_chunk, members, config.member_batch
    )
    writer.refuse_unsuited(layout)
    return writer, layout


def _scorecards(run: Run, archive: Archive, layout: Layout) -> Callable[[int, int], Scorecard | None]:
    """A function that makes an empty scorecard of a range of leads, as far as their truth is known; None beyond."""
    world, known_stop = run.world, known_leads(archive, layout)
    variables = world.predicted.select(name for name in world.predicted.names if name not in archive.absent)
    metrics = build_all(run.config.metric)
    regions = (run.config.get("eval") or {}).get("regions") or ["global"]

    def empty(first: int, stop: int) -> Scorecard | None:
        leads = layout.leads[first : min(stop, known_stop)]
        return Scorecard(world, variables, metrics, list(regions), [*leads]) if len(leads) else None

    return empty
