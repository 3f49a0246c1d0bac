"""Damaged stores and random overrides end in a sentence, never in a traceback, each within 20 seconds of the processor.

EMUL_WILD_INPUTS: how many of each are tried (30).
"""

import json
import os
import random
import shutil
import time

import numpy as np
import pytest
import xarray as xr

from emul.main import main

TRIALS, SECONDS = int(os.environ.get("EMUL_WILD_INPUTS", "30")), 20.0
KINDS = ("zarr2", "zarr3", "netcdf", "classic")
VALUES = [
    "null", "[]", "{}", "''", "-1", "0", "1e99", "nan", "true", "[0,1]", "{x: 1}", "{temperature: K}", "[temperature]",
    "'2001-01-01'", "{time: 1979-01-01/6h}", "6h", "zarr", "temperature", "{level: 500}", "{latitude: nowhere}",
    "9999999999", "[[1]]", "{temperature: [0, 1]}", "{temperature: 'degC -> K'}", "../..", "number", "[500]", "'*'",
    "{temperature: lat}",
]  # fmt: skip
KEYS = (
    "names", "rename", "select", "units", "masks", "fill", "derive", "levels", "lag", "timestep", "dates", "members",
    "gaps", "ranges", "guard", "splits", "splits.train", "path", "unheard_of",
)  # fmt: skip
FITTING = {  # of the right kind, and right or wrong in what they name
    "names": ["cesm", "cmip6", "nobody"],
    "rename": ["{temperature: t2}", "{level: latitude}", "{time: x}", "{x: y}", "{longitude: lat}"],
    "select": ["{time: 0}", "{level: 500}", "{level: [500]}", "{longitude: [0, 45]}", "{level: 7}", "{time: '2001'}"],
    "units": ["{temperature: K}", "{temperature: degC}", "{temperature: m}", "{temperature: ''}", "{x: K}"],
    "masks": ["[temperature]", "[x]", "[level]"],
    "fill": ["{temperature: 0}", "{temperature: nan}", "{x: 1}", "{time: 0}"],
    "derive": ["[wind_speed]", "[geopotential]", "[temperature]", "[nothing]"],
    "levels": ["[500]", "[500, 700]", "[850, 500]", "[500, 500]", "[1]", "[-5]", "[nan]"],
    "lag": ["[temperature]", "[level]", "[x]"],
    "timestep": ["6h", "12h", "1M", "0h", "-6h", "5min", "soon"],
    "dates": ["{time: 1979-01-01/6h}", "{level: 1979-01/1M}", "{latitude: x/y}", "{x: 2000-01/1M}", "{time: [2001]}"],
    "members": ["level", "time", "latitude", "x", "temperature"],
    "gaps": ["skip", "refuse"],
    "ranges": ["{temperature: [300, 200]}", "{temperature: [1]}", "{temperature: [0, 500]}", "{x: [0, 1]}"],
    "guard": ["10d", "1M", "0d"],
    "path": ["nowhere.nc", "''", "[]", "/", "'*.nc'", "http://localhost:1/x.zarr"],
}  # fmt: skip
WORDS = [0, -1, 2**40, "abc", None, [], {}, 3.5, ["x"], "<f8", "|S3", "NaN", True]


