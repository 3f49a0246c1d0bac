"""Checkpoints and adapters on disk, written whole or not at all, and published weights: tensors, numbers, strings.

Read files of published weights, written by torch.save, safetensors or NumPy, whatever keys they are nested under.

Nothing in a file is run: it is loaded as tensors, numbers and strings (weights_only=True). A file may also carry the
constants by which fields are normalised, as pairs of `means` and `stds` (or `mean` and `std`): mappings from channel to
number, or as many numbers as there are prognostic channels, in their order. Files of constants alone are NumPy's: .npz
with a number a channel, by name, or .npy in order.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_pipelines.files.archives import refuse_damaged_archive, refusing_damage
from data_pipelines.files.atomic import atomic_file, bytes_text, flush_to_disk, room_text
from emulators.world import World, hours_of

FORMAT = 2
PREVIOUS = "previous.ckpt"


def save(path: str | Path, content: dict[str, Any], *, keep_previous: bool = False) -> None:
    """Write a checkpoint atomically and flush it to the disk: a kill or a full disk leaves the old one.

    keep_previous: the one that it replaces stays, as `previous.ckpt`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_file(path) as unfinished:
            with open(unfinished, "wb") as file:
                torch.save(content, file)
            flush_to_disk(unfinished)  # before the old one loses its name
            if keep_previous and path.exists():
                _link(path, path.with_name(PREVIOUS))
    except (OSError, RuntimeError) as error:
        reason = f"{error}; it needs {bytes_text(_size(content))}, {room_text(path)}"
        raise OSError(f"Could not write checkpoint {path} ({reason}); the previous one is untouched.") from error


def _size(node: Any) -> int:
    """Return the bytes of all tensors in nested mappings and lists."""
    if isinstance(node, torch.Tensor):
        return node.nbytes
    below = node.values() if isinstance(node, dict) else node if isinstance(node, list | tuple) else ()
    return sum(map(_size, below))


def _link(path: Path, other: Path) -> None:
    """Make `other` a second name of the file at `path`, atomically; do nothing on file systems without hard links."""
    with suppress(OSError), atomic_file(other) as unfinished:
        os.link(path, unfinished)


