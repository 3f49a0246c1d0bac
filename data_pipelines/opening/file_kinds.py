"""Find the files and stores that a path stands for, tell what each of them is, and read or refuse special kinds.

Compute the length of a classic NetCDF file from its header: the library reads zeros beyond a truncated end.

    length = max over variables of begin + (records - 1) * record length + length of one slab

NetCDF classic format specification (Unidata), versions 1, 2 and 5.

Convert stores of anemoi-datasets: one array `data` (time, variable, ensemble, cell) to variables on a grid.

    t_850, t_500, ...  ->  temperature (time, level, latitude, longitude);    field_shape  ->  (latitude, longitude)

Dates that the store lists as missing are left out, so that they are gaps. The statistics inside it cover a period of
its own, not the one that is trained on; they are not used. Layout: https://anemoi.readthedocs.io, anemoi-datasets.
"""

from __future__ import annotations

import difflib
import glob
import json
import math
import re
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xarray as xr

from data_pipelines.conventions.dialects import dialects, stacked
from data_pipelines.conventions.suggestions import masked_address
from data_pipelines.files.archives import refusing_damage

MOST_ENTRIES = 300_000  # of a folder that is looked through, within seconds
GRIB_SUFFIXES = (".grib", ".grib1", ".grib2", ".grb", ".grb1", ".grb2")
NETCDF_SUFFIXES = (".nc", ".nc3", ".nc4", ".cdf", ".netcdf", ".h5", ".hdf5", ".he5")
ZARR_MARKS = ("zarr.json", ".zgroup", ".zmetadata")
DAMAGED = "it is damaged, incomplete or of another kind; fetch it again"
NETCDF_STARTS = (b"CDF", b"\x89HDF")
KINDS = {"zarr": "a Zarr store", "netcdf": "NetCDF", "grib": "GRIB"}
COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}


def file_names(path: str | Path | Sequence[str | Path], engine: str | None = None) -> list[str]:
    """Return the files and stores that match `path`: a name, a pattern, a folder of files, or a list of these.

    engine: netcdf or grib, whose files alone are taken of a folder. FileNotFoundError where there is nothing.
    """
    if not isinstance(path, str | Path):
        if not path:
            raise FileNotFoundError("Expected at least one path to data; got an empty list.")
        return [name for item in path for name in file_names(item, engine)]
    text = str(path)
    if "://" in text or "::" in text:
        return [text]
    text = str(Path(text).expanduser())
    if Path(text).exists():
        return [text] if Path(text).is_file() or engine == "zarr" or has_zarr(Path(text)) else _in_folder(text, engine)
    if glob.has_magic(text):
        matches = sorted(glob.glob(text, recursive=True))
        if not matches:
            raise FileNotFoundError(f"No file matches {text}.")
        return matches
    folder = Path(text).parent
    neighbours = [p.name for p in sorted(folder.iterdir())] if folder.is_dir() else []
    close = difflib.get_close_matches(Path(text).name, neighbours, n=1)
    if close:
        raise FileNotFoundError(f"No data at {text}; did you mean '{folder / close[0]}'?")
    if not folder.is_dir():
        raise FileNotFoundError(f"No data at {text}; nor is there a folder {folder}.")
    data = [name for name in neighbours if name.lower().endswith((*NETCDF_SUFFIXES, *GRIB_SUFFIXES, ".zarr"))]
    contents = f"{', '.join(data[:6])}{f' and {len(data) - 6} more' * (len(data) > 6)}" if data else "no data"
    raise FileNotFoundError(
        f"No data at {text}; in {'this folder' if folder == Path('.') else folder} there is {contents}."
    )


SUFFIXES = {"netcdf": NETCDF_SUFFIXES, "grib": GRIB_SUFFIXES}


