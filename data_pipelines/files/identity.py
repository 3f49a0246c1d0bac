"""Identity of kept work: a canonical digest of what made it, what would differ now, its name, and where its data lie.

A name says nothing of what lies under it. What is kept (checkpoints, forecasts, stores, statistics) records what made
it as plain values: settings, digests of weights, the fingerprint of its data (`data_pipelines.files.fingerprints`).
Whoever takes it up again lists the `differences` to what would make it now, and goes on where there are none.
"""

from __future__ import annotations

import copy
import glob
import hashlib
import json
import math
import os
import platform
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


PLACES = ("path", "folder", "geography")  # keys of a data source that say where its files lie, not what they hold
HANDLING = (*PLACES, "storage_options", "cache_gigabytes", "device", "compile", "splits", "guard")
LONGEST = 200  # bytes of one part of a name: file systems take 255, and temporary files add to it
EXPECTED = "a name such as baseline or group/baseline"


def canonical(value: Any) -> Any:
    """Return a value as JSON holds it: mappings sorted by key, whole floats as integers, times and paths as text."""
    if isinstance(value, Mapping):
        return {str(key): canonical(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, Set):
        return sorted(map(canonical, value), key=str)
    if hasattr(value, "dtype"):  # of NumPy
        return canonical(value.astype(str).tolist() if value.dtype.kind in "mM" else value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [canonical(item) for item in value]
    if isinstance(value, float) and not isinstance(value, bool):
        return str(value) if not math.isfinite(value) else int(value) if value.is_integer() else value
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def digest(value: Any) -> str:
    """Return the sha256 of the canonical form of a value."""
    return hashlib.sha256(json.dumps(canonical(value), sort_keys=True).encode()).hexdigest()


def weights_digest(weights: Mapping[str, torch.Tensor]) -> str:
    """Return the sha256 of the names and bytes of all tensors, in order of their names."""
    import torch

    total = hashlib.sha256()
    for name in sorted(weights):
        total.update(name.encode())
        total.update(weights[name].detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def file_stamp(path: Path) -> tuple[int, int]:
    """Return the size and the modification time of a file: where both are as noted, its content need not be read."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of nested mappings; an empty mapping is a value."""
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from leaves(value, f"{prefix}{key}.")
    else:
        yield prefix[:-1], node


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """List what differs between two nested mappings, a text for each key: `key was a, is b`."""
    old, new = (dict(leaves(canonical(mapping))) for mapping in (before, after))
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key) or (key in old) != (key in new)]
    return [f"{key} was {short(old.get(key, 'not there'))}, is {short(new.get(key, 'gone'))}" for key in keys]


def listed(some: Sequence[str], most: int = 5) -> str:
    """Join differences for a message, at most so many of them."""
    return "; ".join([*some[:most], *([f"and {len(some) - most} more"] if len(some) > most else [])])


def short(value: Any, limit: int = 120) -> str:
    """Return a value as text for a message."""
    text = value if isinstance(value, str) else json.dumps(value)
    if re.fullmatch("[0-9a-f]{64}", text):  # a digest
        return text[:12]
    return text if len(text) <= limit else f"{text[: limit // 2]} ... {text[-limit // 2 :]}"


def recipe_of(settings: Any) -> Any:
    """Return the settings of a data source without those that say where its files lie and how they are fetched."""
    if isinstance(settings, Mapping):
        recipe = {key: recipe_of(value) for key, value in settings.items() if key not in HANDLING}
        return {key: value for key, value in recipe.items() if value is not None}
    return [recipe_of(item) for item in settings] if isinstance(settings, list | tuple) else settings


PACKAGES = ("emul", "torch", "numpy", "pytorch-lightning", "hydra-core", "omegaconf", "xarray", "zarr", "netCDF4")


def revision() -> str:
    """Return the git commit of the code, with `-dirty` if files differ from it; `unknown` outside a checkout.

    The repository is not locked meanwhile: a process that is killed here would leave its lock.
    """
    folder = Path(__file__).resolve().parent

    def said(*words: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(folder), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        commit = said("rev-parse", "HEAD")
        return commit + "-dirty" * bool(said("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a result depends on."""
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    return installed


# Options that may change when a training is resumed: those that do not affect the weights,
FREE = {
    "name", "output", "config_dir", "places", "resume", "forecast", "eval", "writer", "perturbation", "metric",
    "logger",
    "data.cache_gigabytes", "training.checkpoint_every", "training.checkpoint_minutes", "training.log_every",
    "training.keep", "training.broken",
    "hardware.slurm", "loader.ahead",
}  # fmt: skip
# those that may differ from the step on at which a training branches off another,
BRANCHED = {"schedule", "objective", "loss", "training.steps", "training.flops", "continue_from"}
# and where it runs, which changes the last digits; but not its precision.
ROUNDED = {"hardware", "training.accumulate"}
FIXED = {"hardware.precision"}


def training_differences(
    old: Mapping[str, Any], new: Mapping[str, Any], resolved: Mapping[str, Any], same_data: bool
) -> tuple[list[str], list[str]]:
    """List what differs between the settings of two trainings: what changes the weights, and what their last digits.

    old, new: by dotted key. resolved: the new ones resolved, to which old ones may be equal as well. same_data: equal
    data may lie elsewhere.
    """
    keys = [
        key
        for key in {**old, **new}
        if canonical(old.get(key)) not in (canonical(new.get(key)), canonical(resolved.get(key)))
    ]
    keys = [key for key in keys if not any(other.startswith(f"{key}.") for other in keys)]  # its parts tell it all
    keys = [key for key in keys if not (same_data and key.startswith("data.") and key.rpartition(".")[2] in PLACES)]
    rounded = [key for key in keys if lies_in(key, ROUNDED) and not lies_in(key, FREE | FIXED)]
    differing = [key for key in keys if not lies_in(key, FREE) and key not in rounded]

    def texts(some: list[str]) -> list[str]:
        return [f"{key} was {old.get(key, 'not there')}, is {new.get(key, 'gone')}" for key in some]

    return texts(differing), texts(rounded)


def training_identity(settings: Any) -> str:
    """A digest of all that a training depends on but its data: the same for runs that differ in name or place only.

    settings: nested plain values.
    """
    entries = leaves(settings)
    essential = {key: value for key, value in entries if not lies_in(key, FREE) and not lies_in(key, ROUNDED - FIXED)}
    return digest({key: value for key, value in essential.items() if key.rpartition(".")[2] not in PLACES})


def lies_in(key: str, keys: set[str]) -> bool:
    """Whether a dotted key is one of `keys` or lies below one."""
    return any(f"{key}.".startswith(f"{prefix}.") for prefix in keys)


def name_fault(name: Any) -> str:
    """Return what is wrong with the name of a run; empty for a good one."""
    if not isinstance(name, str):
        return f"{'nothing' if name is None else name}, which is no text"
    if not name.isprintable():
        return f"{name!r}, with a line break or another character that cannot be seen"
    if not name.strip():
        return "an empty name"
    if name.startswith("/"):
        return f"the absolute path {name}; folders of results lie below output=..."
    parts = name.split("/")
    if any(not part or part != part.strip() for part in parts):
        return f"'{name}', with an empty part or spaces at an end"
    if any(part[0] in ".~-" for part in parts) or "\\" in name:
        return f"'{name}', with a backslash or a part that begins with . ~ or -"
    if any(len(part.encode()) > LONGEST for part in parts):
        return f"a part of more than {LONGEST} bytes, {name[:40]}..."
    return ""


def refuse_name(name: Any, key: str = "name") -> str:
    """Return a name that may stand for a folder of results; raise ValueError for one that may not."""
    if fault := name_fault(name):
        raise ValueError(f"{key}: expected {EXPECTED}; got {fault}.")
    return str(name)


def name_within(folder: Path, root: Path) -> str:
    """Return the name of a result whose folder lies in `root`; empty for one that lies elsewhere."""
    folder, root = folder.resolve(), root.resolve()
    return folder.relative_to(root).as_posix() if root in folder.parents else ""


def absolute_places(data: Any) -> dict[str, Any]:
    """Return the absolute paths of a data source whose paths are relative, by dotted key."""
    return {key: _mapped(value, _absolute) for key, value in _places(data) if _mapped(value, _absolute) != value}


def located(data: Any, places: Mapping[str, Any], run: Path, trained_in: Any) -> Any:
    """Return the settings of a run's data with paths that exist here.

    places: as `absolute_places` gave them when the run was trained, in the folder `trained_in`. In order are tried:
    the absolute path; the same place relative to the run folder, where both were moved; the path as it was typed.
    """
    settings = copy.deepcopy(dict(data))
    for key, typed in _places(data):
        absolute = places[key] if _is_path(places.get(key)) else typed
        moved = absolute
        if isinstance(trained_in, str):
            moved = _mapped(absolute, lambda text: _beside(text, Path(trained_in), run))
        place = next((candidate for candidate in (absolute, moved, typed) if _exists(candidate)), typed)
        *parents, last = key.split(".")
        node = settings
        for name in parents:
            node = node[name]
        node[last] = place
    return settings


def _beside(text: str, before: Path, now: Path) -> str:
    """Return where a path lies that kept its place relative to a folder that moved."""
    if "://" in text or not os.path.isabs(text):
        return text
    return os.path.normpath(now.resolve() / os.path.relpath(text, before))


def _places(node: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Return (dotted key, path or list of paths) of all places in the settings of a data source."""
    if not isinstance(node, Mapping):
        return []
    entries = [(f"{prefix}{key}", value) for key, value in node.items() if key in PLACES and _is_path(value)]
    return entries + [place for key, value in node.items() for place in _places(value, f"{prefix}{key}.")]


def _is_path(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value))


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    return [change(item) for item in value] if isinstance(value, list) else change(value)


def _absolute(text: str) -> str:
    """Return an absolute path, or pattern, for one that leads somewhere from here."""
    path = os.path.expanduser(text)
    return text if "://" in text or os.path.isabs(path) or not _exists(text) else os.path.abspath(path)


def _exists(value: Any) -> bool:
    """Return whether a path, a pattern, or each of a list, leads to something; addresses always do."""
    if isinstance(value, list):
        return all(map(_exists, value))
    path = os.path.expanduser(value)
    return "://" in value or os.path.exists(path) or bool(glob.has_magic(path) and glob.glob(path, recursive=True))
