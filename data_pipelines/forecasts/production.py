"""Make a forecast on disk, or what is missing of it: its batches, then scores, budgets, checksums and the verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.conventions.durations import duration_text
from data_pipelines.files.atomic import lock_or_refuse, remove_unfinished, sha256, wait_for_turn, write_text
from data_pipelines.files.netcdf import stored_form, write_netcdf
from data_pipelines.forecasts.checks import budget_drifts, departures_in, describe, first_departures, gather, lead_text
from data_pipelines.forecasts.layout import LEVELS
from data_pipelines.forecasts.manifest import (
    NAME,
    lost_files,
    now,
    open_manifest,
    read_manifest,
    verdict,
    write_checksums,
    write_manifest,
)
from data_pipelines.forecasts.rollouts import SOURCES, Arrays, BatchForecast, ForecastJob, Segment, Segments, within

BUDGETS = "budgets.nc"
Report = Callable[[str, float], None]


def _ignore(*_: object) -> None:
    """Ignore a report or a warning."""


def make_forecast(
    job: ForecastJob,
    share: tuple[int, int] = (1, 1),
    *,
    report: Report = _ignore,
    warn: Callable[[str], None] = _ignore,
) -> Path:
    """Make what is missing of share (number, shares) of a forecast; whoever makes the last share finishes the whole.

    Returns the folder. report(text, fraction): called as it goes. warn(sentence): called where something is wrong.
    """
    if is_finished(job.folder):
        refuse_lost_file(job)
        return job.folder
    layout, segments = job.layout, Segments(job.folder, len(job.layout.pieces), job.layout.steps)
    manifest = begin(job, segments)
    if manifest["finished"]:
        return job.folder
    pieces = range(share[0] - 1, len(layout.pieces), share[1])
    if not pieces:
        warn(
            f"Nothing is left for share {share[0]} of {share[1]}: a smaller batch_size or member_batch makes more work."
        )
    warned = set[str]()
    with _failure_recorded(job, segments, manifest):
        for number, batch in enumerate(pieces):
            first = layout.inits[layout.pieces[batch][0]][0]

            def report_lead(lead: int, first: Any = first, number: int = number) -> None:
                report(f"{first} +{lead_text(job.world, lead)}", (number + (lead + 1) / layout.steps) / len(pieces))

            with lock_or_refuse(job.folder, f"{segments.folder.name}/{batch:06d}.lock", "forecasting"):
                with wait_for_turn(segments.folder):  # another process may merge files
                    chain = segments.sound(batch)
                if chain and chain[-1].stop == layout.steps:
                    continue
                forecast = BatchForecast(job, batch, warn, warned)
                if chain:
                    forecast.restore(segments.read(chain[-1])[0])
                for segment in segments.ahead(batch, forecast.rollout.lead, job.segment):
                    arrays, checksums = forecast.make(segment, report_lead)
                    segments.write(segment, arrays, checksums)
                    if segment.stop < layout.steps:
                        forecast.restore(arrays)
                    with wait_for_turn(segments.folder):
                        job.writer.merge(batch, segments)
                        manifest["reasons"] = [progress_text(job, segments)]
                        write_manifest(job.folder, manifest)
        with wait_for_turn(segments.folder):
            if not is_finished(job.folder) and not segments.absent():
                for batch in range(segments.batches):
                    job.writer.merge(batch, segments)  # what a process that was killed has left
                finish(job, segments, manifest, report)
                segments.remove()
                job.writer.tidy()
    return job.folder


@contextmanager
def _failure_recorded(job: ForecastJob, segments: Segments, manifest: dict[str, Any]) -> Iterator[None]:
    """Write what stops the work within this context into the manifest, and close the writer at its end."""
    try:
        yield
    except BaseException as error:
        reason, cause = manifest["reasons"][0].split("; stopped by")[0], str(error) or type(error).__name__
        manifest["reasons"] = [f"{reason}; stopped by: {cause}"]
        with suppress(OSError), wait_for_turn(segments.folder):
            write_manifest(job.folder, manifest)
        raise
    finally:
        job.writer.close()


def refuse_lost_file(job: ForecastJob) -> None:
    """Raise FileNotFoundError where a finished forecast has lost files, ValueError where its settings differ."""
    manifest = open_manifest(job.folder, job.settings, job.card)
    if not (job.folder / manifest["file"]).exists():
        raise FileNotFoundError(
            f"{job.folder} has a manifest but no {manifest['file']}; remove the folder and make the forecast again."
        )
    lost = lost_files(job.folder, manifest)
    if lost:
        raise FileNotFoundError(
            f"{job.folder} has lost {len(lost)} of its files, such as {lost[0]}; `emul verify {job.folder}` lists all. "
            "Remove the folder and make the forecast again."
        )


def begin(job: ForecastJob, segments: Segments) -> dict[str, Any]:
    """The manifest of a forecast that is begun or resumed, its store laid out."""
    with wait_for_turn(segments.folder):
        manifest = open_manifest(job.folder, job.settings, job.card)
        if manifest["finished"]:  # by another process, a moment ago
            segments.remove()
        else:
            job.writer.open(job.folder, job.layout)
    return manifest


def is_finished(folder: Path) -> bool:
    """Whether the forecast in `folder` is made and judged."""
    return (folder / NAME).exists() and bool(read_manifest(folder)["finished"])


def progress_text(job: ForecastJob, segments: Segments) -> str:
    """A sentence on how much of a forecast is on disk."""
    batches, leads = segments.written()
    unit = "batches of initial times" + (" and members" if job.layout.is_grouped else "")
    partial = "" if not leads else f", and {len(leads)} up to lead {lead_text(job.world, min(leads) - 1)} or later"
    return f"unfinished: {batches} of {segments.batches} {unit} are written{partial}"


def finish(job: ForecastJob, segments: Segments, manifest: dict[str, Any], report: Report) -> None:
    """Judge the whole forecast, write scores.nc, budgets.nc and the checksums, and only then the verdict."""
    remove_unfinished(job.folder, within=False)  # whoever has the turn is its only writer once all segments are there
    checks, checksums = merged_checks(segments)
    variables, faults = describe(checks, job.world, job.ranges)
    pairs, total = int(checks["pairs"]), job.layout.inits.size * job.layout.steps
    judged, reasons = verdict(faults, pairs, total)
    job.writer.mark(judged)
    card = job.scorecard(0, job.layout.steps)
    if card is not None and pairs and not job.layout.is_grouped:
        for segment, arrays, _ in read_segments(segments):
            if scores := within(arrays, "scores"):
                card.add_partial(scores, segment.first)
        scores = card.scores({"forecast": job.folder.name, "verdict": judged})
        if "level" in scores.coords:
            scores["level"].attrs.update(LEVELS[job.world.vertical.kind])
        write_netcdf(job.folder / "scores.nc", stored_form(scores, f"Scores of {job.folder.name}"))
    conservation, drift = write_budgets(job, segments), first_departures(departures(segments))
    checksums = job.writer.export(checksums, lambda share: report("writing the file", share))
    write_text(job.folder / "config.yaml", manifest.get("config", ""))
    for name in ("scores.nc", BUDGETS, "config.yaml"):
        if (job.folder / name).exists():
            checksums[name] = sha256(job.folder / name)
    manifest |= {
        "marks": {**manifest.get("marks", {}), **({"drift": drift} if drift else {})},
        "verdict": judged,
        "reasons": reasons,
        "finished": True,
        "completed": now(),
        "file": job.writer.name,
        "inits": {"first": str(job.layout.inits[0]), "last": str(job.layout.inits[-1]), "count": job.layout.inits.size},
        "leads": {"steps": job.layout.steps, "timestep": duration_text(job.world.timestep)},
        "variables": variables,
        "budgets": budget_drifts(checks, job.world),
        "conservation": conservation,
        "truth": {"pairs": pairs, "of": total},
        "checksums": write_checksums(job.folder, checksums),
    }
    write_manifest(job.folder, manifest)


def read_segments(segments: Segments) -> Iterator[tuple[Segment, Arrays, dict[str, str]]]:
    """Yield (segment, arrays, checksums) of all that was made, in order."""
    for chain in segments.chains().values():
        for segment in chain:
            yield segment, *segments.read(segment)


def departures(segments: Segments) -> Iterator[dict[str, tuple[int, str]]]:
    """Yield what the watch of each segment has told so far, where there was one."""
    for _, arrays, _ in read_segments(segments):
        if "watch/told" in arrays:
            yield departures_in(within(arrays, "watch"))


def merged_checks(segments: Segments) -> tuple[Arrays, dict[str, str]]:
    """The checks of the whole forecast and the number of pairs with the truth; and all checksums."""
    checksums: dict[str, str] = {}
    by_batch: dict[int, list[Arrays]] = {}
    for segment, arrays, sums in read_segments(segments):
        checks = {name: array for name, array in arrays.items() if "/" not in name}
        by_batch.setdefault(segment.batch, []).append(checks)
        checksums |= sums
    pairs = np.sum([arrays["pairs"] for batch in by_batch.values() for arrays in batch])
    merged = gather(gather(batch, axis=1) for batch in by_batch.values())
    return merged | {"pairs": np.array(pairs)}, checksums


def write_budgets(job: ForecastJob, segments: Segments) -> dict[str, Any] | None:
    """Write budgets.nc and return its summary; None where this world has no budgets and no constraints."""
    ledgers = job.ledgers(job.layout.steps)
    if ledgers["forecast"].is_empty:
        return None
    for segment, arrays, _ in read_segments(segments):
        for source in SOURCES if job.layout.pieces[segment.batch][1].start == 0 else ():
            ledgers[source].add_partial(within(arrays, f"{source} budgets"), segment.first)
    forecast, truth = (ledgers[source].results() for source in SOURCES)
    write_netcdf(job.folder / BUDGETS, forecast.dataset(job.layout.inits, truth))
    return forecast.summary()
