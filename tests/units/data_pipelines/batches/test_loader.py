"""Batches: an order that is a pure function of the seed, resumable at any step, split over ranks."""

import gc
import shutil
import threading

import numpy as np
import pytest
import torch
import xarray as xr

from data_pipelines.batches.archive import Archive
from data_pipelines.batches.loader import PAGE, BatchBuffers, LoaderSettings, SequentialBatches, ShuffledBatches
from data_pipelines.batches.windows import Windows
from data_pipelines.batches.world import VariableRoles, world_from_dataset
from data_pipelines.opening.datasets import open_dataset
from data_pipelines.reading import threads
from data_pipelines.reading.threads import DamagedData
from emulators.grid import gaussian_grid

GRID = gaussian_grid(4)


@pytest.fixture(scope="module")
def windows() -> Windows:
    times = np.datetime64("2001-01-01", "s") + np.arange(25) * np.timedelta64(6, "h")
    fields = np.random.default_rng(0).normal(size=(25, *GRID.shape))
    ds = xr.Dataset(
        {"temperature": (("time", "latitude", "longitude"), fields)},
        {"time": times, "latitude": GRID.latitude, "longitude": GRID.longitude},
    )
    return Windows(Archive(ds, world_from_dataset(ds, VariableRoles(["temperature"]))), ["2001", "2001"], rollout=3)


def take(batches, count):
    iterator = iter(batches)
    made = [next(iterator) for _ in range(count)]
    iterator.close()
    return made


def test_every_epoch_holds_each_window_once(windows):
    batches = ShuffledBatches(windows, 5, seed=3)
    row = np.concatenate([batches.indices(step) for step in range(len(windows))])  # five epochs
    epochs = row.reshape(5, len(windows))
    assert (np.sort(epochs, axis=1) == np.arange(len(windows))).all()
    assert len({tuple(epoch) for epoch in epochs}) == 5
    assert (row != np.concatenate([ShuffledBatches(windows, 5, seed=4).indices(s) for s in range(len(windows))])).any()


def test_resuming_goes_on_exactly(windows):
    whole = take(ShuffledBatches(windows, 4, seed=1), 12)
    later = take(ShuffledBatches(windows, 4, seed=1, start=7), 5)
    for one, two in zip(whole[7:], later, strict=True):
        assert torch.equal(one.target[0].values, two.target[0].values)
        assert (one.target[0].time == two.target[0].time).all()


def test_ranks_share_a_batch(windows):
    alone = ShuffledBatches(windows, 6, seed=1)
    shared = [ShuffledBatches(windows, 3, seed=1, rank=rank, ranks=2) for rank in range(2)]
    for step in (0, 3, 40):
        both = np.concatenate([part.indices(step) for part in shared])
        assert (both == alone.indices(step)).all()
    alone.batch_size = 3
    alone.divide(1, 2)
    assert (alone.indices(7) == shared[1].indices(7)).all()


