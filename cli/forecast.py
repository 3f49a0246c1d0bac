"""`emul forecast`: from a run and initial times to outputs/forecast/<name>/, begun or continued, checked and scored."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from rich.markup import escape

from data_pipelines.archive import Archive
from data_pipelines.checks import Checks, budgets, describe, gather, lead_text
from data_pipelines.intervals import unbroken_until
from data_pipelines.layouts import Layout
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
from data_pipelines.writers import ZarrWriter, sha256, write_netcdf
from emul.build import part, parts, run_with_hydra
from emul.console import console, progress, warn
from emul.folders import conf_folder
from emul.process import settle
from emul.runs import Run, open_run
from emul.times import initial_times, lead_steps, length, thinned
from emulators.layers.conditioning import hours_of
from emulators.ledger import Ledger
from emulators.objectives.forecast import ensemble
from emulators.paths import Relay, path
from emulators.rollout import generators
from emulators.state import Origin, State
from emulators.step import Step
from emulators.verification import Scorecard
from emulators.world import World

Report = Callable[[str, float], None]
BUDGETS = "budgets.nc"


@dataclass(frozen=True)
class Job:
    """A forecast to be made, everything opened and checked. step: a Step, or a Relay of several.

    scorecard: an empty one, or None where no truth is at hand. settings: what the numbers depend on; card: what else
    the manifest tells. ranges: bounds by variable name that go before the table of physical ranges.
    """

    folder: Path
    step: Any
    archive: Archive
    layout: Layout
    writer: ZarrWriter
    scorecard: Callable[[], Scorecard | None]
    settings: Mapping[str, Any]
    card: Mapping[str, Any] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    device: str = "cpu"
    correction_maps: bool = False
    path: str = "rollout"
    intervals: tuple[int, ...] = (1,)
    seed: int = 0

    @property
    def world(self) -> World:
        return self.layout.world

    def ledger(self, maps: bool = False) -> Ledger:
        """An empty account of the budgets and of what the constraints change."""
        return Ledger(self.world, self.step.constraints, leads=self.layout.steps, maps=maps)


def main(arguments: list[str]) -> int:
    """Exit code 1 where the forecast failed a check."""
    return run_with_hydra("forecast", arguments, lambda config: exit_code(forecast(config)))


def forecast(config: DictConfig) -> Path:
    """Make the forecast that `config` describes, or what is missing of it; the folder with data and manifest."""
    return make(prepare(config))


def exit_code(target: Path) -> int:
    """0, or 1 where the forecast in `target` failed a check."""
    return int(read_manifest(target)["verdict"] == "failed")


def prepare(config: DictConfig) -> Job:
    """Open and check everything that a forecast needs. ValueError or FileNotFoundError before any work is done."""
    chosen = _chosen(config)
    device = _device(chosen.device)
    settle(None)
    run = open_run(config.run, chosen.checkpoint, device)
    data = config.data if "_target_" in config.data else run.config.data
    source = part(data)
    with progress("preparing data") as report:
        source.prepare(report)
    archive = Archive(source.dataset(), run.world, persisted=chosen.persisted)
    steps = lead_steps(chosen.lead, run.world)
    inits = initial_times(chosen.init) if chosen.init else default_inits(archive, source.splits, steps, chosen.every)
    refuse_missing_times(archive, inits, steps)
    writer: ZarrWriter = part(config.writer)
    layout = _layout(run, inits, steps, chosen.batch_size, writer, _members(run, chosen))
    ranges = {str(name): tuple(limits) for name, limits in chosen.ranges.items()}
    step, others = _steps(run, chosen, device)
    way: dict[str, Any] = {"path": str(chosen.path), "intervals": [int(k) for k in chosen.intervals]}
    settings = {
        "weights": _digest(run.card["weights"]),
        "run_config": hashlib.sha256(run.card["config"].encode()).hexdigest(),
        "data": OmegaConf.to_container(data, resolve=True),
        "persisted": list(chosen.persisted),
        "ranges": ranges,
        **writer.plain(),
        **layout.plain(),
        "batch_size": chosen.batch_size,
        **({"correction_maps": True} if chosen.correction_maps else {}),
        **({} if way == {"path": "rollout", "intervals": [1]} else way),
        **others,
        **({"seed": int(chosen.seed)} if layout.members else {}),
    }
    card = {
        "run": str(run.folder),
        "checkpoint": {"name": chosen.checkpoint, "step": run.card.get("step"), "revision": run.card.get("revision")},
        "config": _text(config, chosen),
        "run_config": run.card["config"],
    }
    target = Path(config.output) / "forecast" / (config.name or run.folder.name)
    scorecard = _scorecards(run, archive, layout)
    maps = chosen.correction_maps
    return Job(
        target,
        step,
        archive,
        layout,
        writer,
        scorecard,
        settings,
        card,
        ranges,
        device,
        maps,
        way["path"],
        tuple(way["intervals"]),
        int(chosen.seed),
    )


def _steps(run: Run, chosen: DictConfig, device: str) -> tuple[Step | Relay, dict[str, Any]]:
    """The step of the run, or several runs' by lead or by interval; digests of the others' weights."""
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
        digests[f"weights from {text}"] = _digest(other.card["weights"])
    return Relay(by[0], steps), digests


def _chosen(config: DictConfig) -> DictConfig:
    """What the command line says of the forecast, over the run's own config, over the defaults."""
    defaults = OmegaConf.load(conf_folder() / "forecast" / "default.yaml")
    saved = Path(config.run) / "config.yaml"
    own = OmegaConf.select(OmegaConf.load(saved), "forecast") if saved.is_file() else None
    said = {str(key): config[key] for key in defaults if config.get(key) is not None}
    merged = OmegaConf.merge(defaults, own or {}, said)
    assert isinstance(merged, DictConfig)
    return merged


