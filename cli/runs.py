"""Run folders: where a training's results lie, and how to open one again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from data_pipelines import checkpoints
from emul.build import part, parts
from emulators.step import Step
from emulators.world import World


@dataclass(frozen=True)
class Run:
    """A trained emulator: folder, config as it was, World, Step (in evaluation mode) and the checkpoint's card."""

    folder: Path
    config: DictConfig
    world: World
    step: Step
    card: dict[str, Any]


def folder(config: DictConfig, verb: str) -> Path:
    """outputs/<verb>/<name> of a composed config."""
    return Path(config.output) / verb / config.name


def open_run(path: str | Path, checkpoint: str = "best", device: str = "cpu") -> Run:
    """Open outputs/train/<name>. checkpoint: `best` (falls back to last where no validation ran) or `last`."""
    path = Path(path)
    if checkpoint not in ("best", "last"):
        raise ValueError(f"checkpoint must be 'best' or 'last'; got '{checkpoint}'.")
    if not path.is_dir():
        beside = sorted(p.name for p in path.parent.glob("*")) if path.parent.is_dir() else []
        raise FileNotFoundError(
            f"No run at {path}; there {'are ' + ', '.join(beside) if beside else 'is nothing'} beside it."
        )
    file = path / "checkpoints" / f"{checkpoint}.ckpt"
    if checkpoint == "best" and not file.exists():
        file = file.with_name("last.ckpt")
    card = checkpoints.load(file)["emul"]
    config = OmegaConf.create(card["config"])
    world = World.from_plain(card["world"])
    step = emulator(config, world)
    step.load_state_dict(card["weights"])
    return Run(path, config, world, step.to(torch.device(device)).eval(), card)


def emulator(config: DictConfig, world: World) -> Step:
    """The untrained Step that `config` describes, on `world`."""
    torch.manual_seed(config.seed)
    return part(config.step, world, part(config.model, world), parts(config.constraint, world))
