"""One flipped bit in each kind of file that is kept: its reader refuses it in a sentence, or returns the same."""

from __future__ import annotations

import collections
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np


def readers(home: Any) -> Iterator[tuple[str, list[Path], Callable[[], Any]]]:
    """(kind, its files, what reads them and returns plain values) of everything that is kept."""
    from data_pipelines.files import checkpoints
    from data_pipelines.files.batch_records import BatchRecords
    from data_pipelines.files.fingerprints import read_json
    from data_pipelines.files.netcdf import read_groups
    from data_pipelines.forecasts.manifest import read_manifest, verify_checksums
    from data_pipelines.opening.datasets import open_dataset
    from data_pipelines.opening.forecasts import open_forecast
    from data_pipelines.reading.packed_store import PackedStore
    from data_pipelines.reading.packed_view import packed_dataset
    from data_pipelines.simulators.stores import open_store

    def of_files(base: Path, pattern: str) -> list[Path]:
        return [path for path in sorted(base.glob(pattern)) if path.is_file()]

    def values(dataset: Any) -> Any:
        loaded = dataset.load()
        return {str(n): (v.dims, v.values.tobytes(), str(v.attrs)) for n, v in loaded.variables.items()}

    for name in ("last", "best"):
        path = home.run / "checkpoints" / f"{name}.ckpt"
        yield f"{name}.ckpt", [path], lambda path=path: repr(checkpoints.load(path))
    yield "result.json", [home.run / "result.json"], lambda: read_json(home.run / "result.json")
    yield "manifest.json", [home.fc / "manifest.json"], lambda: read_manifest(home.fc)
    yield "checksums.sha256", [home.fc / "checksums.sha256"], lambda: refused(verify_checksums(home.fc))
    cache = next((home.folder / "cache" / "emul").glob("planet-*.zarr"))
    names = [path.name for path in cache.iterdir() if path.is_dir()]
    data = [name for name in names if name not in ("time", "level", "latitude", "longitude")]
    stores: dict[str, tuple[Path, Callable[[], Any]]] = {
        "forecast": (home.fc / "forecast.zarr", lambda: values(open_forecast(home.fc / "forecast.zarr"))),
        "planet": (cache, lambda: values(open_store(cache, data, "Planet"))),
        "climatology": (home.folder / "climatology.zarr", lambda: values(open_any(home.folder / "climatology.zarr"))),
        "copy": (home.folder / "coarse.zarr", lambda: values(open_dataset(home.folder / "coarse.zarr"))),
        "packed": (home.packed, lambda: values(packed_dataset(PackedStore(home.packed)))),
    }
    for name, (path, read) in stores.items():
        coordinates = [f for c in ("time", "level", "latitude", "longitude") for f in of_files(path, f"{c}/c/**/*")]
        coordinates += [f for c in ("time", "prediction_timedelta", "level") for f in of_files(path, f"{c}/c*")]
        chunks = [f for f in of_files(path, "**/*") if f.name != "zarr.json" and f not in coordinates]
        chunks = [f for f in chunks if f.suffix != ".json"]
        yield f"{name}: fields", chunks, read
        yield f"{name}: coordinates", coordinates, read
        yield f"{name}: metadata", of_files(path, "**/zarr.json"), read
    scores = home.folder / "eval" / "x"
    for path in (*of_files(scores, "*.nc"), home.folder / "statistics.nc", *of_files(home.fc, "*.nc")):
        yield path.name, [path], lambda path=path: {n: values(d) for n, d in read_groups(path).items()}
    records = BatchRecords(home.folder / "records")
    records.write(0, {"sum": np.arange(500.0)}, {})
    yield "batch record", of_files(records.folder, "*.npz"), lambda: refused(
        [] if (found := records.read(0)) else ["not taken"]
    ) or found[0]["sum"].tobytes()  # fmt: skip


def open_any(path: Path) -> Any:
    import xarray as xr

    from data_pipelines.reading.zarr_chunks import with_direct_reads

    return with_direct_reads(xr.open_zarr(path, chunks=None, decode_cf=False), path)


def refused(faults: list[str]) -> None:
    if faults:
        raise ValueError(faults[0])


def flips(home: Any, count: int, seed: int) -> list[tuple[str, str, int, int, list[str]]]:
    """Flip one bit in so many places of each kind of file: noticed in a sentence, or harmless."""
    from data_pipelines.conventions.suggestions import sentence
    from data_pipelines.reading import threads

    threads.WAITS = ()
    rows: list[tuple[str, str, int, int, list[str]]] = []
    for kind, files, read in readers(home):
        chance, met, faults = random.Random(seed), collections.Counter[str](), []
        assert files, kind
        sound = read()
        for _ in range(count):
            path = chance.choice(files)
            whole = path.read_bytes()
            content, place, bit = bytearray(whole), chance.randrange(len(whole)), chance.randrange(8)
            content[place] ^= 1 << bit
            path.write_bytes(content)
            try:
                same = read() == sound
                met["harmless" if same else "wrong"] += 1
                if not same:
                    faults.append(f"{path.name}, byte {place}, bit {bit}: another result, without a word")
            except Exception as error:
                met["noticed"] += 1
                if sentence(error) is None:
                    faults.append(f"{path.name}, byte {place}, bit {bit}: {type(error).__name__}: {error}"[:300])
            path.write_bytes(whole)
        rows.append(("flips", f"{kind} ({met['noticed']} noticed)", count, count - len(faults), faults))
    return rows
