"""Read files of published weights, written by torch.save or safetensors, whatever keys they are nested under.

Nothing in a file is run: it is loaded as tensors, numbers and strings (weights_only=True). A file may also carry the
constants by which fields are normalised, as pairs of `means` and `stds` (or `mean` and `std`): mappings from channel to
number, or as many numbers as there are prognostic channels, in their order. Files of constants alone are NumPy's: .npz
with a number a channel, by name, or .npy in order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emulators.world import World, hours_of

PAIRS = (("means", "stds"), ("mean", "std"), ("global_means", "global_stds"))
KINDS = ("mean", "std", "tendency_std")
DEPTH = 6  # of what is looked through


def content(path: str | Path) -> dict[str, Any]:
    """Load the content of a file to the CPU. FileNotFoundError or ValueError says what is wrong and what to do."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No weights at {path}; expected a file of torch.save or of safetensors.")
    if path.suffix == ".safetensors":
        try:
            from safetensors.torch import load_file
        except ImportError as error:
            raise ValueError(f"{path} needs a package more: pip install safetensors.") from error
        return load_file(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickles and archives fail in many ways
        said = next((line for line in str(error).splitlines() if "GLOBAL" in line or "global" in line), str(error))
        raise ValueError(
            f"{path} cannot be loaded as tensors, numbers and strings alone ({' '.join(said.split())[:160]}). If it is "
            "whole and you trust who wrote it, take its weights out where its own code is installed: "
            f"x = torch.load('{path.name}', weights_only=False); torch.save(x['state_dict'], 'weights.pt')."
        ) from error
    if not isinstance(found, Mapping):
        raise ValueError(f"Expected a mapping of names to tensors in {path}; got {type(found).__name__}.")
    return dict(found)


def state_dicts(found: Mapping[str, Any]) -> list[dict[str, Tensor]]:
    """Find every mapping of names to tensors in it, without the prefixes that wrappers add to all names."""
    dicts = []
    for mapping in _mappings(found):
        tensors = {str(name): value for name, value in mapping.items() if isinstance(value, Tensor)}
        if tensors and all(isinstance(name, str) for name in mapping):
            dicts.append(_bare(tensors))
    return dicts


def _mappings(node: Any, depth: int = 0) -> Iterator[Mapping[Any, Any]]:
    if isinstance(node, Mapping) and depth < DEPTH:
        yield node
        for value in node.values():
            yield from _mappings(value, depth + 1)


WRAPPERS = ("module", "_orig_mod", "model", "network", "net", "state_dict")


def _bare(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    first = {name.partition(".")[0] for name in tensors}
    if len(first) == 1 and first <= set(WRAPPERS) and all("." in name for name in tensors):
        return _bare({name.partition(".")[2]: value for name, value in tensors.items()})
    return tensors


Constants = dict[str, dict[str, Any]]  # kind -> channel -> number, or for `changes` {timesteps: number}


def constants(found: Mapping[str, Any], world: World) -> Constants:
    """Find the means and standard deviations of the World's channels in a file; empty if it has none."""
    for mapping in _mappings(found):
        for pair in PAIRS:
            if set(pair) <= set(mapping):
                mean, std = (_by_channel(mapping[name], world) for name in pair)
                if mean and std:
                    return {"mean": mean, "std": std}
    return {}


def constants_of_files(files: Mapping[str, str], world: World) -> Constants:
    """Read such constants from NumPy files, {kind: path}.

    kind: mean, std, tendency_std, or tendency_std_12h and the like for the change over another interval.
    """
    result: Constants = {}
    for kind, path in files.items():
        steps = _interval(kind, world)
        if kind not in KINDS and steps is None:
            raise ValueError(
                f"scales: expected files of {', '.join(KINDS)}, or of tendency_std_12h and the like for intervals of "
                f"several timesteps; got {kind}."
            )
        try:
            opened = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise ValueError(f"scales.{kind}: {path} cannot be read as NumPy's .npz or .npy ({error}).") from error
        numbers = _by_channel(opened, world)
        if steps is None:
            result[kind] = numbers
        else:
            changes = result.setdefault("changes", {})
            for channel, number in numbers.items():
                changes[channel] = {**changes.get(channel, {}), steps: number}
        if not numbers:
            holds = ", ".join(list(opened)[:3]) if isinstance(opened, Mapping) else f"shape {opened.shape}"
            raise ValueError(
                f"scales.{kind}: expected numbers by channel, such as {world.prognostic.channels[0]}, or "
                f"{world.prognostic.size} in their order; {path} holds {holds}."
            )
    return result


def _interval(kind: str, world: World) -> int | None:
    """The timesteps of an interval that a kind of constants names, such as tendency_std_12h; None: it names none."""
    named = re.fullmatch(r"tendency_std_(\d+)h", kind)
    steps = float(named[1]) / hours_of(world.timestep) if named else 0.0
    return int(steps) if steps > 1 and steps == int(steps) else None


def _by_channel(node: Any, world: World) -> dict[str, float]:
    """Map channels to numbers: those that a mapping names, or all prognostic ones if an array has as many."""
    if isinstance(node, Mapping):
        sets = (world.prognostic, world.diagnostic, world.forcing, world.static)
        names = [channel for one in sets for channel in one.channels if channel in node]
        values = {name: np.asarray(node[name], dtype=np.float64) for name in names}
        return {name: float(value.reshape(())) for name, value in values.items() if value.size == 1}
    channels = world.prognostic.channels
    numbers = (
        np.asarray(node, dtype=np.float64).ravel() if isinstance(node, np.ndarray | Tensor | list) else np.empty(0)
    )
    return dict(zip(channels, map(float, numbers), strict=True)) if numbers.size == len(channels) else {}
