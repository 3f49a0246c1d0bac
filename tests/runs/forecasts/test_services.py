"""Forecasts for services: GRIB beside the store, NetCDF by the CF conventions, files for verif."""

import sys

import numpy as np
import pytest
import xarray as xr

from data_pipelines.conventions.units import known_units
from data_pipelines.forecasts.manifest import read_manifest, verify_checksums
from emul.config.compose import compose
from emul.eval import evaluate
from emul.forecast import forecast

WORDS = ["init=[2003-01-13,2003-01-14]", "lead=12h"]


def test_grib_beside_the_store_in_one_command(home, tmp_path):
    eccodes = pytest.importorskip("eccodes")
    words = ["writer=grib", "writer.levels=[850]", *WORDS]
    folder = forecast(home.config(tmp_path, *words))
    names = sorted(path.name for path in (folder / "grib").iterdir())
    assert names == [f"200301{day}T0000_000{hours:02d}h.grib2" for day in (13, 14) for hours in (6, 12)]
    assert verify_checksums(folder) == []
    with xr.open_zarr(folder / "forecast.zarr", consolidated=True) as store:
        field = store["temperature"].sel(level=850).isel(time=1, prediction_timedelta=1).values
    with open(folder / "grib" / names[-1], "rb") as file:
        handle = eccodes.codes_grib_new_from_file(file)
        assert eccodes.codes_get(handle, "shortName") == "t"
        np.testing.assert_allclose(eccodes.codes_get_values(handle).reshape(field.shape), field, atol=2e-3)
        eccodes.codes_release(handle)
    (folder / "grib" / names[0]).unlink()
    with pytest.raises(FileNotFoundError, match="has lost 1 of its files"):
        forecast(home.config(tmp_path, *words))
    noisy = ["writer=grib", "members=2", "keep=statistics", "name=statistics", *WORDS]
    with pytest.raises(ValueError, match="no short name of ecCodes is kept here for temperature_standard_deviation"):
        forecast(home.config(tmp_path, *noisy, run="noisy"))
    assert not (tmp_path / "forecast" / "statistics").exists()


def test_without_eccodes_it_is_said_before_any_work(home, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "eccodes", None)
    with pytest.raises(ValueError, match=r"writer=grib needs eccodes: pip install 'emul\[grib\]'"):
        forecast(home.config(tmp_path, "writer=grib", *WORDS))
    assert not (tmp_path / "forecast").exists()


def test_netcdf_keeps_to_the_cf_conventions(home, tmp_path):
    """Units that UDUNITS knows, names and directions of coordinates, and attributes of the file (CF 1.11, 2 to 5)."""
    folder = forecast(home.config(tmp_path, "writer=netcdf", *WORDS))
    with xr.open_dataset(folder / "forecast.nc", decode_cf=False) as found:
        assert found.attrs["Conventions"].startswith("CF-1.")
        assert found.attrs["title"]
        assert found.attrs["source"]
        for name, field in found.variables.items():
            attrs = field.attrs
            assert attrs.get("long_name") or attrs.get("standard_name"), name
            if " since " not in attrs["units"]:
                assert known_units(attrs["units"]) is not None, name
        assert found["latitude"].attrs["units"] == "degrees_north"
        assert found["longitude"].attrs["units"] == "degrees_east"
        assert found["level"].attrs["positive"] == "down"
        assert found["valid_time"].attrs["standard_name"] == "time"
        for field in found.data_vars.values():
            if field.dims[:2] == ("time", "prediction_timedelta") and field.ndim > 2:
                assert set(field.attrs["coordinates"].split()) <= {*found.variables}
                assert field.dims[-2:] == ("latitude", "longitude")
    for name, axis in (("latitude", "Y"), ("longitude", "X"), ("level", "Z")):
        assert found[name].attrs["axis"] == axis


def test_evaluations_write_files_for_verif(home, tmp_path):
    forecast(home.config(tmp_path, *WORDS))
    words = [f"run={home.run('tame')}", f"output={tmp_path}", "pictures=false", "verif.places=[[60,10.5,94],[-30,150]]"]
    target = evaluate(compose("eval", [*words, "verif.fields=[2m_temperature]"]))
    assert [path.name for path in (target / "verif").iterdir()] == ["2m_temperature.nc"]
    with xr.open_dataset(target / "verif" / "2m_temperature.nc") as found:
        assert found.sizes == {"time": 2, "leadtime": 2, "location": 2}
        assert np.isfinite(found["fcst"]).all()
        assert np.isfinite(found["obs"]).all()
    assert read_manifest(tmp_path / "forecast" / "tame")["verdict"] == "verified"
    with pytest.raises(ValueError, match=r"verif\.fields: no geopotential is scored"):
        evaluate(compose("eval", [*words, "verif.fields=[geopotential]"]))
