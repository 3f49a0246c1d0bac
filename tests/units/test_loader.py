"""Batches: an order that is a pure function of the seed, resumable at any step, split over ranks."""

import threading

import numpy as np
import pytest
import torch
import xarray as xr

from data_pipelines.archive import Archive
from data_pipelines.loader import Batches, InOrder
from data_pipelines.windows import Windows
from data_pipelines.worlds import Roles, world
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
    return Windows(Archive(ds, world(ds, Roles(["temperature"]))), ["2001", "2001"], rollout=3)


def take(batches, count):
    iterator = iter(batches)
    made = [next(iterator) for _ in range(count)]
    iterator.close()
    return made


def test_every_epoch_holds_each_window_once(windows):
    batches = Batches(windows, 5, seed=3)
    row = np.concatenate([batches.indices(step) for step in range(len(windows))])  # five epochs
    epochs = row.reshape(5, len(windows))
    assert (np.sort(epochs, axis=1) == np.arange(len(windows))).all()
    assert len({tuple(epoch) for epoch in epochs}) == 5
    assert (row != np.concatenate([Batches(windows, 5, seed=4).indices(s) for s in range(len(windows))])).any()


def test_resuming_goes_on_exactly(windows):
    whole = take(Batches(windows, 4, seed=1), 12)
    later = take(Batches(windows, 4, seed=1, start=7), 5)
    for one, two in zip(whole[7:], later, strict=True):
        assert torch.equal(one.target[0].values, two.target[0].values)
        assert (one.target[0].time == two.target[0].time).all()


def test_ranks_share_a_batch(windows):
    alone = Batches(windows, 6, seed=1)
    shared = [Batches(windows, 3, seed=1, rank=rank, ranks=2) for rank in range(2)]
    for step in (0, 3, 40):
        both = np.concatenate([part.indices(step) for part in shared])
        assert (both == alone.indices(step)).all()
    orders = [np.concatenate(list(InOrder(windows, 4, rank=r, ranks=2).own[None])) for r in range(2)]
    assert sorted(np.concatenate(orders)) == list(range(len(windows)))


def test_rollout_may_follow_the_step(windows):
    made = take(Batches(windows, 2, rollout=lambda step: 1 + step // 2), 5)
    assert [len(window.target) for window in made] == [1, 1, 2, 2, 3]
    assert [len(window.target) for window in take(Batches(windows, 2, rollout=2), 1)] == [2]
    with pytest.raises(ValueError, match="1 to 3 targets"):
        take(Batches(windows, 2, rollout=4), 1)


def test_unshuffled_and_in_order(windows):
    assert Batches(windows, 4, shuffle=False).indices(1).tolist() == [4, 5, 6, 7]
    batches = InOrder(windows, 5)
    times = np.concatenate([window.history[-1].time for window in batches])
    assert (times == windows.init_times).all()
    assert len(batches) == 5
    assert len(list(InOrder(windows, 5, limit=2))) == len(InOrder(windows, 5, limit=2)) == 2


def test_threads_end_with_the_iterator(windows):
    before = threading.active_count()
    batches = Batches(windows, 2)
    take(batches, 3)
    list(InOrder(windows, 5))
    assert threading.active_count() == before
    assert batches.waited > 0


def test_nonsense_is_refused(windows):
    for arguments in ({"batch_size": 0}, {"batch_size": 1, "rank": 2, "ranks": 2}):
        with pytest.raises(ValueError, match="Expected batch_size"):
            Batches(windows, **arguments)