def newest(folder: Path) -> tuple[Path, dict[str, Any], str | None] | None:
    """Find the newest readable checkpoint in `folder`: path, content, and what was wrong with a newer one.

    None where there is none at all; ValueError where none can be read.
    """
    faults: list[ValueError] = []
    for name in ("last.ckpt", PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        try:
            content = load(path)
        except ValueError as error:
            faults.append(error)
            continue
        return path, content, str(faults[0]) if faults else None
    if faults:
        raise ValueError(f"{' '.join(map(str, faults))} Remove {folder} to train anew.") from faults[0]
    return None


def load(path: str | Path) -> dict[str, Any]:
    """Load a checkpoint to the CPU and compare the checksum of every tensor.

    FileNotFoundError or ValueError says what is wrong with the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No checkpoint at {path}; train first, or name a run that has one.")
    refuse_damaged_archive(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        kind = type(error).__name__
        raise ValueError(f"{path} cannot be read as a checkpoint ({kind}); it may be truncated.") from error
    card = content.get("emul") if isinstance(content, dict) else None
    if not isinstance(card, dict):
        raise ValueError(f"Expected a checkpoint of emul; {path} is something else.")
    if card.get("format") != FORMAT:
        raise ValueError(f"{path} is in format {card.get('format')}; this version of emul reads {FORMAT}: train anew.")
    return content


@dataclass(frozen=True)
class CheckpointFolder:
    """Write and read the checkpoints of one training: last.ckpt, the one before it, best.ckpt, and what is kept."""

    path: Path

    def save_last(self, content: dict[str, Any]) -> None:
        """Replace last.ckpt and keep it as `previous.ckpt`."""
        save(self.path / "last.ckpt", content, keep_previous=True)

    def save_best(self, content: dict[str, Any]) -> None:
        """Replace best.ckpt."""
        save(self.path / "best.ckpt", content)

    def save_kept(self, content: dict[str, Any], name: str) -> None:
        """Write a checkpoint under a name of its own."""
        save(self.path / name, content)

    def load(self, path: str | Path) -> dict[str, Any]:
        """The content of a checkpoint."""
        return load(path)


ADAPTER = "adapter.pt"


def save_adapter(folder: Path, settings: Mapping[str, Any], weights: Mapping[str, Tensor], base: str) -> None:
    """Write the adapter of the run in `folder` to adapter.pt. base: digest of the weights that it was trained on."""
    save(folder / ADAPTER, {"adapter": {"settings": settings, "weights": weights, "base": base}})


def read_adapter(path: Path, base: str, of: Path) -> dict[str, Any]:
    """Read settings, weights and base of an adapter: from adapter.pt, or the folder of its run.

    base: digest of the weights in the checkpoint `of`, for which it is wanted. ValueError where it is something else,
    or was trained on other weights.
    """
    adapter = content(path / ADAPTER if path.is_dir() else path).get("adapter")
    if not isinstance(adapter, dict) or not {"settings", "weights", "base"} <= set(adapter):
        raise ValueError(f"adapter_file: expected the {ADAPTER} of a run trained with adapter=lora; got {path}.")
    if adapter["base"] != base:
        raise ValueError(
            f"adapter_file: {path} was trained on other weights than those of {of}; give the run that it began "
            "from, in from_checkpoint, or the adapter of this one."
        )
    return adapter


PAIRS = (("means", "stds"), ("mean", "std"), ("global_means", "global_stds"))
KINDS = ("mean", "std", "tendency_std")
DEPTH = 6  # of what is looked through


def content(path: str | Path) -> dict[str, Any]:
    """Load the content of a file to the CPU. FileNotFoundError or ValueError says what is wrong and what to do."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No weights at {path}; expected a file of torch.save, of safetensors or an .npz.")
    if path.suffix == ".safetensors":
        try:
            from safetensors.torch import load_file
        except ImportError as error:
            raise ValueError(f"{path} needs a package more: pip install safetensors.") from error
        return load_file(path)
    if path.suffix == ".npz":
        return _arrays(path)
    with path.open("rb") as file:
        start = file.read(4)
    if start[:2] not in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):  # an archive, or a pickle
        raise ValueError(f"{path} holds no weights; expected a file of torch.save, of safetensors or an .npz.")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickles and archives fail in many ways
        reason = next((line for line in str(error).splitlines() if "GLOBAL" in line or "global" in line), str(error))
        raise ValueError(
            f"{path} cannot be loaded as tensors, numbers and strings alone ({' '.join(reason.split())[:160]}). "
            "If it is whole and you trust who wrote it, take its weights out where its own code is installed: "
            f"x = torch.load('{path.name}', weights_only=False); torch.save(x['state_dict'], 'weights.pt')."
        ) from error
    if not isinstance(loaded, Mapping):
        raise ValueError(f"Expected a mapping of names to tensors in {path}; got {type(loaded).__name__}.")
    return dict(loaded)


def _arrays(path: Path) -> dict[str, Tensor]:
    """The arrays of an .npz, but for single numbers, whole numbers and words, which are the network's options."""
    try:
        with refusing_damage(path), np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as NumPy's .npz ({error}); it may be truncated.") from error
    weights = {name: array for name, array in arrays.items() if array.ndim and array.dtype.kind == "f"}
    return {name: torch.from_numpy(array) for name, array in weights.items()}


def state_dicts(checkpoint: Mapping[str, Any]) -> list[dict[str, Tensor]]:
    """Find every mapping of names to tensors in it, without the prefixes that wrappers add to all names."""
    dicts = []
    for mapping in _mappings(checkpoint):
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
    prefixes = {name.partition(".")[0] for name in tensors}
    if len(prefixes) == 1 and prefixes <= set(WRAPPERS) and all("." in name for name in tensors):
        return _bare({name.partition(".")[2]: value for name, value in tensors.items()})
    return tensors


