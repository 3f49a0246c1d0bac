"""Files for verif of MET Norway: forecast and truth at places, read by its own reader where it is installed."""

import numpy as np
import pytest
import xarray as xr

from data_pipelines.verification.pairs import Pairs
from data_pipelines.verification.verif_files import VerifFiles, nearest_points
from emulators.grid import equiangular_grid, gaussian_grid

GRID = equiangular_grid(4)
SPACE = {"latitude": GRID.latitude, "longitude": GRID.longitude}
INITS = np.array(["2001-01-01", "2001-01-02", "2001-01-03"], dtype="datetime64[ns]")
PLACES = [[60, 10.5, 94], [-20, -170]]


def pairs(members=0):
    """Forecasts of three initial times and two leads; the truth lacks the last valid time."""
    generator = np.random.default_rng(0)
    leads = np.array([24, 48], dtype="timedelta64[h]").astype("timedelta64[ns]")
    ensemble = {"member": members} if members else {}
    shape = (*ensemble.values(), 3, 2, 2, *GRID.shape)
    fields = generator.normal(280.0, 5.0, shape).astype("f4")
    dims = (*ensemble, "time", "prediction_timedelta", "level", *SPACE)
    coords = {"time": INITS, "prediction_timedelta": leads, "level": [500, 850], **SPACE}
    coords["valid_time"] = (("time", "prediction_timedelta"), INITS[:, None] + leads)
    forecast = xr.Dataset({"temperature": (dims, fields, {"units": "K"})}, coords)
    times = INITS[0] + np.arange(4) * np.timedelta64(1, "D")
    analysis = generator.normal(280.0, 5.0, (4, 2, *GRID.shape)).astype("f4")
    truth = xr.Dataset(
        {"temperature": (("time", "level", *SPACE), analysis, {"units": "K"})},
        {"time": times, "level": [500, 850], **SPACE},
    )
    return Pairs(forecast, truth, megabytes=0.001), forecast, truth


@pytest.mark.parametrize("members", [0, 3])
def test_a_file_has_forecast_and_truth_at_the_nearest_points(tmp_path, members):
    matched, forecast, truth = pairs(members)
    files = VerifFiles(matched, PLACES).write(tmp_path, lambda share: None)
    assert [path.name for path in files] == ["temperature_500.nc", "temperature_850.nc"]
    for number, path in enumerate(files):
        with xr.open_dataset(path, decode_times=False) as found:
            assert found.attrs["verif_version"] == "verif_1.0.0"
            assert (found.attrs["units"], found["leadtime"].values.tolist()) == ("K", [24.0, 48.0])
            assert found["fcst"].dims == ("time", "leadtime", "location")
            np.testing.assert_array_equal(found["lat"], [60, -20])
            np.testing.assert_array_equal(found["altitude"], [94, np.nan])
            assert np.isnan(found["obs"].values[2, 1]).all()  # 5 January is not in the truth
            for place, (latitude, longitude, *_) in enumerate(PLACES):
                at = {"latitude": latitude, "longitude": longitude % 360}
                true = truth["temperature"].isel(level=number).sel(at, method="nearest").values
                np.testing.assert_array_equal(found["obs"].values[0, :, place], true[1:3])
                predicted = forecast["temperature"].isel(level=number).sel(at, method="nearest").values
                rows = np.moveaxis(predicted, 0, -1) if members else predicted[..., None]
                np.testing.assert_allclose(found["fcst"].values[:2, :, place], rows[:2].mean(-1), rtol=1e-6)
                if members:
                    np.testing.assert_array_equal(found["ensemble"].values[:2, :, place], rows[:2])


def test_verif_reads_it(tmp_path):
    reader = pytest.importorskip("verif.input")
    matched, *_ = pairs(3)
    path = VerifFiles(matched, PLACES).write(tmp_path, lambda share: None)[0]
    read = reader.get_input(str(path))
    assert isinstance(read, reader.Netcdf)
    with xr.open_dataset(path, decode_times=False) as found:
        np.testing.assert_allclose(read.fcst, found["fcst"])
        np.testing.assert_allclose(read.obs, found["obs"])
        assert read.num_members == 3
        np.testing.assert_allclose(read.times, found["time"])
    assert next((place.lat, place.lon, place.elev) for place in read.locations) == (60, 10.5, 94)
    assert read.variable.units.strip("$") == "K"


def test_nearest_is_by_distance_and_across_the_meridian():
    grid = gaussian_grid(16)
    generator = np.random.default_rng(1)
    latitude, longitude = generator.uniform(-90, 90, 50), generator.uniform(-180, 180, 50)
    nearest, distance = nearest_points(grid, latitude, longitude)
    phi, lam = np.deg2rad(grid.points)
    for place in range(50):
        at, east = np.deg2rad([latitude[place], longitude[place]])
        cosine = np.sin(at) * np.sin(phi) + np.cos(at) * np.cos(phi) * np.cos(lam - east)
        angle = np.arccos(np.clip(cosine, -1, 1))
        assert nearest[place] == angle.argmin()
        np.testing.assert_allclose(distance[place], 6371.0 * angle.min(), rtol=1e-9)


def test_what_cannot_be_is_refused():
    matched, *_ = pairs()
    with pytest.raises(ValueError, match=r"expected latitude, longitude and, if known, altitude .* got \[99, 1\]"):
        VerifFiles(matched, [[99, 1]])
    with pytest.raises(ValueError, match="no geopotential is scored; there are temperature"):
        VerifFiles(matched, PLACES, ["geopotential"])
