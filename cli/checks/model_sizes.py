"""Measure models: paper, trainable parameters, operations, and what their modules say of themselves.

The sizes on the planet ship with the package as `model_sizes.json`, which `python -m emul.checks.model_sizes` writes.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from data_pipelines.files.atomic import write_text
from emul.config.folders import conf_folder, option_files
from emul.config.options import opening_comment
from emul.config.source_text import module_tree
from emul.terminal.findings import ConfigErrors

if TYPE_CHECKING:
    from emulators.world import World

SHIPPED = Path(__file__).with_suffix(".json")
CITED = re.compile(
    r"(?:([A-Z][\w'-]+(?: et al\.| & [A-Z][\w'-]+)? \d{4}),? )?(arXiv \d{4}\.\d{4,5}|doi 10\.[^\s;,)]+[^\s;,).])"
)


@dataclass(frozen=True)
class ModelSize:
    """Describe a model on one World.

    paper: author, year and number. parameters: trainable, null where the model does not fit. operations: of a forecast
    step on 64x128 points, in 10^9, counted as in emulators/training/flop_counter.py, null where they cannot be counted.
    states, step, grid, parity: the module's own words on the states it sees, its output, the grids that fit, and what
    it was compared with.
    """

    paper: str
    parameters: int | None
    operations: float | None
    states: str
    step: str
    grid: str
    parity: str


def shipped_sizes() -> dict[str, ModelSize]:
    """Return the sizes of the models in conf/ on the planet, without building one."""
    return {name: ModelSize(**row) for name, row in json.loads(SHIPPED.read_text(encoding="utf-8")).items()}


def measured_sizes(names: Sequence[str], overrides: Sequence[str] = ()) -> dict[str, ModelSize]:
    """Measure models on the World of a training's overrides. Raises ValueError where its data cannot be described."""
    from emul.checks.networks import template_world
    from emul.config.compose import compose

    try:
        world = template_world(compose("train", list(overrides)))
    except (ValueError, OSError, KeyError) as error:
        if isinstance(error, ConfigErrors):
            raise
        raise ValueError(f"The size of a model depends on the data, and these cannot be described: {error}") from error
    return {name: _measured(name, world) for name in names}


def _measured(name: str, world: World) -> ModelSize:
    from emul.checks.networks import network_on_meta, parameter_count
    from emulators.interfaces import NetworkModule, optional

    file: Any = OmegaConf.load(option_files("model")[name])
    node = file.get("model", file)  # of those that set other groups too
    try:
        parameters = parameter_count(network_on_meta(node, world))
    except ValueError:
        parameters = None
    about = optional(import_module(node["_target_"].rpartition(".")[0]), NetworkModule, "ABOUT")
    told = {key: str(about.get(key, "")) for key in ("states", "step", "grid", "parity")}
    return ModelSize(paper(name, str(node["_target_"])), parameters, operations(node, world), **told)


def paper(name: str, target: str) -> str:
    """Return what is cited for a model: by its YAML or that of the full size, else by its module; empty for nothing."""
    files = option_files("model")
    texts = [opening_comment(files[stem]) for stem in (name, name.removesuffix("_small")) if stem in files]
    tree = module_tree(target.rpartition(".")[0])
    texts.append(" ".join((ast.get_docstring(tree) or "").split()) if tree else "")
    matches = (CITED.search(text) for text in texts)
    return next((" ".join(filter(None, match.groups())) for match in matches if match), "")


def operations(node: DictConfig, world: World) -> float | None:
    """Return 10^9 operations of one forward pass on 64x128 points of the sphere; None where it needs numbers."""
    import torch

    from emul.checks.networks import network_on_meta
    from emulators.grid import equiangular_grid
    from emulators.training.flop_counter import Operations

    finer = replace(world, grid=equiangular_grid(64), static_fields=None)
    try:
        network = network_on_meta(node, finer).eval()
        fields = torch.empty(1, finer.input_channels, 64, 128, device="meta")
        with torch.no_grad(), Operations() as counted:
            network(fields, torch.empty(1, dtype=torch.int64, device="meta"))
    except Exception:  # a network may need numbers where there are none
        return None
    return float(f"{counted.total / 1e9:.3g}") or None


def write_sizes() -> None:
    """Write the table that ships with the package."""
    names = [path.stem for path in sorted((conf_folder() / "model").glob("*.yaml"))]
    rows = {name: asdict(size) for name, size in measured_sizes(names).items()}
    write_text(SHIPPED, json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    write_sizes()