Constants = dict[str, dict[str, Any]]  # kind -> channel -> number, or for `changes` {timesteps: number}


def constants(checkpoint: Mapping[str, Any], world: World) -> Constants:
    """Find the means and standard deviations of the World's channels in a file; empty if it has none."""
    for mapping in _mappings(checkpoint):
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
            with refusing_damage(path):
                stored = np.load(path, allow_pickle=False)
                arrays = dict(stored) if isinstance(stored, Mapping) else stored
        except (OSError, ValueError) as error:
            raise ValueError(f"scales.{kind}: {path} cannot be read as NumPy's .npz or .npy ({error}).") from error
        numbers = _by_channel(arrays, world)
        if steps is None:
            result[kind] = numbers
        else:
            changes = result.setdefault("changes", {})
            for channel, number in numbers.items():
                changes[channel] = {**changes.get(channel, {}), steps: number}
        if not numbers:
            holds = ", ".join(list(arrays)[:3]) if isinstance(arrays, Mapping) else f"shape {arrays.shape}"
            raise ValueError(
                f"scales.{kind}: expected numbers by channel, such as {world.prognostic.channels[0]}, or "
                f"{world.prognostic.size} in their order; {path} holds {holds}."
            )
    return result


def _interval(kind: str, world: World) -> int | None:
    """The timesteps of an interval that a kind of constants names, such as tendency_std_12h; None: it names none."""
    match = re.fullmatch(r"tendency_std_(\d+)h", kind)
    steps = float(match[1]) / hours_of(world.timestep) if match else 0.0
    return int(steps) if steps > 1 and steps == int(steps) else None


def _by_channel(node: Any, world: World) -> dict[str, float]:
    """Map channels to numbers: those that a mapping names, or all prognostic ones if an array has as many."""
    if isinstance(node, Mapping):
        sets = (world.prognostic, world.diagnostic, world.forcing, world.static)
        names = [channel for variables in sets for channel in variables.channels if channel in node]
        values = {name: np.asarray(node[name], dtype=np.float64) for name in names}
        return {name: float(value.reshape(())) for name, value in values.items() if value.size == 1}
    channels = world.prognostic.channels
    numbers = (
        np.asarray(node, dtype=np.float64).ravel() if isinstance(node, np.ndarray | Tensor | list) else np.empty(0)
    )
    return dict(zip(channels, map(float, numbers), strict=True)) if numbers.size == len(channels) else {}


def load_weights(path: str | None) -> dict[str, Any] | None:
    """Read the file that `from_checkpoint` names: published weights, a checkpoint of emul, or a run folder."""
    if path is None:
        return None
    file = Path(path)
    if file.is_dir():
        file = next((f for name in ("best", "last") if (f := file / "checkpoints" / f"{name}.ckpt").is_file()), file)
        return load(file)
    return content(file)


def published_scales(
    sources: str | Mapping[str, str] | None, held: Mapping[str, Any] | None, world: World, transfer_scales: str = "old"
) -> Constants:
    """Scales that need not be measured: of files by kind, else those that come with the weights in `held`.

    sources: files by kind. transfer_scales: which are taken of a run of ours, see
    `emulators.training.transfer.Transfer`; of another timestep those of changes are not.
    """
    if isinstance(sources, Mapping):
        return constants_of_files({str(kind): str(path) for kind, path in sources.items()}, world)
    if held is None or sources is not None:
        return {}
    if "emul" not in held:
        return constants(held, world)
    if transfer_scales != "old":
        return {}
    scales, timestep = (held["emul"]["world"][key] for key in ("scales", "timestep"))
    kinds = (*KINDS, "changes") if timestep == world.plain()["timestep"] else KINDS[:2]
    return {kind: {name: v[i] for name, v in scales.items() if len(v) > i} for i, kind in enumerate(kinds)}
