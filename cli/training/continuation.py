"""Find the checkpoint that a training resumes from, and refuse one of another configuration or of other data."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from data_pipelines.files import checkpoints
from data_pipelines.files.atomic import remove_unfinished
from data_pipelines.files.fingerprints import data_differences
from data_pipelines.files.identity import listed
from emul.jobs.processes import rank, started_from_outside
from emul.terminal import console
from emul.training.changes import changes, data_now
from emul.training.runs import write_config
from emul.trust.saved import saved_config

RULES = ("exact", "changed", "anew")
REMOVED = ("checkpoints", "tensorboard", "metrics.csv", "result.json", "config.yaml", "curves.png", "mlflow_run.txt")


@dataclass(frozen=True)
class Resumed:
    """A checkpoint to resume from: its path and its state, without the optimiser's.

    changed: what differs from the training that wrote it, where going on was asked for.
    """

    path: Path
    state: dict[str, Any]
    changed: tuple[str, ...] = ()


def find_checkpoint(config: DictConfig, target: Path) -> Resumed | None:
    """The newest checkpoint in the run folder `target`, of the training that `config` describes; None to begin anew.

    ValueError where what is there is of another training, unless `resume` says what to do with it.
    """
    if config.resume not in RULES:
        raise ValueError(f"resume: expected one of {', '.join(RULES)}; got '{config.resume}'.")
    if rank() == 0:
        remove_unfinished(target / "checkpoints")
    newest = checkpoints.newest(target / "checkpoints")
    if newest is None:
        return None
    path, content, fault = newest
    state = content["emul"]
    if fault:
        console.warn(f"{fault} Going on from {path.name}, step {state['step']}.")
    differing = changes(OmegaConf.create(state["config"]), config, target, state.get("data"), data_now(config))
    if not differing:
        return Resumed(path, state)
    if config.resume == "anew":
        remove_training(target)
        return None
    if config.resume == "changed":
        if rank() == 0:
            console.warn(f"{target} goes on with another config, as asked: {listed(differing)}.")
        return Resumed(path, state, tuple(differing))
    raise ValueError(
        f"{target} holds a training with another config ({listed(differing)}). Choose another name=..., say "
        "resume=changed to go on with the new one or resume=anew to train it in place of the old, or remove the folder."
    )


def refuse_other_data(resumed: Resumed, data: Mapping[str, Any], target: Path) -> None:
    """Raise ValueError where the data, now open, are not those of the training: what addresses do not tell before."""
    if found := data_differences(resumed.state.get("data"), data):
        raise ValueError(
            f"The data of {target} are not those that its training began with ({listed(found)}). Choose another "
            "name=..., say resume=changed to go on with them, or resume=anew."
        )


def keep_options(target: Path, config: DictConfig, state: Mapping[str, Any]) -> None:
    """Write the config.yaml of a finished training: that of its weights, with the present options of other verbs."""
    trained = saved_config(state["config"], f"the checkpoint of {target}")
    for key in ("forecast", "eval", "writer", "metric", "logger"):
        OmegaConf.update(trained, key, config[key], merge=False)
    write_config(target, trained)


def refuse_nothing_left(resumed: Resumed | None, steps: int, target: Path) -> None:
    """Raise ValueError where a training that goes on changed has made all of its steps already."""
    if resumed is None or not resumed.changed or resumed.state["step"] < steps:
        return
    raise ValueError(
        f"{target} has made {resumed.state['step']} steps, and training.steps={steps} leaves none to make with what "
        f"changed ({listed(resumed.changed)}). Give more steps, choose another name=..., or say resume=anew."
    )


def remove_training(target: Path) -> None:
    """Remove what a training left in its run folder: a training of another configuration takes its place."""
    if started_from_outside():
        raise ValueError(f"resume=anew is for a single process; remove {target}, then start the processes.")
    if rank() == 0:
        console.warn(f"{target} held another training, which is removed, as asked.")
        for path in target.iterdir():
            if path.is_dir() and path.name in REMOVED:
                shutil.rmtree(path)
            elif path.name in REMOVED:
                path.unlink()
