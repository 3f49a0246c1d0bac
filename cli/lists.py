"""`emul models`, `emul losses`, ... and `emul options`: what there is in a group, and what can be set."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from emul.config.build import target_module
from emul.config.compose import compose
from emul.config.folders import option_files
from emul.config.options import matching_options, options
from emul.config.source_text import definition, module_tree
from emul.terminal.console import table
from emul.terminal.findings import ConfigErrors
from emul.terminal.verbs import LISTS

if TYPE_CHECKING:
    from emulators.world import World

MEASURES = ("paper", "parameters", "GFLOP", "history", "step", "grid", "parity")
NUMBERS = ("parameters", "GFLOP")
CITED = re.compile(
    r"(?:([A-Z][\w'-]+(?: et al\.| & [A-Z][\w'-]+)? \d{4}),? )?(arXiv \d{4}\.\d{4,5}|doi 10\.[^\s;,)]+[^\s;,).])"
)


def main(arguments: list[str]) -> int:
    """Run `emul options`, or list the group that the first argument names; see `list_group`."""
    verb, rest = arguments[0], arguments[1:]
    return list_options(rest) if verb == "options" else list_group(verb, rest)


def list_options(arguments: list[str]) -> int:
    """List the options of a key, of all below it, or of a part such as `model.sfno`; without a key, of the verbs."""
    if len(arguments) > 1:
        raise ValueError(f"emul options takes one key, such as training.batch_size; got {' '.join(arguments)}.")
    found = matching_options(options(), arguments[0] if arguments else "")
    shown = {(option.key, option.default, option.comment): option for option in found}
    table(["option", "default", "what it is"], [[o.key, o.default or "", o.comment] for o in shown.values()])
    return 0


def list_group(verb: str, overrides: list[str]) -> int:
    """List the parts of a group; for models further arguments set the World, as in data=..."""
    if verb != "models" and overrides:
        raise ValueError(f"emul {verb} takes nothing more; got {' '.join(overrides)}.")
    group = LISTS[verb]
    rows = [[name, description(file)] for name, file in option_files(group).items()]
    columns, right = [group, "what it is"], tuple[str, ...]()
    if group == "model":
        sizes, columns, right = (
            measures([row[0] for row in rows], overrides),
            [group, *MEASURES, "what it is"],
            NUMBERS,
        )
        rows = [[name, *sizes[name], uncited(text)] for name, text in rows]
    table(columns, rows, right=right)
    return 0


def description(path: Path) -> str:
    """The first sentence of a YAML file's opening comment, else of what its target says of itself."""
    return _first_sentence(_comment(path)) or _docstring(_target(OmegaConf.load(path)) or "")


def _comment(path: Path) -> str:
    """The comment with which a YAML file opens, in one line."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# @package"):
            continue
        if not line.startswith("#") or not line.strip("# "):
            break
        lines.append(line.lstrip("# "))
    return " ".join(lines)


def uncited(text: str) -> str:
    """A sentence without its citations in brackets."""
    return re.sub(r" \([^()]*\b(?:arXiv|doi|\d{4})\b[^()]*\)", "", text)


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[^.\d])\. (?=[A-Z])", " ".join(text.split()))[0].rstrip(".")


def _target(node: Any) -> str | None:
    """The first `_target_` in a file."""
    if not isinstance(node, DictConfig):
        return None
    if "_target_" in node:
        return str(node["_target_"])
    return next((found for value in node.values() if (found := _target(value))), None)


def _docstring(target: str) -> str:
    """The first sentence of what a target says of itself; where that is of its keys, what its module says."""
    module, _, name = target.rpartition(".")
    found = definition(module, name) if module else None
    said = ast.get_docstring(found[0]) if found and isinstance(found[0], ast.ClassDef | ast.FunctionDef) else None
    tree = module_tree(module) if module else None
    if (not said or re.match(r"\w+: ", said)) and tree is not None:
        said = ast.get_docstring(tree)
    return _first_sentence((said or "").split("\n\n")[0])


def measures(names: list[str], overrides: list[str]) -> dict[str, list[str]]:
    """What a table tells of each model on the World of the overrides (default: the planet); a dash for nothing.

    Paper; trainable parameters; 10^9 floating-point operations of a forecast step on 64x128 points, counted as in
    emulators/training/flop_counter.py; and what its module says of itself.
    """
    from emul.checks.networks import network_on_meta, parameter_count, template_world
    from emulators.interfaces import NetworkModule, optional

    config = compose("train", overrides)
    try:
        world = template_world(config)
    except (ValueError, OSError, KeyError) as error:
        raise ValueError(f"The size of a model depends on the data, and these cannot be described: {error}") from error
    found = {}
    for name in names:
        file: Any = OmegaConf.load(option_files("model")[name])
        config.model = file.get("model", file)  # of those that set other groups too
        node = config.model
        try:
            count = parameter_count(network_on_meta(node, world))
            size = f"{count:,}" if count else "-"
        except (ConfigErrors, ValueError) as error:
            size = "does not fit" if not isinstance(error, ConfigErrors) else "faulty"
        about = optional(target_module(str(node["_target_"])), NetworkModule, "ABOUT")
        told = (about.get(key, "-") for key in ("states", "step", "grid", "parity"))
        found[name] = [paper(name, str(node["_target_"])), size, operations(node, world), *told]
    return found


def paper(name: str, target: str) -> str:
    """What is cited for a model: by its YAML or that of the full size, else by its module; a dash for nothing."""
    files = option_files("model")
    texts = [_comment(files[stem]) for stem in (name, name.removesuffix("_small")) if stem in files]
    tree = module_tree(target.rpartition(".")[0])
    texts.append(" ".join((ast.get_docstring(tree) or "").split()) if tree else "")
    matches = (CITED.search(text) for text in texts)
    return next((" ".join(filter(None, match.groups())) for match in matches if match), "-")


def operations(node: DictConfig, world: World) -> str:
    """10^9 operations of one forward pass on 64x128 points of the sphere; a dash where there are none or it fails."""
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
        return "-"
    count = counted.total / 1e9
    return f"{count:,.{0 if count >= 100 else 2}f}" if count else "-"