def _text(config: DictConfig, chosen: DictConfig) -> str:
    """The config of the forecast with nothing left open, as YAML."""
    plain = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    return OmegaConf.to_yaml(OmegaConf.merge(plain, chosen))


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
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
        if variable.name not in archive.dataset.data_vars:
            continue
        last = archive.times[-1] if variable.name in archive.persisted else np.datetime64("9999-01-01", "s")
        for lead in range(1, steps + 1):
            times = np.minimum(world.after(inits, lead), last)
            there = archive.has(times)
            if not there.all():
                raise ValueError(
                    f"Forcing '{variable.name}' ends before the forecast does: nothing at {times[~there][0]} in "
                    f"{archive.origin}. Shorten lead, start earlier, or, where the data end there, keep the last value "
                    f"with persisted=[{variable.name}]."
                )


def _members(run: Run, chosen: DictConfig) -> int:
    """How many members are asked for; ValueError where the network has nothing to tell them apart by."""
    members = int(chosen.members or 0)
    if members < 0:
        raise ValueError(f"members must be at least 1, or null for none; got {members}.")
    if members and not getattr(getattr(run.step.network, "conditions", None), "noise", 0):
        raise ValueError(
            f"{type(run.step.network).__name__} draws no noise: its {members} members would be the same. "
            "Leave members out, or train a network with noise, such as model=sfno_ace2_noise."
        )
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


def _digest(weights: Mapping[str, torch.Tensor]) -> str:
    """The sha256 of all weights in order of their names."""
    total = hashlib.sha256()
    for name in sorted(weights):
        total.update(name.encode())
        total.update(weights[name].detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _scorecards(run: Run, archive: Archive, layout: Layout) -> Callable[[], Scorecard | None]:
    """What makes an empty scorecard; None instead where the data hold no valid time."""
    world, until = run.world, unbroken_until(archive.times, layout.inits)
    if not (archive.has(layout.valid_times) & (layout.valid_times <= until[:, None])).any():
        return lambda: None
    variables = world.predicted.select(name for name in world.predicted.names if name not in archive.absent)
    metrics = parts(run.config.metric)
    regions = (run.config.get("eval") or {}).get("regions") or ["global"]
    return lambda: Scorecard(world, variables, metrics, list(regions), layout.steps)


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
