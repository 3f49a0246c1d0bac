"""`emul run`: train, forecast and eval in one go; each resumes where it was left."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipelines.jobs.slurm import requeue_on_notice
from emul.checks.submission import submitted_or_within_job
from emul.config.build import build
from emul.config.compose import compose, run_composed
from emul.config.overrides import assignment
from emul.terminal.console import console, next_command, stage

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(arguments: list[str]) -> int:
    """With hardware=slurm it is a job, whose script --dry-run prints."""
    dry = "--dry-run" in arguments
    words = [word for word in arguments if word != "--dry-run"]
    return run_composed(
        "run", words, lambda config: 0 if submitted_or_within_job("run", config, words, dry) else run(config)
    )


def run(config: DictConfig) -> int:
    """Train, forecast and evaluate one configuration; exit code 1 where the forecast failed a check."""
    from data_pipelines.forecasts.manifest import read_manifest
    from emul.eval import evaluate
    from emul.evaluation.inputs import evaluation_digest
    from emul.forecast import exit_code, forecast
    from emul.train import train

    stage("1 of 3: train")
    trained = train(config)
    requeue_on_notice(build(config.hardware).slurm)
    stage("2 of 3: forecast")
    forecast_config = follow_up("forecast", config, trained)
    forecast_config.writer, forecast_config.perturbation = config.writer, config.perturbation
    if config.resume != "exact":  # what was asked of the training holds for what follows from it
        forecast_config.resume = "anew"
    forecast_folder = forecast(forecast_config)
    stage("3 of 3: eval")
    scored, eval_config = Path(config.output) / "eval" / config.name, follow_up("eval", config, trained)
    pictures = not config.eval.pictures or (scored / "report.html").is_file()
    if pictures and is_scored(scored, evaluation_digest(eval_config, read_manifest(forecast_folder))):
        console().print(f"{scored} holds the scores of this forecast already.", soft_wrap=True)
    else:
        evaluate(eval_config, ends=False)
    next_command(shlex.join(["emul", "show", str(trained)]))
    return exit_code(forecast_folder)


def follow_up(verb: str, config: DictConfig, trained: Path) -> DictConfig:
    """Compose the configuration of the verb that follows a training, from the values that the run has saved."""
    values = {"run": trained, "name": config.name, "output": config.output}
    return compose(verb, [assignment(key, value) for key, value in values.items()])


def is_scored(folder: Path, identity: str) -> bool:
    """True where a folder holds the scores of the evaluation with this identity."""
    from data_pipelines.verification.score_files import read_scores

    try:
        return bool(read_scores(folder / "scores.nc").attrs.get("made_from") == identity)
    except (OSError, ValueError):
        return False