def _in_folder(text: str, engine: str | None) -> list[str]:
    """Return the NetCDF and GRIB files in a folder that is no Zarr store, and in the folders within it."""
    suffixes = SUFFIXES.get(str(engine), NETCDF_SUFFIXES + GRIB_SUFFIXES)
    files = []
    for number, path in enumerate(Path(text).rglob("*")):
        if number == MOST_ENTRIES:
            raise ValueError(
                f"{text} holds more than {MOST_ENTRIES:,} files and folders; give the folder or a pattern of the data."
            )
        if path.name.lower().endswith(suffixes) and path.is_file():
            files.append(path)
    if not files:
        refuse_other_kind(text, engine)
        names = ", ".join(sorted(p.name for p in Path(text).iterdir())[:6]) or "nothing"
        raise FileNotFoundError(
            f"{text} holds no Zarr store (no {', '.join(ZARR_MARKS[:2])} or {ZARR_MARKS[2]} in it) and no "
            f"{KINDS.get(str(engine), 'NetCDF or GRIB')} files; it holds {names}."
        )
    return [str(p) for p in sorted(files)]


def file_kind(name: str, engine: str | None = None) -> str:
    """Return what to open a file or store as: zarr, netcdf or grib; an archive of Zarr is zarr whatever the engine."""
    if is_zipped_zarr(name) or is_references(name):
        return "zarr"
    if engine is not None:
        return engine
    if "://" in name or "::" in name or Path(name).is_dir() or (name.endswith(".zarr") and not Path(name).is_file()):
        return "zarr"
    return "grib" if name.lower().endswith(GRIB_SUFFIXES) else "netcdf"


def refuse_other_kind(name: str, engine: str | None) -> None:
    """Raise ValueError where what lies at `name` is of another kind than `engine` opens, or cannot be read there."""
    kind = _kind_found(name)
    wanted = kind or engine
    if wanted in SUFFIXES and "://" in name and not name.startswith("http"):
        raise ValueError(
            f"{KINDS[wanted]} files are read from this machine; got the address {masked_address(name)}. Copy them here "
            "first; of addresses only Zarr stores are opened."
        )
    if engine in KINDS and kind not in (None, engine):
        raise ValueError(
            f"Expected {KINDS[str(engine)]}; {masked_address(name)} is {KINDS[str(kind)]}: open it with data={kind}."
        )


def _kind_found(name: str) -> str | None:
    """Return the kind of what lies at a place, by its first bytes or by names; None where these do not say."""
    path, last = Path(name), name.rstrip("/").lower()
    if "://" in name or "::" in name:
        by_name = [kind for kind, endings in SUFFIXES.items() if last.endswith(endings)]
        return "zarr" if last.endswith(".zarr") else by_name[0] if by_name else None
    if path.is_dir():
        if has_zarr(path):
            return "zarr"
        names = [entry.name.lower() for entry in path.iterdir()]
        kinds = [kind for kind, endings in SUFFIXES.items() if any(file.endswith(endings) for file in names)]
        return kinds[0] if len(kinds) == 1 else None
    start = path.open("rb").read(8) if path.is_file() else b""
    return "netcdf" if start.startswith(NETCDF_STARTS) else "grib" if start.startswith(b"GRIB") else None


def has_zarr(path: Path) -> bool:
    """Return whether a folder is a Zarr store."""
    return any((path / name).exists() for name in ZARR_MARKS)


def is_zipped_zarr(name: str) -> bool:
    """Return whether a file is a ZIP archive with a Zarr store in it."""
    return zarr_group_in_zip(name) is not None


def zarr_group_in_zip(name: str) -> str | None:
    """Return the folder within a ZIP archive in which its Zarr store lies, '' at its top; None where there is none."""
    if not Path(name).is_file() or not zipfile.is_zipfile(name):
        return None
    with refusing_damage(name), zipfile.ZipFile(name) as archive:
        marks = [entry for entry in archive.namelist() if entry.rsplit("/", 1)[-1] in ZARR_MARKS]
    return min((mark.rpartition("/")[0] for mark in marks), key=len, default=None)


def is_references(name: str) -> bool:
    """Return whether a file is a list of references into other files, as Kerchunk writes it (JSON)."""
    if not name.lower().endswith(".json") or not Path(name).is_file():
        return False
    try:
        content = json.loads(Path(name).read_text(encoding="utf-8"))
    except (ValueError, OSError):
        return False
    return isinstance(content, dict) and any(mark in content.get("refs", content) for mark in ZARR_MARKS)


