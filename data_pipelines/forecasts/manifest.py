"""Read and write manifest.json of a forecast: its settings, checksums and verdict.

verdict `verified`: every check passed and the forecast was scored against the truth at each valid time.
verdict `unverified`: every check passed, the truth was not at hand (or not for all valid times).
verdict `failed`: unfinished, or a check failed; `reasons` say which. The manifest says so from the first moment on, so
that what a kill or a full disk leaves behind is never taken for whole.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data_pipelines.files.atomic import sha256, sole_maker, write_file
from data_pipelines.files.fingerprints import data_differences, read_json, write_json
from data_pipelines.files.identity import differences, listed, recipe_of, revision, versions

NAME = "manifest.json"
CHECKSUMS = "checksums.sha256"
FORMAT = 1
FILES = ("forecast.zarr", "forecast.nc")


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a forecast folder; FileNotFoundError or ValueError where there is none to trust."""
    path = Path(folder) / NAME
    if not path.is_file():
        raise FileNotFoundError(f"No {NAME} in {folder}; expected a folder that `emul forecast` wrote.")
    try:
        manifest = read_json(path)
    except ValueError as error:
        raise ValueError(f"{error} Remove the folder and make the forecast again.") from error
    if manifest.get("format") != FORMAT or "verdict" not in manifest:
        raise ValueError(f"Expected a manifest of format {FORMAT} in {path}; got something else.")
    if not isinstance(manifest.get("settings", {}), dict):
        raise ValueError(f"Expected a mapping of settings in {path}; got {type(manifest['settings']).__name__}.")
    return manifest


def found_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a forecast folder; empty where there is none of `emul forecast`. ValueError if it is damaged."""
    path = Path(folder) / NAME
    manifest = read_json(path) if path.is_file() else {}
    return manifest if manifest.get("format") == FORMAT and "verdict" in manifest else {}


def open_manifest(folder: Path, settings: Mapping[str, Any], card: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of a forecast to be made or taken up again, already on disk, verdict `failed` until it is done.

    settings: what the numbers depend on; ValueError where those of an earlier attempt differ. card: what is to be
    known of the forecast besides (config, run, inits).
    """
    settings = json.loads(json.dumps(settings))
    if (folder / NAME).exists():
        manifest = read_manifest(folder)
        refuse_other_settings(manifest["settings"], settings, folder)
        return manifest
    if any((folder / name).exists() for name in FILES):
        raise ValueError(f"{folder} holds a forecast without {NAME}; remove it or choose another name.")
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {
        "format": FORMAT,
        "verdict": "failed",
        "reasons": ["unfinished: no batch of initial times is written yet"],
        "finished": False,
        "created": now(),
        **card,
        "revision": revision(),
        "versions": versions(),
        "settings": settings,
    }
    write_manifest(folder, manifest)
    return manifest


def refuse_other_settings(before: Mapping[str, Any], after: Mapping[str, Any], folder: Path) -> None:
    """Raise ValueError naming the settings that differ between the forecast begun in `folder` and this one."""
    if changes := other_settings(before, after):
        raise ValueError(
            f"{folder} holds a forecast made with other settings ({listed(changes)}); choose another name, say "
            "resume=anew to make this one in its place, or remove the folder."
        )


def other_settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """List what differs between the settings of two forecasts; where the data lie, and what was not noted, does not."""
    excluded = {"data", "fingerprint", *(() if isinstance(before.get("run_config"), Mapping) else ("run_config",))}
    changes = differences(
        *({key: value for key, value in settings.items() if key not in excluded} for settings in (before, after))
    )
    data = (recipe_of(settings.get("data") or {}) for settings in (before, after))
    changes += differences(*({"data": settings} for settings in data))
    replaced = data_differences(before.get("fingerprint"), after.get("fingerprint") or {})
    return changes + [f"the data have {text}" for text in replaced]


def discard_other(folder: Path, settings: Mapping[str, Any]) -> None:
    """Remove the forecast in `folder` if it was made with other settings, or if its manifest cannot be read."""
    if not folder.is_dir():
        return
    with sole_maker(folder):
        try:
            changes = other_settings(read_manifest(folder)["settings"], json.loads(json.dumps(settings)))
        except (FileNotFoundError, ValueError):
            changes = ["it has no manifest"] if any((folder / name).exists() for name in FILES) else []
        if changes:
            shutil.rmtree(folder)


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Replace the manifest of `folder`, whole or not at all, with a checksum of itself."""
    write_json(folder / NAME, manifest)


def write_checksums(folder: Path, checksums: Mapping[str, str]) -> dict[str, Any]:
    """Write checksums.sha256 (as `sha256sum --check` reads it); its entry in the manifest."""
    content = "".join(f"{checksum}  {name}\n" for name, checksum in sorted(checksums.items())).encode()
    write_file(folder / CHECKSUMS, content)
    return {"file": CHECKSUMS, "files": len(checksums), "sha256": hashlib.sha256(content).hexdigest()}


def lost_files(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Files of a finished forecast that are gone, by the list of its checksums; they are not read."""
    try:
        lines = (folder / manifest["checksums"]["file"]).read_text(encoding="utf-8").splitlines()
    except (OSError, KeyError):
        return [CHECKSUMS]
    names = [line.partition("  ")[2] for line in lines]
    return [name for name in names if not (folder / name).is_file()]


def verify_checksums(folder: str | Path) -> list[str]:
    """Check the files of a finished forecast against their checksums; one sentence for each fault."""
    folder = Path(folder)
    manifest = read_manifest(folder)
    if "checksums" not in manifest:
        return [f"{folder} is not finished: {'; '.join(manifest['reasons'])}"]
    listed = folder / manifest["checksums"]["file"]
    if not listed.is_file() or sha256(listed) != manifest["checksums"]["sha256"]:
        return [f"{listed} is missing or was changed after the forecast was made"]
    faults, names = [], set()
    for line in listed.read_text(encoding="utf-8").splitlines():
        expected, name = line.split("  ", 1)
        names.add(name)
        path = folder / name
        if not path.is_file():
            faults.append(f"{name} is missing")
        elif sha256(path) != expected:
            faults.append(f"{name} was changed or truncated after the forecast was made")
    store = folder / "forecast.zarr"
    for path in store.rglob("*") if store.is_dir() else ():
        if path.is_file() and str(path.relative_to(folder)) not in names:
            faults.append(f"{path.relative_to(folder)} was added after the forecast was made")
    return faults


def verdict(faults: Sequence[str], pairs: int, of: int) -> tuple[str, list[str]]:
    """(verdict, reasons) from the faults found and the number of (initial time, lead) pairs that could be scored."""
    if faults:
        return "failed", list(faults)
    if pairs == of:
        return "verified", []
    return "unverified", [f"truth was at hand for {pairs} of {of} pairs of initial time and lead"]


def now() -> str:
    """The time in UTC to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
