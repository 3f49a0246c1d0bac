"""Find the checkpoint that a training resumes from, and list what differs from its configuration and data."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from data_pipelines.files import checkpoints
from data_pipelines.files.atomic import remove_unfinished, write_if_changed
from data_pipelines.files.fingerprints import data_differences, fingerprint, is_rewritten, json_text, written_text
from data_pipelines.files.identity import BRANCHED, differences, digest, leaves, lies_in, listed, training_differences
from data_pipelines.jobs.processes import rank, started_from_outside
from emul.config.build import build, resolve_target
from emul.config.saved import plain, read_saved, saved_config, saved_plain, saved_text
from emul.terminal import console

if TYPE_CHECKING:
    from data_pipelines.studies.trials import Trial

RULES = ("exact", "changed", "anew")
REMOVED = ("checkpoints", "tensorboard", "metrics.csv", "result.json", "config.yaml", "curves.png", "mlflow_run.txt")


@dataclass(frozen=True)
class Resumed:
    """Hold a checkpoint to resume from: its path and its state, without the optimiser's.

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
        return branched(config, target)
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


def branched(config: DictConfig, target: Path) -> Resumed | None:
    """The kept state of another run from which `continue_from` goes on; None where it names none.

    ValueError where the other run differs in more than what may differ from there on, or is longer already.
    """
    if config.continue_from is None:
        return None
    if config.from_checkpoint is not None:
        raise ValueError("continue_from goes on with a whole training, from_checkpoint starts with weights: give one.")
    path = Path(config.continue_from)
    state = checkpoints.load(path)["emul"]
    differing = changes(OmegaConf.create(state["config"]), config, target, state.get("data"), data_now(config))
    if altered := [text for text in differing if not lies_in(text.partition(" ")[0], BRANCHED)]:
        raise ValueError(
            f"continue_from: expected {path} to be of the same training but for {', '.join(sorted(BRANCHED))}; it "
            f"differs ({listed(altered)}). Set these as they were, or take from_checkpoint=... for its weights alone."
        )
    if not state["step"] < config.training.steps:
        raise ValueError(
            f"continue_from: {path} has made {state['step']} steps, and training.steps={config.training.steps} leaves "
            "none; give more steps, or an earlier state."
        )
    return Resumed(path, state)


def refuse_other_data(resumed: Resumed, data: Mapping[str, Any], target: Path) -> None:
    """Raise ValueError where the data, now open, are not those of the training: what addresses do not tell before."""
    if differing := data_differences(resumed.state.get("data"), data):
        raise ValueError(
            f"The data of {target} are not those that its training began with ({listed(differing)}). Choose another "
            "name=..., say resume=changed to go on with them, or resume=anew."
        )


def keep_options(target: Path, config: DictConfig, state: Mapping[str, Any]) -> None:
    """Write the config.yaml of a finished training: that of its weights, with the present options of other verbs."""
    trained = saved_config(state["config"], f"the checkpoint of {target}")
    for key in ("forecast", "eval", "writer", "perturbation", "metric", "logger"):
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


def changes(
    before: DictConfig, now: DictConfig, target: Path, data: Mapping[str, Any] | None, present: Mapping[str, Any]
) -> list[str]:
    """List what differs between two configurations and their data, as far as it matters to the weights.

    data, present: the fingerprints of their data. Equal data may lie elsewhere.
    """
    replaced = data_differences(data, present)
    same = bool(data) and "content" in present and not replaced
    if same and is_rewritten(data, present) and rank() == 0:
        console.warn(
            f"The data of {target} were written again ({written_text(present)}); samples of them are the same."
        )
    old, new = (dict(leaves(saved_plain(config))) for config in (before, now))  # nothing of `before` is resolved
    resolved = dict(leaves(OmegaConf.to_container(now, resolve=True)))
    old = _defaults(now, new.keys() - old.keys()) | old  # options that came after this training began
    differing, rounded = training_differences(old, new, resolved, same_data=same)
    if rounded and rank() == 0:
        elsewhere = listed(rounded)
        console.warn(f"{target} goes on elsewhere ({elsewhere}): the same training, but not to the last digit.")
    return [*differing, *(f"the data have {text}" for text in replaced)]


def data_now(config: DictConfig) -> dict[str, Any]:
    """The fingerprint of the data that a configuration names, without opening them; empty where there are none."""
    try:
        return fingerprint(build(config.data).path)
    except Exception:  # a source may refuse in any way; it raises the error when the data are opened
        return {}


def _defaults(config: DictConfig, keys: Iterable[str]) -> dict[str, Any]:
    """Default values of those `keys` that are parameters of a part."""
    defaults: dict[str, Any] = {}
    for key in keys:
        part, _, name = key.rpartition(".")
        if part and (target := OmegaConf.select(config, f"{part}._target_")):
            option = inspect.signature(resolve_target(target)).parameters.get(name)
            defaults |= {} if option is None else {key: option.default}
    return defaults


def write_result(target: Path, card: Mapping[str, Any]) -> None:
    """Write result.json, a summary for tools that read many runs, in the first process."""
    if rank() == 0:
        summary = {
            "finished": True,
            **{name: card[name] for name in ("step", "best", "validation", "data") if name in card},
        }
        write_if_changed(target / "result.json", json_text(summary))


def write_config(target: Path, config: DictConfig) -> None:
    """Write the config.yaml of a run folder, which forecast and eval read, in the first process."""
    if rank() == 0:
        write_if_changed(target / "config.yaml", saved_text(config))


SCORED = ("forecast", "eval", "metric", "writer", "perturbation")


class KeptTrials:
    """Compare trials with what an earlier sweep left in their folders. name: of the sweep, for messages."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._data: dict[str, dict[str, Any]] = {}  # fingerprints by digest of the settings

    def changes(self, trial: Trial, config: DictConfig) -> list[str]:
        """List how the training in the folder of a trial differs from `config`; ValueError where nothing is said to do.

        Empty where there is none.
        """
        file = trial.run / "config.yaml"
        if not file.is_file():
            return []
        saved = read_saved(file)
        altered = changes(saved, config, trial.run, self.data_before(trial.run), self.data(config))
        if altered and config.resume == "exact":
            raise ValueError(
                f"{trial.run} holds a trial of another sweep ({listed(altered)}). Choose another name, sweep.name=..., "
                "say resume=anew to train such trials again or resume=changed to go on with them, or remove the folder."
            )
        return altered + (self.options(saved, config) if trial.verb == "run" else [])

    @staticmethod
    def options(saved: DictConfig, config: DictConfig) -> list[str]:
        """List how the options of forecast and evaluation differ from those under which a trial was scored."""
        return differences(*({key: plain(settings.get(key)) for key in SCORED} for settings in (saved, config)))

    def data(self, config: DictConfig) -> dict[str, Any]:
        """The fingerprint of the data of a configuration, taken once."""
        key = digest(plain(config.data))
        if key not in self._data:
            self._data[key] = data_now(config)
        return self._data[key]

    @staticmethod
    def data_before(run: Path) -> dict[str, Any]:
        """The fingerprint of the data that a finished training was made from; empty before it is finished."""
        from data_pipelines.verification.run_results import read_result  # loads scipy, which no training needs

        return dict((read_result(run) or {}).get("data", {}))