def unreadable(name: str, engine: str) -> str:
    """Say what a file is that cannot be opened as data of `engine`, and what to do with it."""
    path = Path(name)
    start = path.open("rb").read(300) if path.is_file() else b""
    if zipfile.is_zipfile(name):
        with refusing_damage(name), zipfile.ZipFile(name) as archive:
            members = archive.namelist()
        more = f" and {len(members) - 3} more" if len(members) > 3 else ""
        return f"it is a ZIP archive of {', '.join(members[:3])}{more}; unpack it first: unzip {name} -d {path.stem}"
    for magic, command in COMPRESSED.items():
        if start.startswith(magic):
            return f"it is compressed; unpack it first: {command} {name}"
    if start[257:262] == b"ustar":
        return f"it is a TAR archive; unpack it first: tar xf {name}"
    if start.lstrip()[:1] == b"<":
        return "it is a web page, not data (a failed download?); fetch it again"
    if start.startswith(b"GRIB") and engine != "grib":
        return "it is GRIB; give it a name that ends in .grib"
    if start.startswith(NETCDF_STARTS) and engine != "netcdf":
        return "it is NetCDF; give it a name that ends in .nc"
    return DAMAGED


SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}  # bytes, by type


class _Header:
    """Read the header's big-endian numbers, whose width depends on the version."""

    def __init__(self, file: BinaryIO, version: int) -> None:
        self.file = file
        self.count_width = 8 if version == 5 else 4
        self.offset_width = 4 if version == 1 else 8

    def number(self, width: int = 4) -> int:
        return struct.unpack(">I" if width == 4 else ">Q", self.file.read(width))[0]

    def count(self) -> int:
        return self.number(self.count_width)

    def skip(self, size: int) -> None:
        """Skip `size` bytes, padded to four."""
        self.file.seek(-(-size // 4) * 4, 1)

    def name(self) -> None:
        self.skip(self.count())

    def attributes(self) -> None:
        self.number()
        for _ in range(self.count()):
            self.name()
            kind = self.number()
            self.skip(SIZES[kind] * self.count())

    def dimensions(self) -> list[int]:
        self.number()
        lengths = []
        for _ in range(self.count()):
            self.name()
            lengths.append(self.count())
        return lengths


def expected_bytes(path: str | Path) -> int | None:
    """Return the least length of a classic file in bytes; None for other formats and files still being written."""
    with open(path, "rb") as file:
        magic = file.read(4)
        if magic[:3] != b"CDF" or magic[3] not in (1, 2, 5):
            return None
        header = _Header(file, magic[3])
        records = header.count()
        if records == 2 ** (8 * header.count_width) - 1:
            return None
        dimensions = header.dimensions()
        header.attributes()
        header.number()
        fixed, slabs = [0], []
        for _ in range(header.count()):
            header.name()
            shape = [dimensions[header.count()] for _ in range(header.count())]
            header.attributes()
            size = SIZES[header.number()]
            header.count()  # the stored size, which overflows for large variables
            begin = header.number(header.offset_width)
            of_records = bool(shape) and shape[0] == 0
            slab = size * math.prod(shape[1:] if of_records else shape)
            if of_records:
                slabs.append((begin, slab))
            else:
                fixed.append(begin + slab)
    record = sum(-(-slab // 4) * 4 for _, slab in slabs) if len(slabs) > 1 else sum(slab for _, slab in slabs)
    ends = [begin + (records - 1) * record + slab for begin, slab in slabs] if records else []
    return max([*fixed, *ends])


DIMENSIONS = ("time", "variable", "ensemble", "cell")


# Units in which the European centre has what the store names by its short names.
UNITS = {
    **dict.fromkeys(("t", "2t", "2d", "skt", "sst"), "K"),
    **dict.fromkeys(("u", "v", "10u", "10v", "100u", "100v"), "m s-1"),
    **dict.fromkeys(("sp", "msl"), "Pa"),
    **dict.fromkeys(("tp", "cp", "sf", "ro"), "m"),
    **dict.fromkeys(("lsm", "tcc", "ci"), "1"),
    **dict.fromkeys(("tcw", "tcwv"), "kg m-2"),
    **dict.fromkeys(("ssrd", "strd"), "J m-2"),
    "q": "kg kg-1",
    "w": "Pa s-1",
    "z": "m2 s-2",
}
SURFACE = {"z": "geopotential_at_surface"}


def is_anemoi(dataset: xr.Dataset) -> bool:
    """Return whether an opened store is one of anemoi-datasets."""
    return "variables" in dataset.attrs and "data" in dataset.variables and dataset["data"].ndim == len(DIMENSIONS)


def fields_by_name(dataset: xr.Dataset) -> xr.Dataset:
    """Return the fields of a store by name, with the dimension `ensemble` if there are several members.

    Cells that form rows and columns are unfolded; others keep the dimension `cell`.
    """
    data = dataset["data"]
    data = data.rename(dict(zip(data.dims, DIMENSIONS, strict=True)))
    if data.sizes["ensemble"] == 1:
        data = data.isel(ensemble=0)
    data = data.chunk({"time": 1})
    shape, grid, coordinates = _horizontal(dataset)
    names = [str(name) for name in dataset.attrs["variables"]]
    short = {name: _short(name, dataset.attrs.get("variables_metadata", {}).get(name, {})) for name in names}
    times = dataset["dates"].rename({dataset["dates"].dims[0]: "time"}).reset_coords(drop=True)
    dims = (*(d for d in data.dims if d not in ("variable", "cell")), *grid)
    fields = {}
    for index, name in enumerate(names):
        field = data.isel(variable=index)
        values = field.data.reshape(*field.shape[:-1], *shape)
        fields[short[name]] = (dims, values, {"units": UNITS.get(re.sub(r"_\d+$", "", short[name]), "")})
    coords = {"time": times.variable, **coordinates}
    result = xr.Dataset(fields, coords)
    for base in dict.fromkeys(re.sub(r"_\d+$", "", name) for name in fields if re.search(r"_\d+$", name)):
        result = stacked(result, base, _long(base), "hPa")
    result = result.rename({name: long for name, long in SURFACE.items() if name in result.variables})
    is_present = np.isin(_texts(times), list(dataset.attrs.get("missing_dates") or []), invert=True)
    return result if is_present.all() else result.isel(time=np.flatnonzero(is_present))


def _horizontal(dataset: xr.Dataset) -> tuple[tuple[int, ...], tuple[str, ...], dict[str, Any]]:
    """Return the shape of a field, its dimensions, and their coordinates."""
    latitude, longitude = (np.asarray(dataset[n].values, dtype=np.float64) for n in ("latitudes", "longitudes"))
    shape = [int(n) for n in dataset.attrs.get("field_shape") or ()]
    if len(shape) != 2:
        rows = np.unique(np.round(latitude, 4)).size
        shape = [rows, latitude.size // rows]
    if shape[0] * shape[1] == latitude.size and min(shape) > 1:
        by_row, by_column = latitude.reshape(shape), longitude.reshape(shape)
        if np.ptp(by_row, axis=1).max() < 1e-3 and np.ptp(by_column, axis=0).max() < 1e-3:
            axes = {"latitude": ("latitude", by_row[:, 0]), "longitude": ("longitude", by_column[0])}
            return (shape[0], shape[1]), ("latitude", "longitude"), axes
    return (latitude.size,), ("cell",), {"latitude": ("cell", latitude), "longitude": ("cell", longitude)}


def _short(name: str, metadata: Mapping[str, Any]) -> str:
    """Return a name such as `t_850` from the retrieval keys of a variable if the store has them, else its name."""
    keys = metadata.get("mars", {})
    if keys.get("levtype") == "pl" and "param" in keys and "levelist" in keys:
        return f"{keys['param']}_{keys['levelist']}"
    return name


def _long(short: str) -> str:
    """Return the name of a variable that is stacked from its levels."""
    return "geopotential" if short == "z" else dialects()["common"].names.get(short, short)


def _texts(times: xr.DataArray) -> np.ndarray:
    """Format times as the store lists dates, `2020-01-01T06:00:00`."""
    from data_pipelines.conventions.calendars import datetimes

    return datetimes(times, "the store").astype("datetime64[s]").astype(str)
