"""Finish a forecast: gather its segments, judge it, write scores, budgets and checksums."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_pipelines.conventions.durations import duration_text
from data_pipelines.files.atomic import sha256, write_netcdf
from data_pipelines.forecasts.checks import budgets, describe, gather, lead_text
from data_pipelines.forecasts.manifest import NAME, now, read_manifest, verdict, write_checksums, write_manifest
from data_pipelines.forecasts.segments import Segment, Segments
from emul.forecasting.batch_rollout import SOURCES, Arrays, within
from emul.forecasting.job import Job
from emul.terminal.console import progress

BUDGETS = "budgets.nc"


def is_finished(folder: Path) -> bool:
    """Whether the forecast in `folder` is made and judged."""
    return (folder / NAME).exists() and bool(read_manifest(folder)["finished"])


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
