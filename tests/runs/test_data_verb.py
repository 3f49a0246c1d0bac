"""`emul data make` and `emul data inspect`, in process."""

import numpy as np
import pytest
import xarray as xr

from data_pipelines.conventions.suggestions import ConfigErrors
from emul.data.arguments import main
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
    for words in ([str(path), "select={member: 1}"], ["data=netcdf", f"data.path={path}", "data.select={member: 1}"]):
        assert main(["inspect", *words]) == 0
        assert "specific_humidity" in capsys.readouterr().out
    with pytest.raises(ValueError, match="select: expected a mapping to any value"):
        main(["inspect", str(path), "select=member"])
    with pytest.raises(ValueError, match="With a path only select"):
        main(["inspect", str(path), "levels=[500]"])


def test_forecasts_are_looked_at_one_lead_at_a_time(path, capsys):
    leads = (np.arange(1, 4) * 24).astype("timedelta64[h]").astype("timedelta64[ns]")
    forecast = xr.open_dataset(path)[["t"]].expand_dims(prediction_timedelta=leads)
    forecast.to_zarr(path.with_name("f.zarr"))
    there = str(path.with_name("f.zarr"))
    assert emul(["data", "inspect", there]) == 2
    said = capsys.readouterr().err
    assert "'prediction_timedelta' of 3 (1d, 2d, 3d); choose one, such as select={prediction_timedelta: 1d}" in said
    assert f"`emul eval forecast={there} truth=...`" in said
    assert emul(["data", "inspect", there, "select={prediction_timedelta: 1w}"]) == 2
    assert "has no 1w; it has 1d, 2d, 3d" in capsys.readouterr().err
    chosen = ["select={prediction_timedelta: 2d}", "rename={time: init_time}"]
    assert emul(["data", "inspect", there, *chosen]) == 0
    assert "2001-01-03T00:00:00 to 2001-01-05T18:00:00" in capsys.readouterr().out


def test_faults_are_told(path):
    with pytest.raises(ConfigErrors, match=r"data\.path"):
        main(["inspect", "data=netcdf"])
    with pytest.raises(ValueError, match="Expected `emul data make"):
        main(["look"])
    assert emul(["data", "inspect", str(path.with_name("b.nc"))]) == 2


def test_fields_without_times_are_nothing_to_learn(path, capsys):
    mask = path.with_name("mask.nc")
    xr.open_dataset(path)["t"].isel(time=0, level=0, drop=True).rename("mask").to_netcdf(mask)
    words = ["data=netcdf", f"data.path={mask}"]
    splits = "data.splits={train: [2001,2001], validation: [2001,2001], test: [2001,2001]}"
    assert emul(["check", *words, "variables.prognostic=[mask]", splits]) == 2
    assert "data: expected fields at several times, got ['mask'] without any" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"Expected fields at several times; .*mask\.nc has mask"):
        main(["convert", *words, f"to={path.with_name('a.zarr')}"])


def test_make_makes_once(tmp_path, capsys):
    arguments = ["make", "data=planet_tiny", f"data.folder={tmp_path}", "data.days=5", "data.trajectories=1"]
    assert main(arguments) == 0
    (store,) = tmp_path.glob("*.zarr")
    written = store.stat().st_mtime_ns
    assert main(arguments) == 0
    assert store.stat().st_mtime_ns == written
    assert "Ready:" in capsys.readouterr().out


def test_inspect_warns_of_slow_chunks(path, capsys):
    ds = xr.open_dataset(path)
    ds.to_zarr(path.with_name("slow.zarr"), encoding={"t": {"chunks": (8, 1, 4, 8)}}, consolidated=False)
    assert main(["inspect", str(path.with_name("slow.zarr"))]) == 0
    assert "temperature: a chunk holds 8 times" in capsys.readouterr().err


