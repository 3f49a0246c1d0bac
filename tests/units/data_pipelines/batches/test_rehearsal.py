"""Rehearsal: which samples are of the old data depends on the seed and the sample alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from data_pipelines.batches.archive import Archive
from data_pipelines.batches.loader import ShuffledBatches
from data_pipelines.batches.rehearsal import Rehearsal, RehearsedBatches
from data_pipelines.batches.windows import Windows
from data_pipelines.batches.world import VariableRoles, world_from_dataset
from emulators.grid import gaussian_grid

GRID = gaussian_grid(4)
OLD = 100.0  # added to the number of the time


def windows_of(year: int, times: int, base: float) -> Windows:
    """Windows of data whose value is the number of the time, from `base` on."""
    clock = np.datetime64(f"{year}-01-01", "s") + np.arange(times) * np.timedelta64(6, "h")
    fields = base + np.arange(times)[:, None, None] * np.ones(GRID.shape)
    dataset = xr.Dataset(
        {"temperature": (("time", "latitude", "longitude"), fields)},
        {"time": clock, "latitude": GRID.latitude, "longitude": GRID.longitude},
    )
    world = world_from_dataset(dataset, VariableRoles(["temperature"]))
    return Windows(Archive(dataset, world), [str(year), str(year)], rollout=2)


NEW_WINDOWS, OLD_WINDOWS = windows_of(2001, 25, 0.0), windows_of(1991, 17, OLD)


def rehearsed(batch_size: int = 8, share: float = 0.3, **options) -> RehearsedBatches:
    return RehearsedBatches(NEW_WINDOWS, batch_size, old=OLD_WINDOWS, share=share, seed=5, **options)


def firsts(window) -> torch.Tensor:
    return window.history[0].values[:, 0, 0, 0].clone()


def test_samples_come_from_their_own_data():
    batches, is_old = rehearsed(), []
    for step in range(40):
        window = batches.batch(step)
        chosen = batches.is_old(step)
        is_old.extend(chosen)
        years = window.history[0].time.astype("datetime64[Y]").astype(str)
        assert (years == np.where(chosen, "1991", "2001")).all()
        expected = window.history[0].time - np.where(chosen, np.datetime64("1991-01-01"), np.datetime64("2001-01-01"))
        number = torch.as_tensor(expected / np.timedelta64(6, "h") + np.where(chosen, OLD, 0.0), dtype=torch.float32)
        for lead, state in enumerate((*window.history, *window.target)):
            assert torch.equal(state.values[:, 0, 0, 0], number + lead)
            assert (state.time == window.history[0].time + lead * np.timedelta64(6, "h")).all()
    assert np.mean(is_old) == pytest.approx(0.3, abs=3 * np.sqrt(0.3 * 0.7 / len(is_old)))


def test_without_a_share_batches_are_those_of_the_new_data():
    plain = ShuffledBatches(NEW_WINDOWS, 8, seed=5)
    for step in range(4):
        assert torch.equal(firsts(rehearsed(share=0.0).batch(step)), firsts(plain.batch(step)))


@pytest.mark.parametrize(("ranks", "passes"), [(2, 1), (1, 2), (2, 2)])
def test_a_step_has_the_same_samples_however_it_is_split(ranks, passes):
    whole = rehearsed()
    parts = [rehearsed(8 // (ranks * passes)) for _ in range(ranks)]
    for rank, part in enumerate(parts):
        part.divide(rank, ranks)
    for step in range(5):
        pieces = [firsts(part.batch(step * passes + turn)) for turn in range(passes) for part in parts]
        assert torch.equal(torch.cat(pieces), firsts(whole.batch(step)))


def test_a_training_that_is_resumed_goes_on_with_the_same_samples():
    whole, later = iter(rehearsed()), iter(rehearsed(start=3))
    beginning = [firsts(next(whole)) for _ in range(5)]
    assert all(torch.equal(firsts(next(later)), one) for one in beginning[3:])
    whole.close()
    later.close()


def test_the_plan_says_how_much_is_rehearsed():
    batches = rehearsed()
    assert batches.facts()["rehearsed"].startswith("30% of the samples, from 15 windows")
    assert batches.memory_bytes > ShuffledBatches(NEW_WINDOWS, 8).memory_bytes


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_shares_that_cannot_be(share):
    with pytest.raises(ValueError, match=r"rehearsal\.share"):
        Rehearsal(share=share)
