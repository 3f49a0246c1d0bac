"""Write a dataset as a packed store, file by file, in parallel; an interrupted conversion can be continued.

A new store is made in a folder beside its place and moved there whole. Times are added to one that is there behind
those it has, but to no store of several members; readers see them once the metadata, which is replaced last, count
them. Each file is written beside its place and renamed; one that is there with sound checksums is kept.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xarray as xr

from data_pipelines.files.atomic import (
    FULL,
    atomic_file,
    atomic_folder,
    bytes_text,
    could_not_write,
    sole_maker,
    write_file,
)
from data_pipelines.files.fingerprints import crc32c
from data_pipelines.files.identity import differences, listed
from data_pipelines.packing import metadata
from data_pipelines.reading.encodings import Encoding, half_precision
from data_pipelines.reading.fields import Fields
from data_pipelines.reading.packed_store import ABSENT, PackedStore, faults_of_file
from data_pipelines.reading.threads import processors
from emulators.grid import grid_coordinates
from emulators.variables import VariableSet
from emulators.world import World

Report = Callable[[str, float], None]
FILE_BYTES = 128e6  # of a file, by default
SAMPLES = 32  # times from which scales and errors of half precision are found
PAGE = 4096  # chunks begin at multiples of it


@dataclass(frozen=True)
class PackingSettings:
    """Hold the settings: dtype (float32, float16, bfloat16), compression (none, lz4, zstd, or auto for the fastest).

    per_file: times a file, default as many as make 128 MB. workers: threads, default one a processor, at most 4.
    megabytes: memory that fields may take meanwhile.
    """

    dtype: str = "float32"
    compression: str = "none"
    per_file: int | None = None
    workers: int | None = None
    megabytes: float = 512.0

    def __post_init__(self) -> None:
        Encoding(self.dtype, "none" if self.compression == "auto" else self.compression)
        for name, number in (("per_file", self.per_file), ("workers", self.workers)):
            if number is not None and number < 1:
                raise ValueError(f"{name} must be at least 1; got {number}.")

    @property
    def threads(self) -> int:
        return self.workers or min(4, processors())


@dataclass(frozen=True)
class PackingResult:
    """Report what was packed. added, of: times added and in the store. measured: compressions tried, if any.

    errors: of half precision, largest |stored - given| of each channel over its standard deviation, in a sample.
    """

    path: Path
    added: int
    of: int
    measured: Sequence[metadata.Candidate] = ()
    errors: Mapping[str, float] | None = None


def pack(
    dataset: xr.Dataset,
    world: World,
    path: str | Path,
    how: PackingSettings,
    *,
    splits: Mapping[str, Any] | None = None,
    made_from: Mapping[str, Any] | None = None,
    report: Report | None = None,
) -> PackingResult:
    """Write what `world` needs of `dataset` to a new packed store, or add the times that the store there lacks.

    The store keeps the roles of its variables and the splits, for trainings. made_from: identity of the data, with
    their `recipe` and `fingerprint`. ValueError if the store that exists holds other data, or was made otherwise.
    """
    path = Path(path).expanduser()
    wanted = (*world.prognostic, *world.diagnostic, *world.forcing)
    moving = VariableSet(tuple(v for v in wanted if v.name in dataset.data_vars))
    fields = Fields(dataset, moving, world.grid)
    path.parent.mkdir(parents=True, exist_ok=True)
    with sole_maker(path):
        if path.exists():
            _refuse_other_recipe(path, made_from or {})
            return _adding(fields, path, how, report)
        attributes = metadata.attributes(dataset, world, moving, splits, made_from)
        return _anew(fields, world, path, how, attributes, report)


def _anew(
    fields: Fields, world: World, path: Path, how: PackingSettings, said: Mapping[str, Any], report: Report | None
) -> PackingResult:
    """Make a new store in a temporary folder, or continue one."""
    with atomic_folder(path, resumable=True) as folder:
        choices = _made(fields, world, folder, how, said, report)
    measured = [metadata.Candidate(*candidate) for candidate in choices["measured"]]
    return PackingResult(path, fields.times.size, fields.times.size, measured, choices["errors"])


def _made(
    fields: Fields, world: World, folder: Path, how: PackingSettings, said: Mapping[str, Any], report: Report | None
) -> dict[str, Any]:
    """Make the store in `folder`, or complete it; the choices that were made for it."""
    plan = folder / "packing.json"
    requested = {**said, "dtype": how.dtype, "compression": how.compression, "grid": repr(world.grid)}
    requested = json.loads(json.dumps(requested | {"first": str(fields.times[0])}))
    if plan.exists():
        choices = json.loads(plan.read_bytes())
        pair = (
            {**request, "per_file": n}
            for request, n in ((choices["asked"], choices["per_file"]), (requested, how.per_file))
        )
        before, after = (
            {key: request[key] for key in request if how.per_file or key != "per_file"} for request in pair
        )
        if altered := differences(before, after):
            raise ValueError(
                f"{folder} holds a conversion begun otherwise ({listed(altered)}); remove it, or choose another path."
            )
    else:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        choices = {"asked": requested, **_choices(fields, how, folder)}
    scales = (None if choices[name] is None else np.array(choices[name], "<f4") for name in ("offset", "scale"))
    encoding = Encoding(how.dtype, choices["compression"], *scales)
    if not plan.exists():
        metadata.lay_out(folder, world, fields.variables, encoding, choices["per_file"], said)
        write_file(plan, json.dumps(choices).encode(), durable=True)
    _refuse_no_room(fields, encoding, fields.times.size, folder)
    _Files(fields, folder, encoding, choices["per_file"], how, 0, 0).write(report)
    metadata.finish(folder, fields.times)
    plan.unlink()
    return choices


def _choices(fields: Fields, how: PackingSettings, folder: Path) -> dict[str, Any]:
    """Choose times a file, compression and scales of half precision, and measure the errors of these."""
    chunk = fields.variables.size * int(np.prod(fields.grid.shape)) * Encoding(how.dtype).itemsize
    choices: dict[str, Any] = {"offset": None, "scale": None, "errors": None, "measured": [], "compression": "none"}
    choices["per_file"] = how.per_file or max(1, int(FILE_BYTES // chunk))
    if how.per_file is None and choices["per_file"] > fields.granule:
        choices["per_file"] = choices["per_file"] // fields.granule * fields.granule
    sample = np.unique(np.linspace(0, fields.times.size - 1, SAMPLES).round().astype(int))
    encoding = Encoding(how.dtype)
    if how.dtype != "float32":
        encoding = _scaled(fields, how, sample)
        errors = _errors(fields, encoding, sample)
        choices["errors"] = dict(zip(fields.variables.channels, errors.tolist(), strict=True))
        assert encoding.offset is not None
        assert encoding.scale is not None
        choices |= {"offset": encoding.offset.tolist(), "scale": encoding.scale.tolist()}
    if how.compression == "auto":
        chunks = (encoding.stored(field) for field in _one_by_one(fields, sample[:: SAMPLES // 4]))
        choices["measured"] = metadata.candidates(list(chunks), how.dtype, folder)
        choices["compression"] = min(choices["measured"], key=lambda candidate: candidate.seconds).name
        return choices
    return choices | {"compression": how.compression}


def _one_by_one(fields: Fields, positions: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the fields at each position, float32 (channel, lat, lon)."""
    out = np.empty((1, fields.variables.size, *fields.grid.shape), dtype=np.float32)
    for position in positions:
        fields.read(np.array([position]), out)
        yield out[0]


