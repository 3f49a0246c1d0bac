"""`emul forecast`: from a run and initial times to outputs/forecast/<name>/, begun or continued, checked and scored."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.markup import escape

from data_pipelines.files.locks import sole, turn
from data_pipelines.forecasts.checks import lead_text
from data_pipelines.forecasts.manifest import open_manifest, read_manifest, write_manifest
from data_pipelines.forecasts.segments import Segments
from emul.config.hydra_run import run_with_hydra
from emul.forecasting.batch_rollout import roll_out
from emul.forecasting.finishing import finish, is_finished, unfinished
from emul.forecasting.job import Job, prepare
from emul.jobs.processes import rank, started_from_outside
from emul.jobs.shares import companions, own_share
from emul.terminal.console import console, progress, warn

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
