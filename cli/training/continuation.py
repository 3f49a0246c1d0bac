"""Find the checkpoint that a training resumes from, and refuse one of another configuration."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from data_pipelines.files import checkpoints
from data_pipelines.files.atomic import remove_unfinished
from emul.config.build import resolve_target
from emul.jobs.processes import rank
from emul.terminal import console
from emul.trust.saved import saved_config

# Options that may change when a training is resumed: those that do not affect the weights,
FREE = {
    "output", "config_dir", "resume", "forecast", "eval", "writer", "metric", "logger", "training.checkpoint_every",
    "training.checkpoint_minutes", "training.log_every", "training.broken", "hardware.slurm", "loader.ahead",
}  # fmt: skip


# and where it runs, which changes the last digits; but not its precision.
ROUNDED = {"hardware", "training.accumulate"}
FIXED = {"hardware.precision"}
SHOWN = 5  # differences in one message


@dataclass(frozen=True)
class Resumed:
    """A checkpoint to resume from: its path and its state, without the optimiser's."""

    path: Path
    state: dict[str, Any]


def find_checkpoint(config: DictConfig, target: Path) -> Resumed | None:
    """The newest checkpoint in the run folder `target`, of the training that `config` describes; None to begin anew."""
    if rank() == 0:
        remove_unfinished(target / "checkpoints")
    newest = checkpoints.newest(target / "checkpoints")
    if newest is None:
        return None
    path, content, fault = newest
    state = content["emul"]
    if fault:
        console.warn(f"{fault} Going on from {path.name}, step {state['step']}.")
    refuse_changes(saved_config(state["config"], str(path)), config, target)
    return Resumed(path, state)


def refuse_changes(before: DictConfig, now: DictConfig, target: Path) -> None:
    """Raise ValueError listing what differs, unless resume=changed was given."""
    old, new = (dict(_leaves(OmegaConf.to_container(c, resolve=True))) for c in (before, now))
    old = _defaults(now, new.keys() - old.keys()) | old  # options that came after this training began
    keys = [key for key in {**old, **new} if str(old.get(key)) != str(new.get(key))]
    keys = [key for key in keys if not any(other.startswith(f"{key}.") for other in keys)]  # its parts tell it all
    rounded = [key for key in keys if _lies_in(key, ROUNDED) and not _lies_in(key, FREE | FIXED)]
    refused = [key for key in keys if not _lies_in(key, FREE) and key not in rounded]

    def listed(some: list[str]) -> str:
        lines = [f"{key} was {old.get(key, 'not there')}, is {new.get(key, 'gone')}" for key in some[:SHOWN]]
        return "; ".join([*lines, *([f"and {len(some) - SHOWN} more"] if len(some) > SHOWN else [])])

    if rounded and rank() == 0:
        console.warn(f"{target} goes on elsewhere ({listed(rounded)}): the same training, but not to the last digit.")
    if not refused:
        return
    if now.resume == "changed":
        if rank() == 0:
            console.warn(f"{target} goes on with another config, as asked: {listed(refused)}.")
        return
    raise ValueError(
        f"{target} holds a training with another config ({listed(refused)}). Choose another name=..., say "
        "resume=changed to go on with the new one, or remove the folder."
    )


def _defaults(config: DictConfig, keys: Iterable[str]) -> dict[str, Any]:
    """Default values of those `keys` that are parameters of a part."""
    found: dict[str, Any] = {}
    for key in keys:
        part, _, name = key.rpartition(".")
        if part and (target := OmegaConf.select(config, f"{part}._target_")):
            option = inspect.signature(resolve_target(target)).parameters.get(name)
            found |= {} if option is None else {key: option.default}
    return found


def _lies_in(key: str, keys: set[str]) -> bool:
    return any(f"{key}.".startswith(f"{one}.") for one in keys)


def _leaves(node: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        return [leaf for key, value in node.items() for leaf in _leaves(value, f"{prefix}{key}.")]
    return [(prefix[:-1], node)]