def _scaled(fields: Fields, how: PackingSettings, sample: np.ndarray) -> Encoding:
    """Return half precision scaled by the means and standard deviations of a sample, without missing values."""
    sums = np.zeros((3, fields.variables.size))
    for snapshot in _one_by_one(fields, sample):
        good = np.isfinite(snapshot)
        numbers = np.where(good, snapshot, 0).astype(np.float64)
        sums += [term.reshape(len(snapshot), -1).sum(1) for term in (good, numbers, numbers**2)]
    count = np.maximum(sums[0], 1)
    mean = sums[1] / count
    return half_precision(how.dtype, "none", mean, np.sqrt(np.maximum(sums[2] / count - mean**2, 0)))


def _errors(fields: Fields, encoding: Encoding, sample: np.ndarray) -> np.ndarray:
    """Return the largest error of each channel in a sample, in standard deviations."""
    assert encoding.scale is not None
    worst, back = np.zeros(fields.variables.size), np.empty((fields.variables.size, *fields.grid.shape), np.float32)
    for snapshot in _one_by_one(fields, sample):
        encoding.spread(encoding.stored(snapshot), slice(None), back)
        worst = np.fmax(
            worst, np.nan_to_num(np.abs(back - snapshot)).reshape(len(snapshot), -1).max(1) / encoding.scale
        )
    return worst


