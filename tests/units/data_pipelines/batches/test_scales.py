"""Scales: exact area-weighted moments, whatever the blocks."""

import numpy as np
import pytest
import xarray as xr

from data_pipelines.batches import scales as scales_module
from data_pipelines.batches.archive import Archive
from data_pipelines.batches.scales import channel_statistics, scales
from data_pipelines.batches.world import VariableRoles, world_from_dataset
from data_pipelines.files.batch_records import open_batch_records
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
    return Archive(
        ds,
        world_from_dataset(
            ds, VariableRoles(["temperature"], forcing=[*list(fields)[1:], "sin_year"], static=["flat"])
        ),
    )


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
        monkeypatch.setattr(scales_module, "BLOCK", block)
        found = scales(data, PERIOD)["temperature"]
        np.testing.assert_allclose((found.mean, found.std, found.tendency_std), (mean, std, tendency), rtol=1e-10)


def test_large_means_keep_their_digits():
    noise = np.random.default_rng(0).normal(0, 1, (100, *GRID.shape))
    found = scales(archive(temperature=noise + 2.0**19), PERIOD)["temperature"]
    exact = (noise + 2.0**19).astype(np.float32).astype(np.float64)[:80]
    weights = np.broadcast_to(GRID.weights, exact.shape)
    mean = np.average(exact, weights=weights)
    np.testing.assert_allclose(found.std, np.sqrt(np.average((exact - mean) ** 2, weights=weights)), rtol=1e-12)


def test_changes_over_each_interval_are_measured(tmp_path):
    data = archive()
    fields = data.gather(data.within(PERIOD)).numpy().astype(np.float64)[:, 0]
    found = scales(data, PERIOD, intervals=(0, 4, 1, 2))["temperature"]
    assert list(found.changes) == [2, 4]
    for steps, std in found.changes.items():
        change = fields[steps:] - fields[:-steps]
        weights = np.broadcast_to(GRID.weights, change.shape)
        average = np.average(change, weights=weights)
        exact = np.sqrt(np.average((change - average) ** 2, weights=weights))
        np.testing.assert_allclose(std, exact, rtol=1e-10)
    with pytest.raises(ValueError, match="at least two times 90 timesteps apart"):
        scales(data, PERIOD, intervals=(90,))
    positions = data.within(PERIOD)
    read = channel_statistics(
        lambda some: data.gather(some).numpy(), data.times, positions, data.world, intervals=(1, 2)
    )
    path = tmp_path / "statistics.nc"
    units = [variable.units for variable in data.variables for _ in variable.channels]
    made = read.dataset(data.variables.channels, units, ["6h", "12h"], {})
    assert all(field.attrs["long_name"] for field in made.variables.values())
    made.to_netcdf(path)
    stored = scales(data, PERIOD, stored=path, intervals=(2,))["temperature"]
    assert stored.changes[2] == pytest.approx(found.changes[2])
    with pytest.raises(ValueError, match=r"no statistics of 1d; make them anew with intervals=6h,1d"):
        scales(data, PERIOD, stored=path, intervals=(4,))
    made.assign_coords(channel_units=("channel", ["Pa"] * len(units))).to_netcdf(path)
    with pytest.raises(ValueError, match="Pa"):
        scales(data, PERIOD, stored=path, intervals=(2,))
    known = scales(data, PERIOD, intervals=(2,), overrides={"changes": {"temperature": {2: 9.0}}})
    assert known["temperature"].changes == {2: 9.0}


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


def test_however_the_work_is_divided_the_digits_are_the_same(monkeypatch, tmp_path):
    monkeypatch.setattr(scales_module, "BLOCK", 16)
    data = archive(count=90)
    positions = np.delete(np.arange(90), [31, 32])  # a gap

    def found(workers=1, parts=None, read=lambda some: data.gather(some).numpy()):
        return channel_statistics(
            read, data.times, positions, data.world, intervals=(1, 4), workers=workers, parts=parts
        )

    def dying(some):
        if some.max() > 50:
            raise KeyboardInterrupt
        return data.gather(some).numpy()

    whole = found()
    with pytest.raises(KeyboardInterrupt):
        found(parts=open_batch_records(tmp_path / "a", {"n": 1}), read=dying)
    reads = []
    again = found(
        parts=open_batch_records(tmp_path / "a", {"n": 1}),
        read=lambda some: (reads.append(some.min()), data.gather(some).numpy())[1],
    )
    assert min(reads) > 16
    for other in (found(workers=3), again):
        for name in ("mean", "std", "minimum", "maximum", "change_std", "pairs"):
            np.testing.assert_array_equal(getattr(other, name), getattr(whole, name))
    assert open_batch_records(tmp_path / "a", {"n": 2}).read(0) is None
    fields = data.gather(np.arange(90)).numpy().astype(np.float64)[:, 0]
    assert (whole.times, whole.pairs.tolist()) == (88, [86, 82])
    assert (whole.minimum[0], whole.maximum[0]) == (fields[positions].min(), fields[positions].max())
    both = [t for t in range(4, 90) if {t, t - 4} <= set(positions.tolist())]
    change = np.stack([fields[t] - fields[t - 4] for t in both])
    weights = np.broadcast_to(GRID.weights, change.shape)
    spread = np.sqrt(np.average((change - np.average(change, weights=weights)) ** 2, weights=weights))
    np.testing.assert_allclose(whole.change_std[1, 0], spread, rtol=1e-12)


def test_scales_come_from_a_file_too(tmp_path):
    data = archive()
    positions = data.within(PERIOD)
    found = channel_statistics(lambda p: data.gather(p).numpy(), data.times, positions, data.world)
    path = tmp_path / "statistics.nc"
    units = [variable.units for variable in data.variables for _ in variable.channels]
    found.dataset(data.variables.channels, units, ["6h"], {}).to_netcdf(path)
    assert scales(data, ["1990", "1991"], stored=path) == scales(data, PERIOD)
    found.dataset(["wind", "sin_year"], units, ["6h"], {}).to_netcdf(tmp_path / "other.nc")
    with pytest.raises(ValueError, match="has no statistics of temperature"):
        scales(data, PERIOD, stored=tmp_path / "other.nc")
    with pytest.raises(ValueError, match="holds no statistics"):
        scales(data, PERIOD, stored=tmp_path / "absent.nc")
