"""Run folders: where a training's results lie, and how to open one again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from data_pipelines.files import checkpoints
from data_pipelines.files.atomic import atomic_file
from emul.config.build import build, build_all
from emul.jobs.processes import rank
from emulators.steps.step import Step
from emulators.world import World


@dataclass(frozen=True)
class Run:
    """A trained emulator: folder, config as it was, World, Step (in evaluation mode) and the checkpoint's card."""

    folder: Path
    config: DictConfig
    world: World
    step: Step
    card: dict[str, Any]


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
    return build(config.step, world, build(config.model, world), build_all(config.constraint, world))


def keep_result(target: Path, card: Mapping[str, Any]) -> None:
    """result.json, for who looks at many runs; only the first process writes it."""
    if rank() == 0:
        kept = {"finished": True, **{name: card[name] for name in ("step", "best", "validation")}}
        write_whole(target / "result.json", json.dumps(kept, indent=1) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write a text file atomically, unless it holds this text already."""
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    with atomic_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def keep_config(target: Path, config: DictConfig) -> None:
    """The config.yaml of a run folder, which forecast and eval read; touched only where it differs."""
    file, text = target / "config.yaml", OmegaConf.to_yaml(config, resolve=True)
    if file.exists() and file.read_text(encoding="utf-8") == text:
        return
    if rank():
        return
    target.mkdir(parents=True, exist_ok=True)
    write_whole(file, text)