def _adding(fields: Fields, path: Path, how: PackingSettings, report: Report | None) -> PackingResult:
    """Append the times of `fields` after the last one of a store."""
    store = PackedStore(path)
    axes = {name: coordinate[1] for name, coordinate in grid_coordinates(fields.grid).items()}
    for quantity, given, stored in (
        ("variables", fields.variables.channels, store.variables.channels),
        ("latitudes", *(tuple(np.round(degrees, 6)) for degrees in (axes["latitude"], store.latitude))),
        ("longitudes", *(tuple(np.round(degrees, 6)) for degrees in (axes["longitude"], store.longitude))),
        ("dtype", how.dtype, store.encoding.stored_as),
        ("members", fields.members, store.members),
    ):
        if given != stored:
            raise ValueError(f"{path} has other {quantity} than what is to be converted; choose another path, to=...")
    if fields.members > 1 and not np.array_equal(fields.times, store.times):
        raise ValueError(
            f"{path} holds {store.members} members from {store.times[0]} to {store.times[-1]}, and no times are added "
            "to several; choose another path, to=..."
        )
    several = fields.members > 1
    first = fields.times.size if several else int(np.searchsorted(fields.times, store.times[-1], side="right"))
    missing = fields.times[:first][~np.isin(fields.times[:first], store.times)]
    if missing.size:
        raise ValueError(
            f"{path} lacks {missing.size} times before its last, such as {missing[0]}; times are added behind the last "
            f"one only ({store.times[-1]}). Choose another path, to=..."
        )
    _refuse_other_numbers(store, fields, first)
    new = fields.times[first:]
    if new.size:
        _refuse_no_room(fields, store.encoding, new.size, path)
        count = store.times.size
        _Files(fields, path, store.encoding, store.per_file, how, count, first).write(report)
        metadata.finish(path, np.concatenate([store.times, new]))
    return PackingResult(path, new.size, store.times.size + new.size)


def _refuse_other_recipe(path: Path, made_from: Mapping[str, Any]) -> None:
    """Raise ValueError if a store was made with other settings of its source; its files may have grown since."""
    before = PackedStore(path).attributes.get("made_from") or {}
    if not before or not made_from:
        return
    if altered := differences(before["recipe"], made_from["recipe"]):
        raise ValueError(
            f"{path} was converted otherwise ({listed(altered)}); choose another path, to=..., or remove it."
        )


def _refuse_other_numbers(store: PackedStore, fields: Fields, first: int) -> None:
    """Raise ValueError if store and data differ at the latest time that both have."""
    if not first:
        return
    shape = (1, fields.variables.size, *fields.grid.shape)
    ours, theirs = np.empty(shape, np.float32), np.empty(shape, np.float32)
    fields.read(np.array([first - 1]), ours)
    store.read(np.flatnonzero(store.times == fields.times[first - 1])[-1:], theirs)
    expected = np.empty_like(ours[0])
    store.encoding.spread(store.encoding.stored(ours[0]), slice(None), expected)
    if not np.array_equal(expected, theirs[0], equal_nan=True):
        raise ValueError(
            f"{store.path} has other numbers at {fields.times[first - 1]} than {fields.origin}: the data were changed. "
            "Choose another path, to=..."
        )


def _refuse_no_room(fields: Fields, encoding: Encoding, times: int, folder: Path) -> None:
    """Raise OSError if uncompressed fields do not fit on the disk."""
    need = times * fields.variables.size * int(np.prod(fields.grid.shape)) * encoding.itemsize
    free = shutil.disk_usage(folder).free + sum(file.stat().st_size for file in folder.glob("fields/c/*/0/0/0"))
    if encoding.compression == "none" and need > free:
        raise OSError(f"{folder} needs {bytes_text(need)}, the disk has {bytes_text(free)} free; make room.")