def test_rollout_may_follow_the_step(windows):
    made = take(ShuffledBatches(windows, 2, rollout=lambda step: 1 + step // 2), 5)
    assert [len(window.target) for window in made] == [1, 1, 2, 2, 3]
    assert [len(window.target) for window in take(ShuffledBatches(windows, 2, rollout=2), 1)] == [2]
    with pytest.raises(ValueError, match="1 to 3 targets"):
        take(ShuffledBatches(windows, 2, rollout=4), 1)


def test_batches_in_order(windows):
    batches = SequentialBatches(windows, 5)
    times = np.concatenate([window.history[-1].time for window in batches])
    assert (times == windows.init_times).all()
    assert len(list(batches)) == len(batches) == 5


def test_threads_end_with_the_iterator(windows):
    before = threading.active_count()
    batches = ShuffledBatches(windows, 2)
    take(batches, 3)
    list(SequentialBatches(windows, 5))
    assert threading.active_count() == before
    assert batches.waited > 0


@pytest.fixture(scope="module")
def chunked(tmp_path_factory) -> xr.Dataset:
    """120 times of noise, ten a chunk."""
    times = np.datetime64("2001-01-01", "ns") + np.arange(120) * np.timedelta64(6, "h")
    fields = np.random.default_rng(0).normal(size=(120, *GRID.shape)).astype("f4")
    ds = xr.Dataset(
        {"temperature": (("time", "latitude", "longitude"), fields)},
        {"time": times, "latitude": GRID.latitude, "longitude": GRID.longitude},
    )
    path = tmp_path_factory.mktemp("chunked") / "a.zarr"
    ds.to_zarr(path, encoding={"temperature": {"chunks": (10, *GRID.shape)}}, consolidated=False)
    return open_dataset(path)


def batches_of(ds, gigabytes=0.0, **reading):
    archive = Archive(ds, world_from_dataset(ds, VariableRoles(["temperature"])), cache_gigabytes=gigabytes)
    return ShuffledBatches(Windows(archive, ["2001", "2001"]), 5, seed=1, reading=LoaderSettings(**reading))


def test_memory_is_used_again_once_nobody_holds_it(windows):
    iterator = iter(ShuffledBatches(windows, 4, reading=LoaderSettings(ahead=0)))
    first = next(iterator)
    place, kept = first.history[0].values.data_ptr(), first.target[0].values[1:2]
    before = kept.clone()
    del first
    others = {next(iterator).history[0].values.data_ptr() for _ in range(6)}
    assert place not in others  # a view of it is still held
    assert len(others) <= 2
    assert torch.equal(kept, before)
    del kept
    gc.collect()
    held = [next(iterator) for _ in range(3)]
    assert place in {batch.history[0].values.data_ptr() for batch in held}


@pytest.mark.parametrize("size", [1, 1023, 1_000_001])
def test_memory_begins_with_a_page(size):
    assert BatchBuffers().tensor((size,)).data_ptr() % PAGE == 0


def test_chunks_of_many_times_are_shuffled_a_few_at_a_time(chunked):
    row = 4 * GRID.shape[0] * GRID.shape[1]
    batches = batches_of(chunked, gigabytes=6.1 * 10 * row / 1e9)  # six of twelve chunks
    archive, reads = batches.windows.archive, []
    whole = batches_of(chunked, gigabytes=1.0)
    assert (archive.shuffle_chunks, archive.cached_chunks, whole.windows.archive.shuffle_chunks) == (3, 6, 0)
    assert "3 chunks of 10 times" in batches.randomness
    order = np.concatenate([batches.indices(step) for step in range(119)]).reshape(5, 119)
    assert (np.sort(order) == np.arange(119)).all()
    assert all(np.unique(epoch[:29] // 10).size <= 3 for epoch in order)
    assert len({tuple(np.unique(epoch[:29] // 10)) for epoch in order}) > 1
    read = archive.fields.read
    archive.fields.read = lambda positions, *rest: (reads.append(len(positions)), read(positions, *rest))[1]
    for step in range(24):
        one, two = batches.batch(step), whole.windows.window(batches.indices(step))
        assert torch.equal(one.target[0].values, two.target[0].values)
    assert sum(reads) <= 2 * 120  # a window may reach into the chunk after its own
    assert sum(block.nbytes for block in archive._chunks.values()) <= archive.memory_bytes


def test_damaged_data_stop_the_batches_or_are_replaced(chunked, tmp_path, monkeypatch):
    monkeypatch.setattr(threads, "WAITS", (0.0,))
    path = tmp_path / "a.zarr"
    shutil.copytree(chunked.attrs["origin"], path)
    chunk = path / "temperature" / "c" / "3" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:20])
    with pytest.raises(DamagedData, match=r"'temperature' at 2001-01-(08T12|08T18|09|10)"):
        [window for window, _ in zip(batches_of(open_dataset(path)), range(24), strict=False)]
    batches, whole = batches_of(open_dataset(path), damaged="skip"), batches_of(chunked)
    for step in range(24):
        wanted = [40 if 29 <= index < 40 else index for index in whole.indices(step)]
        expected = whole.windows.window(np.array(wanted))
        assert torch.equal(batches.batch(step).target[0].values, expected.target[0].values)
    assert batches.skipped == 11  # 29 ends in the damaged chunk
    assert "11 damaged windows replaced" in batches.pace()


def test_what_will_be_read_is_told(chunked, windows):
    batches = batches_of(chunked)
    assert batches.facts()["fields"] == "read when needed"
    assert batches.memory_bytes == 5 * 5 * 2 * 4 * GRID.shape[0] * GRID.shape[1] + batches.reading_bytes
    assert ShuffledBatches(windows, 5).facts()["fields"].startswith("all in memory")
    with pytest.raises(ValueError, match="damaged stop or skip"):
        LoaderSettings(damaged="ignore")


def test_overlapping_windows_share_reads(chunked):
    archive = batches_of(chunked).windows.archive
    windows, read, asked = Windows(archive, ["2001", "2001"], rollout=3), archive.fields.read, []
    archive.fields.read = lambda positions, *rest: (asked.extend(positions), read(positions, *rest))[1]
    window = windows.window(np.array([4, 5, 6, 5]))
    assert sorted(asked) == [4, 5, 6, 7, 8, 9]
    for row, start in enumerate((4, 5, 6, 5)):
        for lead, state in enumerate((window.history[0], *window.target)):
            np.testing.assert_array_equal(state.values[row, 0], chunked["temperature"][start + lead])


def test_a_stride_leaves_out_windows(windows):
    every = Windows(windows.archive, ["2001", "2001"], stride=4)
    np.testing.assert_array_equal(every.init_times, windows.archive.times[:24:4])
    with pytest.raises(ValueError, match="stride of at least 1"):
        LoaderSettings(stride=0)


def test_no_thread_where_none_is_wanted(windows):
    batches, before = ShuffledBatches(windows, 2, reading=LoaderSettings(ahead=0)), threading.active_count()
    iterator = iter(batches)
    assert torch.equal(next(iterator).target[0].values, ShuffledBatches(windows, 2).batch(0).target[0].values)
    assert threading.active_count() == before
    assert batches.waited > 0


def test_nonsense_is_refused(windows):
    for arguments in ({"batch_size": 0}, {"batch_size": 1, "rank": 2, "ranks": 2}):
        with pytest.raises(ValueError, match="Expected batch_size"):
            ShuffledBatches(windows, **arguments)