def test_check_finds_what_is_wrong(path, tmp_path, capsys):
    ds = xr.open_dataset(path).drop_vars("q").assign(sst=lambda ds: ds["t"][:, 0].assign_attrs(units="1"))
    ds["t"][4, 1, 2, 3], ds["t"][6, 0, 1, 1] = 2000.0, np.nan
    ds.to_netcdf(tmp_path / "wrong.nc")
    assert main(["check", str(tmp_path / "wrong.nc"), f"output={tmp_path}"]) == 2
    printed = capsys.readouterr()
    for told in ("gap: 2001-01-02T00:00:00 to 2001-01-02T12:00:00", "2000", "2001-01-02T00:00", "2 points"):
        assert told in printed.out
    assert "temperature: expected 110 to 360 K; got 1 values beyond" in printed.err
    assert "missing at 1 times that are there at others, first 2001-01-02T18" in printed.err
    assert "sea_surface_temperature: expected K, the data say '1'" in printed.err
    missing = xr.open_dataset(tmp_path / "data" / "wrong" / "missing.nc").temperature
    assert missing.sel(latitude=67.5, longitude=0).item() == 22
    assert missing.sum() == 23
    assert [p.name for p in (tmp_path / "data" / "wrong").iterdir()] == ["missing.nc"]


def test_a_stopped_check_goes_on(path, tmp_path, monkeypatch):
    from data_pipelines.inspection import quality
    from data_pipelines.opening.datasets import open_dataset

    monkeypatch.setattr(quality, "BLOCK_BYTES", 4 * 2 * 32 * 3)
    whole, _ = quality.check_values(open_dataset(path), tmp_path / "a")
    examined, seen = quality._block_statistics, []

    def stopped(*words):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(words)
        return examined(*words)

    monkeypatch.setattr(quality, "_block_statistics", stopped)
    with pytest.raises(KeyboardInterrupt):
        quality.check_values(open_dataset(path), tmp_path / "b")
    seen[:] = [None] * 10  # from here on it does not stop
    other, _ = quality.check_values(open_dataset(path), tmp_path / "b", made_from={"fingerprint": "of other files"})
    assert other == whole
    assert len(seen) == 10 + 4  # all of its blocks, and none of the other's
    seen[:] = [None] * 10
    assert quality.check_values(open_dataset(path), tmp_path / "b")[0] == whole
    assert len(seen) == 10 + 2
    assert not list((tmp_path / "b").iterdir())


def test_download_regrid_and_check_of_a_part(path, tmp_path, capsys):
    part = ["fields=[temperature]", "levels=[850]", "years=2001-01-01/2001-01-03", "every=12h"]
    assert main(["download", str(path), *part, f"to={tmp_path / 'part.zarr'}"]) == 0
    ds = xr.open_zarr(tmp_path / "part.zarr")
    assert ds.temperature.shape == (6, 1, 4, 8)
    assert ds.attrs["timestep"] == "12h"
    there = str(tmp_path / "part.zarr")
    assert main(["regrid", there, "grid=4x2_equiangular", f"to={tmp_path / 'coarse.zarr'}"]) == 0
    coarse = xr.open_zarr(tmp_path / "coarse.zarr").temperature
    assert coarse.shape == (6, 1, 2, 4)
    np.testing.assert_allclose(coarse, 280.0)
    assert main(["check", str(tmp_path / "coarse.zarr"), f"output={tmp_path}"]) == 0
    assert "all files as they were written" in capsys.readouterr().out
    keys = ["data=netcdf", f"data.path={path}"]
    for words, said in (
        (["statistics", *keys, "split=tran"], "split: expected one of none, as the data have no splits; got 'tran'"),
        (["statistics", str(path)], "Expected a data source by its keys; got .*data=netcdf data.path="),
        (["download", str(path)], "to=era5.zarr"),
        (["regrid", str(path)], "grid=64x32_equiangular"),
        (["regrid", str(path), "grid=64x32"], "longitudes x latitudes"),
        (["download", str(path), "fields=[temperatur]", "to=x"], "did you mean 'temperature'"),
        (["download", str(path), "years=[1999,2000]", "to=x"], "no times from 1999"),
    ):
        with pytest.raises(ValueError, match=said):
            main(words)
