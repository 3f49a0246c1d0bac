"""Compare everything that lies at a path with its checksums: runs, forecasts, scores, stores and caches."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_pipelines.files.netcdf import is_sealed_netcdf, refuse_damaged_netcdf
from data_pipelines.files.seals import (
    CRC_BYTES,
    is_sealed_json,
    read_json,
    refuse_damage,
    refuse_damaged_archive,
    sealed_root,
    store_faults,
)
from data_pipelines.forecasts.manifest import NAME, found_manifest, verify_checksums
from data_pipelines.packing.copying import CHECKSUMS, damaged_files
from data_pipelines.reading.packed_store import PackedStore

METADATA = ("zarr.json", ".zgroup", ".zarray")
ARCHIVES = (".ckpt", ".pt", ".npz")
HASH = re.compile(r"[0-9a-f]{64}")
LEFT = re.compile(r"\..*\.partial")


@dataclass(frozen=True)
class Verified:
    """Report on one thing. kind: in words. checked: whether it has checksums. faults: a sentence each."""

    path: Path
    kind: str
    checked: bool = True
    faults: tuple[str, ...] = ()


def verified(path: str | Path) -> Iterator[Verified]:
    """Yield a report on each thing at or below `path` that can have checksums; FileNotFoundError where nothing is."""
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"Nothing at {path}.")
    yield from _of_folder(path) if path.is_dir() else _of_file(path)


def _of_folder(folder: Path) -> Iterator[Verified]:
    if LEFT.fullmatch(folder.name):
        yield Verified(folder, "unfinished, left by an interruption", checked=False)
    elif any((folder / name).is_file() for name in METADATA):
        yield _of_store(folder)
    elif (folder / NAME).is_file():
        yield _of_forecast(folder)
    else:
        for path in sorted(folder.iterdir()):
            yield from _of_folder(path) if path.is_dir() else _of_file(path)


def _of_forecast(folder: Path) -> Verified:
    try:
        if not found_manifest(folder):
            return Verified(folder, f"folder with a {NAME} of another program", checked=False)
        return Verified(folder, "forecast", faults=tuple(verify_checksums(folder)))
    except (ValueError, OSError) as error:
        return Verified(folder, "forecast", faults=(str(error),))


def _of_store(folder: Path) -> Verified:
    try:
        root = sealed_root(folder)
        if _is_packed(folder):
            return Verified(folder, "packed store", faults=tuple(PackedStore(folder).faults()))
        faults = store_faults(folder) if root is not None else None
        damaged = damaged_files(folder)
    except (ValueError, OSError) as error:
        return Verified(folder, "store", faults=(str(error),))
    if faults is None and damaged is None:
        return Verified(folder, "store of another program", checked=False)
    known = {fault.split(":")[0].split(" ")[0] for fault in faults or ()}
    more = [f"{name} differs from {CHECKSUMS}" for name in damaged or () if name not in known]
    return Verified(folder, "store", faults=(*(faults or ()), *more))


def _is_packed(folder: Path) -> bool:
    try:
        return "packed_format" in json.loads((folder / "zarr.json").read_bytes())["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _of_file(path: Path) -> Iterator[Verified]:
    """Yield a report on a file of a kind that can have a checksum; nothing on others."""
    try:
        if path.suffix in ARCHIVES:
            kind, checked = "archive", True
            refuse_damaged_archive(path)
        elif path.suffix == ".nc":
            kind, checked = "NetCDF", True
            checked = is_sealed_netcdf(path)
            refuse_damaged_netcdf(path)
        elif path.suffix == ".json":
            kind, checked = "JSON", True
            checked = is_sealed_json(path)
            if checked:
                read_json(path)
        elif HASH.fullmatch(path.name):
            kind, checked = "cached chunk", True
            content = path.read_bytes()
            refuse_damage(content[:-CRC_BYTES], content[-CRC_BYTES:])
        else:
            return
    except (ValueError, OSError) as error:
        yield Verified(path, kind, faults=(str(error),))
        return
    yield Verified(path, kind, checked)