def dataset():
    generator = np.random.default_rng(0)
    values = generator.normal(280.0, 10.0, (4, 2, 6, 8)).astype("f4")
    coords = {
        "time": np.datetime64("2001-01-01", "ns") + np.arange(4) * np.timedelta64(6, "h"),
        "level": ("level", [500.0, 850.0], {"units": "hPa"}),
        "latitude": ("latitude", np.linspace(75.0, -75.0, 6), {"units": "degrees_north"}),
        "longitude": ("longitude", np.arange(8) * 45.0, {"units": "degrees_east"}),
    }
    return xr.Dataset({"temperature": (("time", "level", "latitude", "longitude"), values, {"units": "K"})}, coords)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The same data in each kind of file, by kind."""
    folder, data = tmp_path_factory.mktemp("whole"), dataset()
    data.to_zarr(folder / "zarr2", zarr_format=2)
    data.to_zarr(folder / "zarr3", zarr_format=3, consolidated=True)
    data.to_netcdf(folder / "netcdf.nc")
    data.to_netcdf(folder / "classic.nc", format="NETCDF3_64BIT")
    return {
        "zarr2": folder / "zarr2",
        "zarr3": folder / "zarr3",
        "netcdf": folder / "netcdf.nc",
        "classic": folder / "classic.nc",
    }


def damaged(source, target, rng):
    """Copy a store and change one thing in it: bytes, length or name of a file, or a word of its metadata."""
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)
    file = rng.choice(sorted(p for p in target.rglob("*") if p.is_file())) if target.is_dir() else target
    content = file.read_bytes()
    way = rng.choice(["bytes", "cut", "gone", "empty", "word", "word", "word", "noise"])
    if way == "word" and (file.suffix == ".json" or file.name.startswith(".z")):
        file.write_text(json.dumps(_changed(json.loads(content), rng)))
    elif way == "gone" and target.is_dir():
        file.unlink()
    elif way == "cut":
        file.write_bytes(content[: rng.randrange(len(content))])
    elif way == "empty":
        file.write_bytes(b"")
    elif way == "noise":
        file.write_bytes(rng.randbytes(len(content)))
    else:
        changed = bytearray(content)
        for _ in range(rng.randint(1, 8)):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        file.write_bytes(bytes(changed))


def _changed(node, rng):
    """Replace or remove one entry of a JSON document, at a random depth."""
    keys = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
    if not keys:
        return rng.choice(WORDS)
    key = rng.choice(keys)
    if isinstance(node[key], dict | list) and node[key] and rng.random() < 0.8:
        node[key] = _changed(node[key], rng)
    elif rng.random() < 0.2:
        del node[key]
    else:
        node[key] = rng.choice(WORDS)
    return node


def told(words, capsys):
    """Run a command; its exit code, which must come in time and without a traceback.

    The time is that of the processor, as the machine may be busy.
    """
    begun = time.process_time()
    code = main(words)
    spent = time.process_time() - begun
    output = capsys.readouterr()
    assert "Traceback" not in output.out + output.err, " ".join(words) + "\n" + output.err[-3000:]
    assert code in (0, 2), f"{code}: {' '.join(words)}\n{output.out[-500:]}{output.err[-500:]}"
    assert spent < SECONDS, f"{spent:.1f} s: {' '.join(words)}"
    return code


@pytest.mark.slow
def test_damaged_stores(whole, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    told(["data", "inspect", "data=netcdf", f"data.path={whole['netcdf']}"], capsys)
    codes = []
    for seed in range(TRIALS):
        rng = random.Random(seed)
        kind = rng.choice(KINDS)
        target = tmp_path / f"{seed}{whole[kind].suffix}"
        damaged(whole[kind], target, rng)
        source = "netcdf" if target.suffix else "weatherbench2"
        codes.append(told(["data", "inspect", f"data={source}", f"data.path={target}"], capsys))
    assert 0 < codes.count(2) < TRIALS


@pytest.mark.slow
def test_random_overrides(whole, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    codes = []
    for seed in range(TRIALS):
        rng = random.Random(seed)
        kind = rng.choice(KINDS)
        source = "netcdf" if whole[kind].suffix else "weatherbench2"
        keys = [rng.choice(KEYS) for _ in range(rng.randint(1, 2))]
        chosen = [f"data.{k}={rng.choice(FITTING[k] if k in FITTING and rng.random() < 0.8 else VALUES)}" for k in keys]
        codes.append(told(["data", "inspect", f"data={source}", f"data.path={whole[kind]}", *chosen], capsys))
    assert 0 < codes.count(2) < TRIALS
