"""Write the metadata of a packed store, before the first chunk and after the last; measure compressions for it.

Readers go by the consolidated metadata at the root, which is replaced last, in one piece: a store has as many times as
it says, however a conversion that adds to it may end.
"""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from data_pipelines.conventions.attributes import origin_of
from data_pipelines.files.atomic import write_file
from data_pipelines.files.fingerprints import crc32c, every_chunk, is_checked, write_sealed
from data_pipelines.files.identity import revision
from data_pipelines.reading.encodings import COMPRESSIONS, STORED, Encoding
from data_pipelines.reading.packed_store import FORMAT
from emulators.grid import grid_coordinates, grid_dims
from emulators.variables import Variable, VariableSet
from emulators.world import World

TIMES = 65536  # a chunk of the coordinate, so that it may grow in place
CLOCK: dict[str, Any] = {
    "units": "seconds since 1970-01-01",
    "calendar": "proleptic_gregorian",
    "standard_name": "time",
}
MEMBERS = "all times of the first member, then those of the second, and so on"
NOT_KEPT = ("origin", "left_out", "roles")  # of the dataset as it was opened, not of the data


def attributes(
    dataset: xr.Dataset,
    world: World,
    moving: VariableSet,
    splits: Mapping[str, Any] | None,
    made_from: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the attributes of a store: the dataset it was made from, and the roles of its variables in `world`."""
    static = VariableSet(tuple(variable for variable in world.static if variable.name in dataset.data_vars))
    level = dataset["level"].attrs if "level" in dataset.coords else {}
    members = {"members": dataset.sizes["member"]} if "member" in dataset.dims else {}
    return {
        "packed_format": FORMAT,
        **members,
        "variables": moving.plain(),
        "static": static.plain(),
        "level_attributes": {str(name): value for name, value in level.items() if isinstance(value, str)},
        "dataset": {str(name): _plain(attribute) for name, attribute in dataset.attrs.items() if name not in NOT_KEPT},
        "converted_from": origin_of(dataset, "a data source"),
        "roles": {role: [_entry(variable) for variable in variables] for role, variables in world.by_role.items()},
        **({"made_from": dict(made_from)} if made_from else {}),
        "splits": {name: [str(end) for end in period] for name, period in (splits or {}).items() if period},
    }


def _entry(variable: Variable) -> str | dict[str, list[float]]:
    return {variable.name: list(variable.levels)} if variable.levels else variable.name


def _plain(value: Any) -> Any:
    value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    return value if isinstance(value, str | int | float | list | bool) else str(value)


def lay_out(
    folder: Path, world: World, moving: VariableSet, encoding: Encoding, per_file: int, said: Mapping[str, Any]
) -> None:
    """Write a store without times in `folder`."""
    import zarr
    from zarr.codecs import Crc32cCodec, ShardingCodec

    more = {"stored_as": encoding.stored_as, "compression": encoding.compression, "revision": revision()}
    root = zarr.create_group(folder, zarr_format=3, attributes={"Conventions": "CF-1.11", **said, **more})
    shape = (moving.size, *world.grid.shape)
    codecs = [*encoding.zarr_codecs(), Crc32cCodec()]
    root.create_array(
        "fields",
        shape=(0, *shape),
        chunks=(per_file, *shape),
        dtype=STORED[encoding.stored_as],
        fill_value=0 if encoding.stored_as == "bfloat16" else float("nan"),
        filters=None,
        compressors=None,
        serializer=ShardingCodec(chunk_shape=(1, *shape), codecs=codecs, index_location="start"),  # type: ignore[arg-type]
        dimension_names=["time", "channel", *grid_dims(world.grid)],
        attributes=_decoding(encoding) | ({"comment": MEMBERS} if said.get("members", 1) > 1 else {}),
    )
    root.create_array("time", shape=(0,), chunks=(TIMES,), dtype="int64", compressors=[Crc32cCodec()],
                      dimension_names=["time"], attributes=CLOCK)  # fmt: skip
    for name, (dims, values, attrs) in grid_coordinates(world.grid).items():
        _array(root, name, values, list(dims), dict(attrs))
    names = np.array(moving.channels, dtype=np.dtypes.StringDType())
    _array(root, "channel", names, ["channel"], {"long_name": "variable and level"})
    for name, numbers in (("offset", encoding.offset), ("scale", encoding.scale)):
        if numbers is not None:
            _array(root, name, numbers, ["channel"], {})
    static = VariableSet.from_plain(said["static"])
    for variable in static:
        planes = world.static_fields[world.static.slice(variable.name)]  # type: ignore[index]
        for channel, field in zip(variable.channels, planes, strict=True):
            _array(root, channel, field, list(grid_dims(world.grid)), {"units": variable.units})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        zarr.consolidate_metadata(folder)


def _decoding(encoding: Encoding) -> dict[str, Any]:
    if encoding.scale is None:
        return {"long_name": "all channels, in SI units"}
    kind = "the bits of bfloat16" if encoding.stored_as == "bfloat16" else encoding.stored_as
    return {"long_name": f"all channels as {kind}; in SI units: offset + scale * number"}


def _array(root: Any, name: str, values: np.ndarray, dims: list[str], attrs: dict[str, Any]) -> None:
    from zarr.codecs import Crc32cCodec

    more: dict[str, Any] = {"dimension_names": dims, "attributes": attrs, "compressors": [Crc32cCodec()]}
    with every_chunk():
        root.create_array(name, data=values, chunks=values.shape, **more)


def finish(folder: Path, times: np.ndarray) -> None:
    """Set the times of the store, all that it holds now, datetime64[s]."""
    seconds = times.astype("datetime64[s]").astype("<i8")
    root, chunks = json.loads((folder / "zarr.json").read_bytes()), folder / "time" / "c"
    checked = is_checked(root["consolidated_metadata"]["metadata"]["time"])
    for number, start in enumerate(range(0, seconds.size, TIMES)):
        chunk = np.zeros(TIMES, dtype="<i8")
        chunk[: seconds[start : start + TIMES].size] = seconds[start : start + TIMES]
        chunks.mkdir(parents=True, exist_ok=True)
        write_file(chunks / str(number), chunk.tobytes(), crc32c(chunk) if checked else b"", durable=True)
    for name in ("time", "fields"):
        array_metadata = json.loads((folder / name / "zarr.json").read_bytes())
        array_metadata["shape"][0] = root["consolidated_metadata"]["metadata"][name]["shape"][0] = seconds.size
        write_file(folder / name / "zarr.json", json.dumps(array_metadata, indent=2).encode(), durable=True)
    write_sealed(folder, root)


PROBE_BYTES = 32_000_000


class Candidate(NamedTuple):
    """Hold the compression ratio (share of bytes that remain) and the seconds to read and decode a gigabyte."""

    name: str
    share: float
    seconds: float


def candidates(chunks: Sequence[np.ndarray], dtype: str, folder: Path) -> list[Candidate]:
    """Try each compression on some stored chunks, with files on the disk of `folder`."""
    size, rate = sum(chunk.nbytes for chunk in chunks), disk_rate(folder)
    results = []
    for name in COMPRESSIONS:
        encoding = Encoding(dtype, name)
        packed = [np.frombuffer(encoding.bytes_of(chunk), dtype=np.uint8) for chunk in chunks]
        out, seconds = np.empty_like(chunks[0]), []
        for _ in range(3):
            begun = time.perf_counter()
            for content in packed:
                np.copyto(out, encoding.decoded(content, out.shape))
            seconds.append(time.perf_counter() - begun)
        share = sum(content.nbytes for content in packed) / size
        results.append(Candidate(name, share, 1e9 * (share / rate + min(seconds) / size)))
    return results


def disk_rate(folder: Path) -> float:
    """Bytes a second read from the disk of `folder`, not from memory."""
    path = folder / ".probe"
    try:
        with open(path, "wb") as file:
            file.write(os.urandom(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with open(path, "rb", buffering=0) as file:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            begun, memory = time.perf_counter(), bytearray(4_000_000)
            while file.readinto(memory):
                pass
            return PROBE_BYTES / (time.perf_counter() - begun)
    finally:
        path.unlink(missing_ok=True)
