"""`emul verify` finds what was changed, in files, folders and stores."""

import numpy as np
import pytest
import xarray as xr

from data_pipelines.files import checkpoints
from data_pipelines.files.fingerprints import write_json
from data_pipelines.files.netcdf import write_netcdf
from data_pipelines.packing.copying import copy_to_zarr
from emul.main import main


@pytest.fixture
def home(tmp_path):
    """A folder with a checkpoint, scores, a store, a file of JSON and a picture."""
    checkpoints.save(tmp_path / "train" / "best.ckpt", {"emul": {"format": checkpoints.FORMAT}})
    write_netcdf(tmp_path / "eval" / "scores.nc", xr.Dataset({"a": ("x", np.arange(50.0))}))
    write_json(tmp_path / "train" / "result.json", {"best": 0.5})
    (tmp_path / "train" / "list.json").write_text("[1, 2]")
    (tmp_path / "train" / "curves.png").write_bytes(b"no checksum")
    axes = {"time": np.arange(3).astype("datetime64[D]").astype("datetime64[ns]"), "latitude": [1.0, 0.0]}
    data = xr.Dataset({"t": (("time", "latitude"), np.ones((3, 2), "f4"))}, axes)
    copy_to_zarr(data, tmp_path / "data" / "a.zarr", {"a": 1})
    (tmp_path / "data" / ".b.zarr.partial").mkdir()
    return tmp_path


def test_all_as_written(home, capsys):
    assert main(["verify", str(home)]) == 0
    said = capsys.readouterr().out
    assert "4 of 6 as they were written, 0 fault(s)." in said
    assert "left by an interruption" in said


def test_each_damage_is_named(home, capsys):
    chunk = next(path for path in (home / "data" / "a.zarr" / "t" / "c").rglob("*") if path.is_file())
    for path in (home / "train" / "best.ckpt", home / "eval" / "scores.nc", home / "train" / "result.json", chunk):
        whole = path.read_bytes()
        place = {"scores.nc": whole.find(np.arange(50.0).tobytes()) + 9, "result.json": whole.find(b"0.5") + 2}
        content = bytearray(whole)
        content[place.get(path.name, len(content) // 2)] ^= 1
        path.write_bytes(content)
        assert main(["verify", str(home)]) == 2, path
        said = capsys.readouterr()
        assert path.name in said.err
        assert main(["verify", str(home / path.relative_to(home).parts[0])]) == 2
        path.unlink()
        capsys.readouterr()
        if path == chunk:
            assert main(["verify", str(home)]) == 2
            assert "is missing" in capsys.readouterr().err
        path.write_bytes(whole)


def test_what_is_not_there_or_has_no_checksum(home, capsys):
    assert main(["verify", str(home / "nothing")]) == 2
    assert "Nothing at" in capsys.readouterr().err
    assert main(["verify", str(home / "train" / "curves.png")]) == 2
    assert "of a kind that has checksums" in capsys.readouterr().err
    assert main(["verify"]) == 2
    assert main(["verify", "all=true"]) == 2
