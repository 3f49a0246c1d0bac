"""Find the files and stores that a path stands for, and what each of them is."""

from __future__ import annotations

import difflib
import glob
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

GRIB_SUFFIXES = (".grib", ".grib1", ".grib2", ".grb", ".grb1", ".grb2")
NETCDF_SUFFIXES = (".nc", ".nc3", ".nc4", ".cdf", ".netcdf", ".h5", ".hdf5", ".he5")
ZARR_MARKS = ("zarr.json", ".zgroup", ".zmetadata")
DAMAGED = "it is damaged, incomplete or of another kind; fetch it again"
COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}


def file_names(path: str | Path | Sequence[str | Path], engine: str | None = None) -> list[str]:
    """Return the files and stores that match `path`: a name, a pattern, a folder of files, or a list of these.

    engine: netcdf or grib, whose files alone are taken of a folder. FileNotFoundError where there is nothing.
    """
    if not isinstance(path, str | Path):
        if not path:
            raise FileNotFoundError("Expected at least one path to data; got an empty list.")
        return [name for one in path for name in file_names(one, engine)]
    text = str(path)
    if "://" in text or "::" in text:
        return [text]
    text = str(Path(text).expanduser())
    if Path(text).exists():
        return [text] if Path(text).is_file() or engine == "zarr" or has_zarr(Path(text)) else _in_folder(text, engine)
    if glob.has_magic(text):
        found = sorted(glob.glob(text, recursive=True))
        if not found:
            raise FileNotFoundError(f"No file matches {text}.")
        return found
    folder = Path(text).parent
    beside = [p.name for p in sorted(folder.iterdir())] if folder.is_dir() else []
    close = difflib.get_close_matches(Path(text).name, beside, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else "" if folder.is_dir() else f"; nor is there a folder {folder}."
    raise FileNotFoundError(f"No data at {text}{hint or '.'}")


def _in_folder(text: str, engine: str | None) -> list[str]:
    """Return the NetCDF and GRIB files in a folder that is no Zarr store, and in the folders within it."""
    suffixes = {"netcdf": NETCDF_SUFFIXES, "grib": GRIB_SUFFIXES}.get(str(engine), NETCDF_SUFFIXES + GRIB_SUFFIXES)
    found = sorted(p for p in Path(text).rglob("*") if p.name.lower().endswith(suffixes) and p.is_file())
    if not found:
        inside = ", ".join(sorted(p.name for p in Path(text).iterdir())[:6]) or "nothing"
        raise FileNotFoundError(
            f"{text} holds no Zarr store (no {', '.join(ZARR_MARKS[:2])} or {ZARR_MARKS[2]} in it) and no NetCDF or "
            f"GRIB files; it holds {inside}."
        )
    return [str(p) for p in found]


def file_kind(name: str, engine: str | None = None) -> str:
    """Return what to open a file or store as: zarr, netcdf or grib; an archive of Zarr is zarr whatever the engine."""
    if is_zipped_zarr(name) or is_references(name):
        return "zarr"
    if engine is not None:
        return engine
    if "://" in name or "::" in name or Path(name).is_dir() or name.rstrip("/").endswith(".zarr"):
        return "zarr"
    return "grib" if name.lower().endswith(GRIB_SUFFIXES) else "netcdf"


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
    with zipfile.ZipFile(name) as archive:
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


def unreadable(name: str) -> str:
    """Say what a file is that cannot be opened as data, and what to do with it."""
    path = Path(name)
    start = path.open("rb").read(256) if path.is_file() else b""
    if zipfile.is_zipfile(name):
        with zipfile.ZipFile(name) as archive:
            inside = archive.namelist()
        more = f" and {len(inside) - 3} more" if len(inside) > 3 else ""
        return f"it is a ZIP archive of {', '.join(inside[:3])}{more}; unpack it first: unzip {name} -d {path.stem}"
    for magic, command in COMPRESSED.items():
        if start.startswith(magic):
            return f"it is compressed; unpack it first: {command} {name}"
    if start.lstrip()[:1] == b"<":
        return "it is a web page, not data (a failed download?); fetch it again"
    if start.startswith(b"GRIB"):
        return "it is GRIB; open it with data=grib, or name it .grib"
    return DAMAGED
