"""Copies of datasets as Zarr stores, block of times by block of times: resumable, whole or not there, with checksums.

A copy grows in `.<name>.partial` beside its place. Every block is written, then noted; a copy that was stopped goes on
at the first block that is not noted. At the end the sha256 of every file is written to `checksums.json` in the store,
and the folder takes its name.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import xarray as xr
from zarr.codecs import Crc32cCodec, ZstdCodec

from data_pipelines.conventions.attributes import origin_of
from data_pipelines.files.atomic import atomic_folder, remove_unfinished, sha256, sole_maker, write_file
from data_pipelines.files.fingerprints import every_chunk, read_json, seal_store, write_json
from data_pipelines.reading.threads import WAITS, DamagedData

CHECKSUMS, PROGRESS = "checksums.json", "progress.json"
CHUNK_BYTES, BLOCK_BYTES = 16e6, 128e6
Report = Callable[[str, float], None]


def copy_to_zarr(dataset: xr.Dataset, path: Path, recipe: dict[str, Any], report: Report | None = None) -> Path:
    """Copy a canonical dataset to the Zarr store `path`, or continue or keep the same copy that exists there.

    recipe: settings that define the copy, strings and numbers; ValueError if a copy of another exists there.
    """
    path = Path(path)
    mark = _fingerprint(dataset, recipe)
    with sole_maker(path):
        return _copied(dataset, path, recipe, mark, report)


def _copied(dataset: xr.Dataset, path: Path, recipe: dict[str, Any], mark: str, report: Report | None) -> Path:
    """Copy while no other process copies to the same path."""
    if path.exists():
        _refuse_another(path, mark)
        return path
    _refuse_full_disk(path, dataset)
    with atomic_folder(path, resumable=True) as unfinished:
        done = _taken_up(unfinished, mark)
        if done is None:
            _lay_out(dataset, unfinished, mark, recipe)
            done = 0
        _write_blocks(dataset, unfinished, mark, done, report)
        _add_checksums(unfinished, mark)
    return path


def _write_blocks(dataset: xr.Dataset, partial: Path, mark: str, done: int, report: Report | None) -> None:
    """Write the blocks that follow the first `done`, noting each."""
    blocks = list(_blocks(dataset))
    start = time.monotonic()
    for number, block in enumerate(blocks):
        if number < done:
            continue
        _write(dataset, partial, block)
        _note(partial, mark, number + 1)
        if report:
            megabytes = _bytes(dataset) / len(blocks) * (number + 1 - done) / 1e6
            report(f"{megabytes / max(time.monotonic() - start, 1e-3):.1f} MB/s", (number + 1) / len(blocks))


def _add_checksums(partial: Path, mark: str) -> None:
    """Seal a copy whose blocks are all written, and write the checksums of its files."""
    seal_store(partial)
    (partial / PROGRESS).unlink()
    remove_unfinished(partial)
    files = sorted(p for p in partial.rglob("*") if p.is_file() and p.name != CHECKSUMS)
    sums = {p.relative_to(partial).as_posix(): sha256(p) for p in files}
    write_json(partial / CHECKSUMS, {"recipe": mark, "sha256": sums})


def damaged_files(path: Path) -> list[str] | None:
    """List the files of a copy that were changed or lost; None for a store without checksums.

    ValueError if the file of checksums is damaged.
    """
    path = Path(path)
    if not (path / CHECKSUMS).is_file():
        return None
    sums = read_json(path / CHECKSUMS).get("sha256", {})
    return [name for name, expected in sums.items() if not (path / name).is_file() or sha256(path / name) != expected]


def _fingerprint(dataset: xr.Dataset, recipe: dict[str, Any]) -> str:
    """Return a hash of what must be the same for a copy to continue: recipe, coordinates and variables."""
    hasher = hashlib.sha256(json.dumps(recipe, sort_keys=True, default=str).encode())
    for name in sorted(map(str, dataset.dims)):
        if name in dataset.coords:
            hasher.update(name.encode() + np.ascontiguousarray(dataset[name].values).tobytes())
    hasher.update(",".join(sorted(map(str, dataset.data_vars))).encode())
    return hasher.hexdigest()


def _refuse_another(path: Path, mark: str) -> None:
    try:
        stored = json.loads((path / CHECKSUMS).read_bytes())["recipe"]
    except (OSError, ValueError, KeyError):
        stored = None
    if stored != mark:
        raise ValueError(f"{path} is there already and holds something else; choose another place, or remove it.")


def _refuse_full_disk(path: Path, dataset: xr.Dataset) -> None:
    folder = next(parent for parent in path.resolve().parents if parent.exists())
    free, needed = shutil.disk_usage(folder).free, 0.5 * _bytes(dataset)
    if free < needed:
        raise ValueError(
            f"{folder} has room for {free / 1e9:.3g} GB; the data are {2 * needed / 1e9:.3g} GB before compression. "
            "Choose fewer times, variables or levels, or another place."
        )


def _bytes(dataset: xr.Dataset) -> int:
    return sum(4 * field.size for field in dataset.data_vars.values())


def _taken_up(partial: Path, mark: str) -> int | None:
    """Return the number of finished blocks of the same copy; None if there is none to continue."""
    try:
        progress = json.loads((partial / PROGRESS).read_bytes())
    except (OSError, ValueError):
        shutil.rmtree(partial, ignore_errors=True)
        return None
    if progress["recipe"] != mark:
        raise ValueError(f"{partial} is an unfinished copy of something else; finish it, or remove it.")
    return int(progress["blocks"])


def _note(partial: Path, mark: str, blocks: int) -> None:
    write_file(partial / PROGRESS, json.dumps({"recipe": mark, "blocks": blocks}).encode(), durable=True)


def _times_a_chunk(dataset: xr.Dataset) -> int:
    """Choose the times in a chunk, at least one, so that the largest variable stays below the chunk size."""
    largest = max((4 * f.size / f.sizes["time"] for f in dataset.data_vars.values() if "time" in f.dims), default=1.0)
    return max(1, min(int(CHUNK_BYTES // largest), 8))


def _blocks(dataset: xr.Dataset) -> Iterator[slice]:
    """Yield blocks of whole chunks of times; each is read and written at once."""
    row = sum(4 * f.size / f.sizes["time"] for f in dataset.data_vars.values() if "time" in f.dims)
    if not row:
        return
    chunk, count = _times_a_chunk(dataset), dataset.sizes["time"]
    step = chunk * max(1, int(BLOCK_BYTES // (row * chunk)))
    stored = max((_stored_times(field) for field in dataset.data_vars.values()), default=1)
    if stored > step:  # a block that ends within a chunk of the source would fetch it twice
        step = -(-stored // chunk) * chunk
    yield from (slice(start, min(start + step, count)) for start in range(0, count, step))


def _stored_times(field: xr.DataArray) -> int:
    """Return the times in a chunk of the source."""
    return int(field.encoding.get("preferred_chunks", {}).get("time", 1))


def _lay_out(dataset: xr.Dataset, partial: Path, mark: str, recipe: dict[str, Any]) -> None:
    """Write metadata, coordinates and fields without time of the whole copy."""
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    chunk, packed = _times_a_chunk(dataset), (ZstdCodec(level=0), Crc32cCodec())
    fields: dict[Any, xr.Variable] = {}
    encoding: dict[Any, dict[str, Any]] = {}
    for name, field in dataset.data_vars.items():
        shape = tuple(min(chunk, n) if d == "time" else n for d, n in field.sizes.items())
        if "time" in field.dims:
            values: Any = dask.array.zeros(field.shape, dtype="float32", chunks=shape)
        else:
            values = np.asarray(_read(field, str(name), dataset), dtype="float32")
        fields[name] = xr.Variable(field.dims, values, field.attrs)
        encoding[name] = {"chunks": shape, "_FillValue": np.float32(np.nan), "compressors": packed}
    plain = {k: v for k, v in dataset.attrs.items() if k not in ("origin", "left_out") and v is not None}
    source = "; ".join(f"{name}={value}" for name, value in recipe.items())
    said = {"Conventions": "CF-1.11", "title": "Part of a dataset, copied by emul", **plain, "source": source}
    bare = xr.Dataset(fields, {n: c.variable for n, c in dataset.coords.items()}, said)
    for name in bare.coords:
        bare[name].encoding = {}
        encoding[name] = {"compressors": packed}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with every_chunk():
            bare.to_zarr(partial, compute=False, zarr_format=3, consolidated=False, encoding=encoding)
    _note(partial, mark, 0)


def _write(dataset: xr.Dataset, partial: Path, block: slice) -> None:
    """Write one block of every variable with times."""
    moving = [name for name, field in dataset.data_vars.items() if "time" in field.dims]
    read = {}
    for name in moving:
        field = dataset[name].isel(time=block)
        read[name] = (field.dims, np.asarray(_read(field, str(name), dataset), dtype="float32"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with every_chunk():
            xr.Dataset(read).to_zarr(partial, region={"time": block}, consolidated=False)


def _read(field: xr.DataArray, name: str, dataset: xr.Dataset) -> np.ndarray:
    """Read a field, trying again if that fails; DamagedData names it in the end."""
    for wait in (*WAITS, None):
        try:
            return field.values
        except (ValueError, RuntimeError, OSError, KeyError) as error:
            if wait is None or not _may_pass(origin_of(dataset, "")):
                when = str(field["time"].values[0].astype("datetime64[s]")) if "time" in field.dims else "any time"
                raise DamagedData(origin_of(dataset), name, when, error) from error
            time.sleep(wait)
    raise AssertionError("unreachable")


def _may_pass(origin: str) -> bool:
    """Return whether the data are remote, where a failed connection may recover."""
    return "://" in origin and not origin.startswith(("file://", "memory://"))
