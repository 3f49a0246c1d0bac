"""`emul forecast`: from a run and initial times to outputs/forecast/<name>/, begun or continued, checked and scored."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.markup import escape

from data_pipelines.checks import budgets, describe, gather, lead_text
from data_pipelines.manifest import (
    NAME,
    now,
    open_manifest,
    read_manifest,
    verdict,
    write_checksums,
    write_manifest,
)
from data_pipelines.segments import Segment, Segments
from data_pipelines.worlds import duration_text
from data_pipelines.writers import sha256, write_netcdf
from emul.build import run_with_hydra
from emul.console import console, progress, warn
from emul.job import Job, prepare
from emul.locks import sole, turn
from emul.ranks import rank, started_from_outside
from emul.rollouts import SOURCES, Arrays, roll_out, within
from emul.shares import companions, own_share

BUDGETS = "budgets.nc"
ALL = (1, 1)
AGAIN = "what is written is kept: give the same command again."


def main(arguments: list[str]) -> int:
    """Exit code 1 where the forecast failed a check."""

    def task(config: DictConfig) -> int:
        share = own_share(config)
        words = sys.argv[1:] if {"--multirun", "-m"} & {*arguments} else ["forecast", *arguments]
        with companions(config, words, AGAIN):
            job = prepare(config)
            make(job, share)
        tell(job.folder, share)
        return 0 if rank() and not started_from_outside() else exit_code(job.folder, share)

    return run_with_hydra("forecast", arguments, task)


def forecast(config: DictConfig) -> Path:
    """Make the forecast that `config` describes, or what is missing of it; the folder with data and manifest."""
    share = own_share(config) if config.share else ALL
    folder = make(prepare(config), share)
    tell(folder, share)
    return folder


def exit_code(target: Path, share: tuple[int, int] = ALL) -> int:
    """0, or 1 where the forecast in `target` failed a check; one that other shares are still missing of did not yet."""
    manifest = read_manifest(target)
    return int(manifest["verdict"] == "failed" and (manifest["finished"] or share == ALL))


def make(job: Job, share: tuple[int, int] = ALL) -> Path:
    """Make what is missing of a share of a forecast; the last share checks and scores the whole and writes the verdict.

    Its folder is returned.
    """
    finished = is_finished(job.folder)
    segments = None if finished else Segments(job.folder, len(job.layout.batches), job.layout.steps)
    manifest = begun(job, segments)
    if segments is None or manifest["finished"]:
        return job.folder
    try:
        make_share(job, segments, manifest, share)
        with turn(segments.folder):
            if not is_finished(job.folder) and not segments.absent():
                finish(job, segments, manifest)
                segments.remove()
                job.writer.tidy()
    except BaseException as error:
        unfinished, what = manifest["reasons"][0].split("; stopped by")[0], str(error) or type(error).__name__
        manifest["reasons"] = [f"{unfinished}; stopped by: {what}"]
        with suppress(OSError), turn(segments.folder):
            write_manifest(job.folder, manifest)
        raise
    finally:
        job.writer.close()
    return job.folder


def is_finished(folder: Path) -> bool:
    """Whether the forecast in `folder` is made and judged."""
    return (folder / NAME).exists() and bool(read_manifest(folder)["finished"])


def begun(job: Job, segments: Segments | None) -> dict[str, Any]:
    """The manifest of the forecast, begun or taken up again, its store laid out; segments: None where it is made."""
    if segments is None:
        manifest = open_manifest(job.folder, job.settings, job.card)
        if not (job.folder / manifest["file"]).exists():
            raise FileNotFoundError(
                f"{job.folder} has a manifest but no {manifest['file']}; remove the folder and make the forecast again."
            )
        return manifest
    with turn(segments.folder):
        manifest = open_manifest(job.folder, job.settings, job.card)
        if manifest["finished"]:  # by another process, a moment ago
            segments.remove()
        else:
            job.writer.open(job.folder, job.layout)
    return manifest


def make_share(job: Job, segments: Segments, manifest: dict[str, Any], share: tuple[int, int]) -> None:
    """Make what is missing of every batch of a share."""
    layout, world = job.layout, job.world
    own = range(share[0] - 1, len(layout.batches), share[1])
    if not own:
        warn(f"Nothing is left for share {share[0]} of {share[1]}: a smaller batch_size makes more batches.")
    with progress(f"forecast {job.folder.name}") as report:
        for number, batch in enumerate(own):
            first = layout.inits[layout.batches[batch]][0]

            def told(lead: int, first: Any = first, number: int = number) -> None:
                report(f"{first} +{lead_text(world, lead)}", (number + (lead + 1) / layout.steps) / len(own))

            with sole(job.folder, f"{segments.folder.name}/{batch:06d}.lock", "forecasting"):
                for _ in roll_out(job, segments, batch, told):
                    with turn(segments.folder):
                        manifest["reasons"] = [unfinished(job, segments)]
                        write_manifest(job.folder, manifest)


def unfinished(job: Job, segments: Segments) -> str:
    """How far a forecast is."""
    batches, leads = segments.written()
    part = "" if not leads else f", and {len(leads)} up to lead {lead_text(job.world, min(leads) - 1)} or later"
    return f"unfinished: {batches} of {segments.batches} batches of initial times are written{part}"


def finish(job: Job, segments: Segments, manifest: dict[str, Any]) -> None:
    """Judge the whole forecast, write scores.nc and the checksums, and only then the verdict."""
    whole, checksums = gathered(job, segments)
    variables, faults = describe(whole, job.world, job.ranges)
    pairs, of = int(whole["pairs"]), job.layout.inits.size * job.layout.steps
    judged, reasons = verdict(faults, pairs, of)
    job.writer.mark(judged)
    card = job.scorecard(0, job.layout.steps)
    if card is not None and pairs:
        for segment, arrays, _ in read(segments):
            if scores := within(arrays, "scores"):
                card.add_partial(scores, segment.first)
        write_netcdf(job.folder / "scores.nc", card.scores({"forecast": job.folder.name, "verdict": judged}))
    conservation = write_budgets(job, segments)
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
        "budgets": budgets(whole, job.world),
        "conservation": conservation,
        "truth": {"pairs": pairs, "of": of},
        "checksums": write_checksums(job.folder, checksums),
    }
    write_manifest(job.folder, manifest)


def read(segments: Segments) -> Iterator[tuple[Segment, Arrays, dict[str, str]]]:
    """(segment, arrays, checksums) of all that was made, one at a time, in order."""
    for chain in segments.chains().values():
        for segment in chain:
            yield segment, *segments.read(segment)


def gathered(job: Job, segments: Segments) -> tuple[Arrays, dict[str, str]]:
    """What the checks found in the whole forecast, how many pairs with the truth there were, and all checksums."""
    checksums: dict[str, str] = {}
    by_batch: dict[int, list[Arrays]] = {}
    for segment, arrays, sums in read(segments):
        own = {name: array for name, array in arrays.items() if "/" not in name}
        by_batch.setdefault(segment.batch, []).append(own)
        checksums |= sums
    pairs = sum(arrays["pairs"] for batch in by_batch.values() for arrays in batch)
    whole = gather(gather(batch, axis=1) for batch in by_batch.values())
    return whole | {"pairs": pairs}, checksums


def write_budgets(job: Job, segments: Segments) -> dict[str, Any] | None:
    """Write budgets.nc; what the manifest tells of it. None where this world has no budgets and no constraints."""
    steps = job.layout.steps
    ledgers = {source: job.ledger(steps, maps=job.correction_maps and source == "forecast") for source in SOURCES}
    if ledgers["forecast"].is_empty:
        return None
    for segment, arrays, _ in read(segments):
        for source, ledger in ledgers.items():
            ledger.add_partial(within(arrays, f"{source} budgets"), segment.first)
    write_netcdf(job.folder / BUDGETS, ledgers["forecast"].dataset(job.layout.inits, ledgers["truth"]))
    return ledgers["forecast"].summary()


def tell(target: Path, share: tuple[int, int] = ALL) -> None:
    """One line: where the forecast is and what it is worth, and why; or that other shares are awaited."""
    manifest = read_manifest(target)
    if not manifest["finished"]:
        told = manifest["reasons"][0].removeprefix("unfinished: ")
        console().print(f"Share {share[0]}/{share[1]} of {escape(str(target))} is made; {escape(told)}", soft_wrap=True)
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
