"""Packed stores: the same numbers, read by anyone, added to, taken up again, never whole before they are."""

import importlib
import json
import shutil
import tomllib
import warnings

import numpy as np
import pytest
import xarray as xr

from data_pipelines.batches.archive import Archive
from data_pipelines.batches.world import VariableRoles, world_from_dataset
from data_pipelines.packing.pack import PackingSettings, pack
from data_pipelines.reading import threads
from data_pipelines.reading.encodings import half_precision
from data_pipelines.reading.fields import Fields
from data_pipelines.reading.packed_store import ChannelRun, PackedStore, channel_runs
from data_pipelines.reading.packed_view import packed_dataset
from data_pipelines.reading.threads import DamagedData
from emulators.grid import gaussian_grid
from places import ROOT

GRID = gaussian_grid(4)
ROLES = VariableRoles(
    [{"temperature": [850, 500]}, {"wind": [200]}], ["sst", "sin_year"], ["rain"], ["land_sea_mask", "sin_latitude"]
)


def dataset(times=30) -> xr.Dataset:
    """Random fields; rain is often zero and never below."""
    random = np.random.default_rng(0)
    column, ground = ("time", "level", "latitude", "longitude"), ("time", "latitude", "longitude")

    def noise(*shape):
        return random.normal(size=(30, *shape, *GRID.shape)).astype("f4")[:times]

    return xr.Dataset(
        {
            "temperature": (column, 280 + 10 * noise(3), {"units": "K"}),
            "wind": (column, 10 * noise(3), {"units": "m s-1"}),
            "rain": (
                ground,
                np.maximum(noise(), 0) * 1e-3,
                {"units": "m", "cell_methods": "time: sum (interval: 6 hours)"},
            ),
            "sst": (ground, 290 + noise(), {"units": "K"}),
            "land_sea_mask": (("latitude", "longitude"), random.random(GRID.shape).astype("f4"), {"units": "1"}),
        },
        {
            "time": np.datetime64("2001-01-01", "ns") + np.arange(times) * np.timedelta64(6, "h"),
            "level": ("level", [200.0, 500.0, 850.0], {"units": "hPa"}),
            "latitude": GRID.latitude,
            "longitude": GRID.longitude,
        },
        {"timestep": "6h"},
    )


def made(path, how=None, times=30, **options):
    data = dataset(times)
    return pack(data, world_from_dataset(data, ROLES), path, how or PackingSettings(per_file=8, workers=2), **options)


@pytest.fixture
def store(tmp_path):
    made(tmp_path / "a.zarr", splits={"train": ["2001-01-01", "2001-01-05"], "test": None})
    return tmp_path / "a.zarr"


@pytest.fixture
def at_once(monkeypatch):
    """Reads are tried again without a wait."""
    monkeypatch.setattr(threads, "WAITS", (0.0,))


def test_xarray_opens_them_by_the_name_of_an_engine(store):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, name = project["entry-points"]["xarray.backends"]["emul-packed"].partition(":")
    engine = getattr(importlib.import_module(module), name)
    opened = xr.open_dataset(store, engine=engine, drop_variables="rain")
    xr.testing.assert_equal(opened, packed_dataset(PackedStore(store)).drop_vars("rain"))
    assert xr.open_dataset(store, engine=engine, chunks={})["rain"].chunks[0] == (1,) * 30


def test_runs_of_channels():
    assert channel_runs([(3, 0), (4, 1), (0, 2), (6, 3)]) == (
        ChannelRun(0, 1, 2),
        ChannelRun(3, 2, 0),
        ChannelRun(6, 1, 3),
    )


@pytest.mark.parametrize(
    "how",
    [PackingSettings(per_file=8), PackingSettings(compression="zstd"), PackingSettings(compression="lz4", per_file=1)],
)
def test_the_same_numbers(tmp_path, how):
    made(tmp_path / "a.zarr", how)
    data, view = dataset(), packed_dataset(PackedStore(tmp_path / "a.zarr"))
    one, two = (
        Archive(data, world_from_dataset(data, ROLES)),
        Archive(view, world_from_dataset(view, VariableRoles(None)), cache_gigabytes=0),
    )
    assert two.fields.is_packed
    assert (one.world.plain()["prognostic"], one.variables) == (two.world.plain()["prognostic"], two.variables)
    np.testing.assert_array_equal(one.world.static_fields, two.world.static_fields)
    assert two.world.diagnostic.variable("rain").cell == "sum 6h"
    for positions in ([5, 3, 5, 29, 8], list(range(30))):
        np.testing.assert_array_equal(one.gather(np.array(positions)), two.gather(np.array(positions)))


