"""Scales: exact area-weighted moments, whatever the blocks."""

import numpy as np
import pytest
import xarray as xr

from data_pipelines import statistics
from data_pipelines.archive import Archive
from data_pipelines.statistics import Moments, scales
from data_pipelines.worlds import Roles, world
from emulators.grid import equiangular_grid

GRID = equiangular_grid(6, poles=True)
PERIOD = ["2001-01-01", "2001-01-20"]


def archive(count=100, **fields) -> Archive:
    rng = np.random.default_rng(1)
    shape = (count, *GRID.shape)
    times = np.datetime64("2001-01-01", "s") + np.arange(count) * np.timedelta64(6, "h")
    fields = {"temperature": rng.normal(280, 10, shape) + 20 * np.arange(6)[:, None], **fields}
    ds = xr.Dataset(
        {name: (("time", "latitude", "longitude"), values) for name, values in fields.items()}
        | {"flat": (("latitude", "longitude"), np.full(GRID.shape, 3.7))},
        {"time": times, "latitude": GRID.latitude, "longitude": GRID.longitude},
    )
    return Archive(ds, world(ds, Roles(["temperature"], forcing=[*list(fields)[1:], "sin_year"], static=["flat"])))


def test_moments_are_those_of_the_whole(monkeypatch):
    data = archive()
    fields = data.gather(data.within(PERIOD)).numpy().astype(np.float64)[:, 0]
    weights = np.broadcast_to(GRID.weights, fields.shape)
    mean = np.average(fields, weights=weights)
    std = np.sqrt(np.average((fields - mean) ** 2, weights=weights))
    change = np.diff(fields, axis=0)
    average = np.average(change, weights=weights[1:])
    tendency = np.sqrt(np.average((change - average) ** 2, weights=weights[1:]))
    for block in (1, 7, 1000):
        monkeypatch.setattr(statistics, "BLOCK", block)
        found = scales(data, PERIOD)["temperature"]
        np.testing.assert_allclose((found.mean, found.std, found.tendency_std), (mean, std, tendency), rtol=1e-10)


def test_moments_of_large_means_keep_their_digits():
    moments = Moments(1)
    rng = np.random.default_rng(0)
    fields = 5e5 + rng.normal(0, 1, (1000, 1, 4))
    for block in np.split(fields, 10):
        moments.add(block, np.ones(4))
    np.testing.assert_allclose(moments.std, fields.std(), rtol=1e-9)


def test_only_the_period_counts():
    early, late = archive(), archive()
    later = late.dataset.copy(deep=True)
    later["temperature"][{"time": slice(80, None)}] = 1e6
    assert scales(early, PERIOD) == scales(Archive(later, late.world), PERIOD)


def test_constant_channels():
    shape = (100, *GRID.shape)
    found = scales(archive(sunshine=np.full(shape, 1361.0)), PERIOD)
    assert found["sunshine"].std == found["flat"].std == 1.0
    assert (found["sin_year"].mean, found["sin_year"].std) == (0.0, np.sqrt(0.5))
    with pytest.raises(ValueError, match="'temperature' does not vary at all"):
        scales(archive(temperature=np.full(shape, 280.0)), PERIOD)
    steady = np.broadcast_to(np.arange(6.0)[:, None], shape)
    with pytest.raises(ValueError, match="'temperature' does not vary from one time to the next"):
        scales(archive(temperature=steady), PERIOD)


def test_too_few_times():
    with pytest.raises(ValueError, match="at least two times"):
        scales(archive(), ["2001-01-01T00", "2001-01-01T03"])
    with pytest.raises(ValueError, match="at least two times"):
        scales(archive(), ["1990", "1991"])
