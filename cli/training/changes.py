"""What differs between a training that was begun and the configuration and data that it would go on with."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from data_pipelines.files.fingerprints import data_differences, fingerprint, is_rewritten, written_text
from data_pipelines.files.identity import PLACES, canonical, digest, leaves, listed
from emul.config.build import build, resolve_target
from emul.jobs.processes import rank
from emul.terminal import console
from emul.trust.secrets import saved_plain

# Options that may change when a training is resumed: those that do not affect the weights,
FREE = {
    "name", "output", "config_dir", "places", "resume", "forecast", "eval", "writer", "metric", "logger",
    "data.cache_gigabytes", "training.checkpoint_every", "training.checkpoint_minutes", "training.log_every",
    "training.broken",
    "hardware.slurm", "loader.ahead",
}  # fmt: skip


# and where it runs, which changes the last digits; but not its precision.
ROUNDED = {"hardware", "training.accumulate"}
FIXED = {"hardware.precision"}


def changes(
    before: DictConfig, now: DictConfig, target: Path, data: Mapping[str, Any] | None, present: Mapping[str, Any]
) -> list[str]:
    """List what differs between two configurations and their data, as far as it matters to the weights.

    data, present: the fingerprints of their data. Equal data may lie elsewhere.
    """
    replaced = data_differences(data, present)
    same = bool(data) and "sampled" in present and not replaced
    if same and is_rewritten(data, present) and rank() == 0:
        console.warn(
            f"The data of {target} were written again ({written_text(present)}); samples of them are the same."
        )
    old, new = (dict(leaves(saved_plain(config))) for config in (before, now))  # nothing of `before` is resolved
    known = dict(leaves(OmegaConf.to_container(now, resolve=True)))
    old = _defaults(now, new.keys() - old.keys()) | old  # options that came after this training began
    keys = [
        key
        for key in {**old, **new}
        if canonical(old.get(key)) not in (canonical(new.get(key)), canonical(known.get(key)))
    ]
    keys = [key for key in keys if not any(other.startswith(f"{key}.") for other in keys)]  # its parts tell it all
    keys = [key for key in keys if not (same and key.startswith("data.") and key.rpartition(".")[2] in PLACES)]
    rounded = [key for key in keys if _lies_in(key, ROUNDED) and not _lies_in(key, FREE | FIXED)]

    def texts(some: list[str]) -> list[str]:
        return [f"{key} was {old.get(key, 'not there')}, is {new.get(key, 'gone')}" for key in some]

    if rounded and rank() == 0:
        elsewhere = listed(texts(rounded))
        console.warn(f"{target} goes on elsewhere ({elsewhere}): the same training, but not to the last digit.")
    return [
        *texts([key for key in keys if not _lies_in(key, FREE) and key not in rounded]),
        *(f"the data have {text}" for text in replaced),
    ]


def training_identity(config: DictConfig) -> str:
    """A digest of all that a training depends on but its data: the same for runs that differ in name or place only."""
    parts = leaves(saved_plain(config))
    kept = {key: value for key, value in parts if not _lies_in(key, FREE) and not _lies_in(key, ROUNDED - FIXED)}
    return digest({key: value for key, value in kept.items() if key.rpartition(".")[2] not in PLACES})


def data_now(config: DictConfig) -> dict[str, Any]:
    """The fingerprint of the data that a configuration names, without opening them; empty where there are none."""
    try:
        return fingerprint(build(config.data).path)
    except Exception:  # a source may refuse in any way, and tells so when the data are opened
        return {}


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
