"""`emul forecast`: from a run and initial times to outputs/forecast/<name>/, begun or continued, checked and scored."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from rich.markup import escape

from data_pipelines.archive import Archive
from data_pipelines.checks import Checks, budgets, describe, gather, lead_text
from data_pipelines.intervals import unbroken_until
from data_pipelines.manifest import (
    now,
    open_manifest,
    read_manifest,
    verdict,
    write_checksums,
    write_manifest,
)
from data_pipelines.parts import Parts
from data_pipelines.worlds import duration_text
from data_pipelines.writers import sha256, write_netcdf
from emul.build import run_with_hydra
from emul.console import console, progress, warn
from emul.job import Job, prepare
from emulators.ledger import Ledger
from emulators.objectives.forecast import ensemble
from emulators.paths import path
from emulators.rollout import generators
from emulators.state import Origin, State
from emulators.verification import Scorecard

Report = Callable[[str, float], None]
BUDGETS = "budgets.nc"


def main(arguments: list[str]) -> int:
    """Exit code 1 where the forecast failed a check."""
    return run_with_hydra("forecast", arguments, lambda config: exit_code(forecast(config)))


def forecast(config: DictConfig) -> Path:
    """Make the forecast that `config` describes, or what is missing of it; the folder with data and manifest."""
    return make(prepare(config))


def exit_code(target: Path) -> int:
    """0, or 1 where the forecast in `target` failed a check."""
    return int(read_manifest(target)["verdict"] == "failed")


def make(job: Job) -> Path:
    """Make what is missing of a forecast, check and score it, and write the verdict; its folder."""
    manifest = open_manifest(job.folder, job.settings, job.card)
    if manifest["finished"]:
        if not (job.folder / manifest["file"]).exists():
            raise FileNotFoundError(
                f"{job.folder} has a manifest but no {manifest['file']}; remove the folder and make the forecast again."
            )
        tell(job.folder, manifest, "is there already")
        return job.folder
    started = time.monotonic()
    parts_ = Parts(job.folder)
    try:
        job.writer.open(job.folder, job.layout)
        results = run_batches(job, parts_, manifest)
        finish(job, results, manifest)
    except BaseException as error:
        unfinished, what = manifest["reasons"][0].split("; stopped by")[0], str(error) or type(error).__name__
        manifest["reasons"] = [f"{unfinished}; stopped by: {what}"]
        with suppress(OSError):
            write_manifest(job.folder, manifest)
        raise
    finally:
        job.writer.close()
    parts_.remove()
    job.writer.tidy()
    tell(job.folder, manifest, f"made in {time.monotonic() - started:.0f} s")
    return job.folder


def run_batches(
    job: Job, parts_: Parts, manifest: dict[str, Any]
) -> list[tuple[dict[str, np.ndarray], dict[str, str]]]:
    """(arrays, checksums) of every batch; those that are whole on disk are taken as they are."""
    batches, results = len(job.layout.batches), []
    with progress(f"forecast {job.folder.name}") as report:
        for number in range(batches):
            result = parts_.read(number)
            if result is None:
                result = run_batch(job, number, report)
                parts_.write(number, *result)
                manifest["reasons"] = [f"unfinished: {number + 1} of {batches} batches of initial times are written"]
                write_manifest(job.folder, manifest)
            results.append(result)
    return results


def run_batch(job: Job, number: int, report: Report) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Roll out one batch of initial times, writing, checking and scoring each lead as it is made."""
    world, layout, archive = job.world, job.layout, job.archive
    inits = layout.inits[layout.batches[number]]
    checks, card, until = Checks(world, job.ranges), job.scorecard(), unbroken_until(archive.times, inits)
    ledgers = {"forecast": job.ledger(job.correction_maps), "truth": job.ledger()}
    for init in inits if archive.in_memory else ():  # in one go, not a time at a time
        archive.load((str(init), str(world.after(init, layout.steps))))
    history = tuple(state.to(job.device) for state in archive.history(inits))
    forcings = (archive.forcing(world.after(inits, lead)).to(job.device) for lead in range(1, layout.steps + 1))
    pairs, good, known, step = 0, True, history[-1], job.step
    if layout.members:
        history = ensemble(history, layout.members)
        step = partial(job.step, generator=generators(job.seed, range(layout.members), inits))
    with torch.inference_mode(), ledgers["forecast"].watch(job.step):
        for lead, state in enumerate(path(job.path, step, history, forcings, job.intervals)):
            if not checks.add(lead, state) and good:
                good = False
                warn(f"At lead {lead_text(world, lead)} the forecast left its physical range or became NaN.")
            job.writer.write(number, lead, state.values.float().cpu().numpy())
            truth = score(card, lead, state, archive, until)
            pairs += 0 if truth is None else len(truth.time)
            known = account(ledgers, lead, state, known, truth)
            share = (number + (lead + 1) / layout.steps) / len(layout.batches)
            report(f"{inits[0]} +{lead_text(world, lead)}", share)
    arrays = checks.arrays() | {"pairs": np.array(pairs)}
    for source, ledger in ledgers.items():
        arrays |= {f"{source} budgets/{name}": value for name, value in ledger.partial().items()}
    if card is not None:
        arrays |= {f"scores/{name}": value for name, value in card.partial().items()}
    return arrays, job.writer.finish(number)


