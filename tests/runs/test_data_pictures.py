"""`emul data picture`: every picture that the data allow, in the folder that is told."""

import numpy as np
import pytest
import xarray as xr

from emul.data.arguments import main

DAYS = ["data.days=3", "data.trajectories=1"]


@pytest.mark.slow
def test_pictures_of_a_planet(tmp_path, capsys):
    from PIL import Image

    words = ["picture", "data=planet_tiny", f"data.folder={tmp_path}", *DAYS, f"output={tmp_path}"]
    assert main(words) == 0
    folder = tmp_path / "data" / "planet_tiny"
    told = capsys.readouterr()
    assert f"storms.png, zonal_mean.png, spectrum.png, month.webp in {folder}" in told.out
    assert not told.err
    for name in ("storms.png", "zonal_mean.png", "spectrum.png", "month.webp"):
        with Image.open(folder / name) as image:
            assert np.ptp(np.asarray(image.convert("L"))) > 150, name
            assert getattr(image, "n_frames", 1) == (12 if name == "month.webp" else 1)


def test_what_the_data_do_not_hold_is_left_out(tmp_path, capsys):
    times = np.datetime64("2001-01-01", "ns") + np.arange(8) * np.timedelta64(6, "h")
    latitude = 90.0 - 22.5 * (np.arange(8) + 0.5)
    fields = np.random.default_rng(0).normal(size=(8, 2, 8, 16)).astype("float32")
    dims = ("time", "level", "latitude", "longitude")
    dataset = xr.Dataset(
        {"u": (dims, fields, {"units": "m s-1"}), "v": (dims, fields, {"units": "m s-1"})},
        {
            "time": times,
            "level": ("level", [500.0, 850.0], {"units": "hPa"}),
            "latitude": latitude,
            "longitude": np.arange(16) * 22.5,
        },
    )
    dataset.to_netcdf(tmp_path / "winds.nc")
    words = ["picture", "data=netcdf", f"data.path={tmp_path / 'winds.nc'}", f"output={tmp_path}"]
    assert main(words) == 0
    told = capsys.readouterr()
    assert "spectrum.png in" in told.out
    assert "storms.png is left out: the data hold no total_precipitation_6hr." in told.err
    dataset[["u"]].isel(longitude=slice(0, 4)).to_netcdf(tmp_path / "part.nc")
    with pytest.raises(ValueError, match="No picture can be made of data=netcdf"):
        main([*words[:2], f"data.path={tmp_path / 'part.nc'}", words[-1]])