@dataclass
class _Files:
    """Write files of a store. existing: times that it has already; first: position in `fields` of the next."""

    fields: Fields
    folder: Path
    encoding: Encoding
    per_file: int
    how: PackingSettings
    existing: int
    first: int

    @property
    def total(self) -> int:
        return self.existing + self.fields.times.size - self.first

    def write(self, report: Report | None) -> None:
        """Write each file that does not exist yet, a few at a time."""
        numbers, done = range(self.existing // self.per_file, -(-self.total // self.per_file)), 0
        with ThreadPoolExecutor(self.how.threads, thread_name_prefix="packing") as pool:
            jobs = {pool.submit(self.write_file, number) for number in numbers}
            try:
                while jobs:
                    finished, jobs = wait(jobs, return_when=FIRST_COMPLETED)
                    done += sum(job.result() for job in finished)
                    if report:
                        report(f"{done} of {self.total - self.existing} times", done / (self.total - self.existing))
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def write_file(self, number: int) -> int:
        """Write one file, unless it exists and is sound; return the number of new times in it."""
        start, stop = number * self.per_file, min((number + 1) * self.per_file, self.total)
        old = max(0, self.existing - start)
        path = self.folder / "fields" / "c" / str(number) / "0" / "0" / "0"
        if path.exists() and not faults_of_file(path, self.per_file, range(stop - start)):
            return stop - start - old
        path.parent.mkdir(parents=True, exist_ok=True)
        index = np.full((self.per_file, 2), ABSENT, dtype="<u8")
        try:
            with atomic_file(path, durable=True) as unfinished, open(unfinished, "wb") as file:
                file.seek(-(-(index.nbytes + 4) // PAGE) * PAGE)
                for row, content in self.chunks(path, start, old, stop):
                    file.seek(-(-file.tell() // PAGE) * PAGE)
                    index[row] = file.tell(), len(content) + 4
                    _write_checked(file, content)
                file.truncate(file.tell())
                file.seek(0)
                _write_checked(file, index.tobytes())
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise could_not_write(path, error, (stop - start) * self._chunk_bytes) from error
        return stop - start - old

    @property
    def _chunk_bytes(self) -> int:
        """Bytes of one time before compression."""
        return self.fields.variables.size * int(np.prod(self.fields.grid.shape)) * self.encoding.itemsize

    def chunks(self, path: Path, start: int, old: int, stop: int) -> Iterator[tuple[int, Any]]:
        """Yield (place in the file, bytes) of each time: those of the existing file, then new ones."""
        if old:
            yield from _contents(path, self.per_file, old)
        shape = (self.fields.variables.size, *self.fields.grid.shape)
        fields = np.empty((min(self.block, stop - start - old), *shape), np.float32)
        for at in range(start + old, stop, self.block):
            positions = np.arange(at, min(at + self.block, stop)) - self.existing + self.first
            self.fields.read(positions, fields, np.arange(positions.size))
            for row in range(positions.size):
                yield at - start + row, self.encoding.bytes_of(self.encoding.stored(fields[row]))

    @property
    def block(self) -> int:
        """Times that each worker reads at once: within the allowed memory, whole chunks of the source if they fit."""
        row = 4 * self.fields.variables.size * int(np.prod(self.fields.grid.shape))
        most, granule = max(1, int(self.how.megabytes * 1e6 / (4 * self.how.threads * row))), self.fields.granule
        return most // granule * granule if most > granule else most


def _contents(path: Path, per_file: int, count: int) -> Iterator[tuple[int, bytes]]:
    """Yield (place, bytes without checksum) of the first chunks of a file."""
    with open(path, "rb") as file:
        index = np.frombuffer(file.read(16 * per_file), dtype="<u8").reshape(-1, 2)
        for row in range(count):
            file.seek(int(index[row, 0]))
            yield row, file.read(int(index[row, 1]))[:-4]


def _write_checked(file: BinaryIO, content: Any) -> None:
    file.write(content)
    file.write(crc32c(content))
