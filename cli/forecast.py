"""`emul forecast`: from a run and initial times to outputs/forecast/<name>/, begun or continued, checked and scored."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from omegaconf import DictConfig
from rich.markup import escape

from data_pipelines.forecasts.manifest import read_manifest
from data_pipelines.forecasts.production import make_forecast
from emul.config.command_line import run_composed
from emul.forecasting.job import prepare
from emul.jobs.processes import rank, started_from_outside
from emul.jobs.shares import share_of_process, worker_processes
from emul.terminal.console import console, next_command, progress, warn

ALL = (1, 1)
AGAIN = "what is written is kept: give the same command again."


def main(arguments: list[str]) -> int:
    """Exit code 1 where the forecast failed a check."""

    def task(config: DictConfig) -> int:
        share = share_of_process(config)
        words = sys.argv[1:] if {"--multirun", "-m"} & {*arguments} else ["forecast", *arguments]
        with worker_processes(config, words, AGAIN):
            job = prepare(config)
            with progress(f"forecast {job.folder.name}") as report:
                make_forecast(job, share, report=report, warn=warn)
        show_verdict(job.folder, share)
        if read_manifest(job.folder)["verdict"] == "verified":
            name = [] if config.name == Path(str(config.run)).name else [f"name={config.name}"]
            next_command(shlex.join(["emul", "eval", f"run={config.run}", *name]))
        return 0 if rank() and not started_from_outside() else exit_code(job.folder, share)

    return run_composed("forecast", arguments, task)


def forecast(config: DictConfig) -> Path:
    """Make the forecast that `config` describes, or what is missing of it; the folder with data and manifest."""
    share = share_of_process(config) if config.share else ALL
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