def test_other_orders_and_fewer_channels(store):
    view = packed_dataset(PackedStore(store))
    roles = VariableRoles(["rain", {"temperature": [500, 850]}], forcing=["sin_year"])
    one, two = (
        Archive(dataset(), world_from_dataset(dataset(), roles)),
        Archive(view, world_from_dataset(view, roles), cache_gigabytes=0),
    )
    assert two.fields.is_packed
    for _ in range(2):  # first with checksums, whole chunks; then the channels alone
        np.testing.assert_array_equal(one.gather(np.array([9, 2])), two.gather(np.array([9, 2])))


def test_xarray_reads_it(store):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = xr.open_zarr(store)
    assert plain["fields"].dims == ("time", "channel", "latitude", "longitude")
    field = plain["fields"].sel(channel="temperature_850")
    np.testing.assert_array_equal(field, dataset()["temperature"].sel(level=850))
    np.testing.assert_array_equal(plain["time"], dataset()["time"])


def test_the_view_is_lazy_and_like_the_source(store):
    view, data = packed_dataset(PackedStore(store)), dataset()
    np.testing.assert_array_equal(
        view["temperature"].isel(time=[4, 2], level=2, latitude=slice(1, 3), longitude=[0, 5]),
        data["temperature"].isel(time=[4, 2], level=2, latitude=slice(1, 3), longitude=[0, 5]),
    )
    assert np.isnan(view["wind"].sel(level=850).isel(time=0)).all()  # not in the store
    assert view["wind"].attrs["levels"] == [200.0]
    changed = view.assign(sst=view["sst"] + 1.0)
    assert not Fields(changed, world_from_dataset(view, VariableRoles(["sst"])).prognostic, GRID).is_packed
    assert not Fields(
        view.isel(time=slice(3, 9)), world_from_dataset(view, VariableRoles(["sst"])).prognostic, GRID
    ).is_packed


@pytest.mark.parametrize(("dtype", "bits"), [("float16", 11), ("bfloat16", 8)])
def test_half_precision_states_its_error(tmp_path, dtype, bits):
    done = made(tmp_path / "a.zarr", PackingSettings(dtype=dtype))
    view, data = packed_dataset(PackedStore(tmp_path / "a.zarr")), dataset()
    for name, channel in (("sst", "sst"), ("rain", "rain")):
        error = np.abs(view[name] - data[name]).max() / data[name].std()
        assert 0.3 * done.errors[channel] < error < 8 * 2.0**-bits
        assert done.errors[channel] == pytest.approx(float(error), rel=0.1)
    rain = view["rain"].values
    assert rain.min() == 0
    assert ((rain == 0) == (data["rain"].values == 0)).all()


def test_what_does_not_fit_is_refused():
    encoding = half_precision("float16", "none", np.array([0.0]), np.array([1.0]))
    assert np.isnan(encoding.stored(np.full((1, 1, 1), np.nan, np.float32))).all()
    with pytest.raises(ValueError, match=r"too large for float16; take dtype=float32"):
        encoding.stored(np.full((1, 1, 1), 1e8, np.float32))


def test_compression_is_measured(tmp_path):
    done = made(tmp_path / "a.zarr", PackingSettings(compression="auto"))
    assert [one.name for one in done.measured] == ["none", "lz4", "zstd"]
    best = min(done.measured, key=lambda one: one.seconds).name
    assert PackedStore(tmp_path / "a.zarr").encoding.compression == best


def test_times_are_added_behind(tmp_path):
    path = tmp_path / "a.zarr"
    assert (made(path, times=11).added, made(path, times=30).added, made(path, times=30).added) == (11, 19, 0)
    made(tmp_path / "b.zarr")
    one, two = (packed_dataset(PackedStore(p)) for p in (path, tmp_path / "b.zarr"))
    xr.testing.assert_identical(one.drop_attrs(), two.drop_attrs())
    assert PackedStore(path).faults() == []


def test_other_data_are_not_added(store):
    data = dataset()
    roles = VariableRoles(["sst"])
    with pytest.raises(ValueError, match="other variables"):
        pack(data, world_from_dataset(data, roles), store, PackingSettings())
    with pytest.raises(ValueError, match="other dtype"):
        made(store, PackingSettings(dtype="float16"))
    data["sst"][29] += 1
    with pytest.raises(ValueError, match="the data were changed"):
        pack(data, world_from_dataset(data, ROLES), store, PackingSettings())
    earlier = dataset().assign_coords(time=dataset().time - np.timedelta64(3, "h"))
    with pytest.raises(ValueError, match="times are added behind the last"):
        pack(earlier, world_from_dataset(earlier, ROLES), store, PackingSettings())