def score(card: Scorecard | None, lead: int, state: State, archive: Archive, until: np.ndarray) -> State | None:
    """Add the forecasts whose truth is at hand (to the time `until` of each) to the scorecard; that truth."""
    there = archive.has(state.time) & (state.time <= until)
    if card is None or not there.any():
        return None
    if not there.all():
        state = replace(state, values=state.values[..., torch.from_numpy(there), :, :, :], time=state.time[there])
    truth = archive.states(state.time, card.variables).to(state.values.device)
    card.add(state.select(card.variables.names), truth, lead)
    return truth


def account(ledgers: Mapping[str, Ledger], lead: int, state: State, known: State, truth: State | None) -> State:
    """Add a lead to the ledgers: the forecast, and the truth while all that is predicted is known of it at all times.

    known: the truth one timestep earlier; returned is that of this lead.
    """
    ledgers["forecast"].add(lead, state)
    origin = state.origin
    assert origin is not None  # a Step made it
    whole = truth is not None and truth.variables == state.variables and np.array_equal(truth.time, state.time)
    if truth is None or not whole or not np.array_equal(known.time, origin.before.time):
        ledgers["truth"].add_unknown(lead, len(state.time))
        return known
    ledgers["truth"].add(lead, replace(truth, origin=Origin(origin.start, known, origin.forcing)))
    return truth


def finish(job: Job, results: list[tuple[dict[str, np.ndarray], dict[str, str]]], manifest: dict[str, Any]) -> None:
    """Judge the whole forecast, write scores.nc and the checksums, and only then the verdict."""
    gathered = gather(arrays for arrays, _ in results)
    checksums = {name: checksum for _, sums in results for name, checksum in sums.items()}
    variables, faults = describe(gathered, job.world, job.ranges)
    pairs, of = sum(int(arrays["pairs"]) for arrays, _ in results), job.layout.inits.size * job.layout.steps
    judged, reasons = verdict(faults, pairs, of)
    job.writer.mark(judged)
    card = job.scorecard()
    if card is not None and pairs:
        for arrays, _ in results:
            card.add_partial({name.removeprefix("scores/"): a for name, a in arrays.items() if "scores/" in name})
        write_netcdf(job.folder / "scores.nc", card.scores({"forecast": job.folder.name, "verdict": judged}))
    conservation = write_budgets(job, [arrays for arrays, _ in results])
    with progress("writing the file") as report:
        checksums = job.writer.export(checksums, lambda share: report("", share))
    (job.folder / "config.yaml").write_text(manifest.get("config", ""), encoding="utf-8")
    for name in ("scores.nc", BUDGETS, "config.yaml"):
        if (job.folder / name).exists():
            checksums[name] = sha256(job.folder / name)
    manifest |= {
        "verdict": judged,
        "reasons": reasons,
        "finished": True,
        "completed": now(),
        "file": job.writer.name,
        "inits": {"first": str(job.layout.inits[0]), "last": str(job.layout.inits[-1]), "count": job.layout.inits.size},
        "leads": {"steps": job.layout.steps, "timestep": duration_text(job.world.timestep)},
        "variables": variables,
        "budgets": budgets(gathered, job.world),
        "conservation": conservation,
        "truth": {"pairs": pairs, "of": of},
        "checksums": write_checksums(job.folder, checksums),
    }
    write_manifest(job.folder, manifest)


def write_budgets(job: Job, results: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Any] | None:
    """Write budgets.nc; what the manifest tells of it. None where this world has no budgets and no constraints."""
    ledgers = {"forecast": job.ledger(job.correction_maps), "truth": job.ledger()}
    for source, ledger in ledgers.items():
        start = f"{source} budgets/"
        for arrays in results:
            ledger.add_partial({name.removeprefix(start): a for name, a in arrays.items() if name.startswith(start)})
    if ledgers["forecast"].is_empty:
        return None
    write_netcdf(job.folder / BUDGETS, ledgers["forecast"].dataset(job.layout.inits, ledgers["truth"]))
    return ledgers["forecast"].summary()


def tell(target: Path, manifest: Mapping[str, Any], what: str) -> None:
    """One line: where the forecast is and what it is worth, and why."""
    style = {"verified": "good", "unverified": "warning"}.get(manifest["verdict"], "bad")
    count, leads = manifest["inits"]["count"], manifest["leads"]
    console().print(
        f"[{style}]{manifest['verdict']}[/] [bold]{escape(str(target))}[/] {what}: "
        f"{count} initial time{'s' * (count > 1)}, {leads['steps']} steps of {leads['timestep']}",
        soft_wrap=True,
    )
    for reason in manifest["reasons"]:
        console().print(f"  {escape(reason)}", soft_wrap=True)
