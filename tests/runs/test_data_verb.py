"""`emul data make` and `emul data inspect`, in process."""

import numpy as np
import pytest
import xarray as xr

from emul.data import main
from emul.findings import Faults
from emul.main import main as emul


@pytest.fixture
def path(tmp_path):
    times = np.delete(np.datetime64("2001-01-01", "ns") + np.arange(12) * np.timedelta64(6, "h"), 5)
    temperature = np.full((11, 2, 4, 8), 280.0, dtype="float32")
    temperature[:, :, 0, 0] = np.nan
    ds = xr.Dataset(
        {
            "t": (("time", "level", "lat", "lon"), temperature, {"units": "K"}),
            "q": (("time", "member", "lat", "lon"), np.zeros((11, 2, 4, 8), dtype="float32")),
        },
        {
            "time": times,
            "level": ("level", [500.0, 850.0], {"units": "hPa"}),
            "lat": [67.5, 22.5, -22.5, -67.5],
            "lon": np.arange(8) * 45.0,
        },
    )
    ds.to_netcdf(tmp_path / "a.nc", encoding={"t": {"chunksizes": (1, 2, 4, 8)}})
    return tmp_path / "a.nc"


@pytest.mark.parametrize("by", ["path", "source"])
def test_inspect_tells_what_there_is(path, by, capsys):
    assert main(["inspect", *([str(path)] if by == "path" else ["data=netcdf", f"data.path={path}"])]) == 0
    printed = capsys.readouterr()
    for told in (
        "equiangular, 4 x 8",
        "2 (pressure): 500, 850 hPa",
        "11, 2001-01-01T00:00:00 to 2001-01-03T18:00:00, every 6h",
        "gaps    2001-01-02T00:00:00 to 2001-01-02T12:00:00",
        "temperature",
        "11 x 2 x 4 x 8",
        "1 x 2 x 4 x 8",
        "3.1%",
    ):
        assert told in printed.out
    assert "left out q" in printed.err
    assert "select={member: 0}" in printed.err


def test_inspect_selects(path, capsys):
    assert main(["inspect", str(path), "select={member: 1}"]) == 0
    assert "specific_humidity" in capsys.readouterr().out
    with pytest.raises(ValueError, match="select=\\{dimension: label\\}"):
        main(["inspect", str(path), "select=member"])
    with pytest.raises(ValueError, match="With a path only select"):
        main(["inspect", str(path), "levels=[500]"])


def test_faults_are_told(path):
    with pytest.raises(Faults, match=r"data\.path"):
        main(["inspect", "data=netcdf"])
    with pytest.raises(ValueError, match="Expected `emul data make"):
        main(["look"])
    assert emul(["data", "inspect", str(path.with_name("b.nc"))]) == 2


def test_make_makes_once(tmp_path, capsys):
    arguments = ["make", "data=planet_tiny", f"data.folder={tmp_path}", "data.days=5", "data.trajectories=1"]
    assert main(arguments) == 0
    (store,) = tmp_path.glob("*.zarr")
    written = store.stat().st_mtime_ns
    assert main(arguments) == 0
    assert store.stat().st_mtime_ns == written
    assert "Ready:" in capsys.readouterr().out