def test_a_killed_conversion_goes_on_where_it_was(tmp_path, monkeypatch):
    path, read, asked = tmp_path / "a.zarr", Fields.read, []

    def dying(self, positions, *rest):
        asked.extend(positions)
        if len(asked) > 20:
            raise KeyboardInterrupt
        read(self, positions, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Fields, "read", dying)
        with pytest.raises(KeyboardInterrupt):
            made(path, PackingSettings(per_file=4, workers=1))
    assert not path.exists()
    whole = sorted((tmp_path / ".a.zarr.partial").glob("fields/c/*/0/0/0"))
    assert len(whole) >= 2
    whole[0].write_bytes(whole[0].read_bytes()[:-7])  # what a crash of the machine may leave
    before = whole[1].stat().st_mtime_ns
    with pytest.raises(ValueError, match="begun otherwise"):
        made(path, PackingSettings(dtype="bfloat16"))
    made(path, PackingSettings(per_file=4, workers=1))
    assert (path / whole[1].relative_to(tmp_path / ".a.zarr.partial")).stat().st_mtime_ns == before
    assert PackedStore(path).faults() == []
    np.testing.assert_array_equal(packed_dataset(PackedStore(path))["sst"], dataset()["sst"])
    assert not (tmp_path / ".a.zarr.partial").exists()


def test_an_interrupted_addition_leaves_the_store_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "a.zarr"
    made(path, times=11)

    def failing(*_):
        raise RuntimeError("power")

    with monkeypatch.context() as patch:
        patch.setattr("data_pipelines.packing.metadata.finish", failing)
        with pytest.raises(RuntimeError, match="power"):
            made(path)
    assert PackedStore(path).times.size == xr.open_zarr(path).sizes["time"] == 11
    np.testing.assert_array_equal(packed_dataset(PackedStore(path))["sst"], dataset(11)["sst"])
    assert made(path).added == 19


def test_damage_is_found_and_named(store, at_once):
    file = store / "fields" / "c" / "1" / "0" / "0" / "0"
    content = bytearray(file.read_bytes())
    content[4096 + 100] ^= 1
    file.write_bytes(content)
    opened = PackedStore(store)
    assert opened.faults() == ["2001-01-03T00:00:00: its checksum is wrong"]
    data = Archive(
        packed_dataset(opened), world_from_dataset(packed_dataset(opened), VariableRoles(None)), cache_gigabytes=0
    )
    data.gather(np.array([7, 9]))
    with pytest.raises(DamagedData, match=r"'fields' at 2001-01-03T00:00:00 from .*a\.zarr.*checksum"):
        data.gather(np.array([7, 8]))
    file.unlink()
    with pytest.raises(DamagedData, match="No such file"):
        PackedStore(store).read(np.array([9]), np.empty((1, 5, *GRID.shape), np.float32))


def test_threads_read_a_batch_side_by_side(store, at_once, monkeypatch):
    monkeypatch.setattr("data_pipelines.reading.packed_store.PART_BYTES", 1)
    monkeypatch.setattr("data_pipelines.reading.packed_store._readers", lambda: 3)
    view, positions = packed_dataset(PackedStore(store)), np.array([9, 2, 29, 9, 3])
    for roles in (ROLES, VariableRoles([{"temperature": [850]}, "sst"], ["sin_year"])):
        one, two = (
            Archive(dataset(), world_from_dataset(dataset(), roles)),
            Archive(view, world_from_dataset(view, roles), cache_gigabytes=0),
        )
        for _ in range(2):
            np.testing.assert_array_equal(one.gather(positions), two.gather(positions))
    (store / "fields" / "c" / "1" / "0" / "0" / "0").unlink()
    with pytest.raises(DamagedData, match="2001-01-03T06:00:00"):
        PackedStore(store).read(np.array([2, 9, 29]), np.empty((3, 5, *GRID.shape), np.float32))


def test_stores_that_are_none(tmp_path, store):
    with pytest.raises(FileNotFoundError, match="emul data convert"):
        PackedStore(tmp_path / "b.zarr")
    dataset().to_zarr(tmp_path / "c.zarr", consolidated=True)
    with pytest.raises(ValueError, match="is no packed store"):
        PackedStore(tmp_path / "c.zarr")
    root = json.loads((store / "zarr.json").read_text())
    root["attributes"]["packed_format"] = 99
    del root["consolidated_metadata"]["digest"]
    (store / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(ValueError, match="packed format 99"):
        PackedStore(store)
    with pytest.raises(ValueError, match="dtype=int8"):
        PackingSettings(dtype="int8")


def test_a_full_disk_is_told_before(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="make room"):
        made(tmp_path / "a.zarr")
