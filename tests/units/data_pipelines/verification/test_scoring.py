"""Sums of an evaluation on disk: gone on with, added up, and never taken for those of another."""

import re

import numpy as np
import pytest
import xarray as xr

from data_pipelines.jobs.processes import parse_share
from data_pipelines.verification.pairs import Pairs
from data_pipelines.verification.scoring import OddValues, PartialSums
from emulators.grid import equiangular_grid


class Counter:
    def __init__(self):
        self.total = np.zeros(2)

    def partial(self):
        return {"total": self.total}

    def add_partial(self, partial):
        self.total = self.total + partial["total"]


def parts(value=0.0):
    found = {"forecast": Counter(), "forecast beside": Counter()}
    found["forecast"].total += value
    found["forecast beside"].total += 10 * value
    return found


def test_an_evaluation_goes_on_where_it_was_killed(tmp_path):
    sums = PartialSums(tmp_path, {"inits": [1, 2]}, (1, 1), every=0)
    assert sums.restore(parts()) == 0
    sums.save(parts(2.0), 3, of=5)
    after = parts()
    assert PartialSums(tmp_path, {"inits": [1, 2]}, (1, 1), every=0).restore(after) == 3
    assert [part.total.tolist() for part in after.values()] == [[2.0, 2.0], [20.0, 20.0]]


def test_sums_of_something_else_are_not_taken(tmp_path):
    PartialSums(tmp_path, {"leads": 10}, (1, 1), every=0).save(parts(2.0), 3, of=5)
    assert PartialSums(tmp_path, {"leads": 9}, (1, 1), every=0).restore(parts()) == 0
    sums = PartialSums(tmp_path, {"leads": 10}, (1, 1), every=0)
    path = sums.path(1)
    path.write_bytes(path.read_bytes()[:50])
    assert sums.restore(parts()) == 0


def test_not_every_block_is_saved(tmp_path):
    sums = PartialSums(tmp_path, {}, (1, 1), every=1e9)
    sums.save(parts(1.0), 1, of=2)
    assert not sums.folder.exists()
    sums.save(parts(1.0), 2, of=2)
    assert sums.path(1).is_file()
    sums.remove()
    assert not sums.folder.exists()


def test_shares_add_up_once_all_are_complete(tmp_path):
    first, second = (PartialSums(tmp_path, {}, (share, 3), every=0) for share in (1, 2))
    first.save(parts(1.0), 4, of=4)
    second.save(parts(2.0), 1, of=2)
    last = PartialSums(tmp_path, {}, (3, 3), every=0)
    mine = parts(4.0)
    last.save(mine, 2, of=2)
    assert last.add_others(mine) == [2]
    assert mine["forecast"].total[0] == 4.0
    second.save(parts(3.0), 2, of=2)
    assert last.add_others(mine) == []
    assert [part.total[0] for part in mine.values()] == [8.0, 80.0]


@pytest.mark.parametrize(("text", "found"), [(None, (1, 1)), ("1/4", (1, 4)), (" 4 / 4 ", (4, 4))])
def test_a_share_by_name(text, found):
    assert parse_share(text) == found


@pytest.mark.parametrize("text", ["0/4", "5/4", "4", "a/b", "1/2/3"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(ValueError, match="share="):
        parse_share(text)


def test_missing_values_that_are_left_out_as_agreed_are_counted_in_one_sentence():
    grid = equiangular_grid(4)
    times = np.arange("2001-01-01", "2001-01-09", dtype="datetime64[D]").astype("datetime64[ns]")
    space = {"latitude": grid.latitude, "longitude": grid.longitude}
    values = np.full((8, *grid.shape), 280.0, np.float32)
    truth = xr.Dataset({"temperature": (("time", *space), values.copy())}, {"time": times, **space})
    truth["temperature"][3:6, 0, :2] = np.nan
    leads = np.arange(1, 3) * np.timedelta64(1, "D").astype("timedelta64[ns]")
    coords = {"time": times[:5], "prediction_timedelta": leads, **space}
    coords["valid_time"] = (("time", "prediction_timedelta"), times[:5, None] + leads)
    made = np.full((5, 2, *grid.shape), 281.0, np.float32)
    pairs = Pairs(xr.Dataset({"temperature": (("time", "prediction_timedelta", *space), made)}, coords), truth)
    odd = OddValues(pairs.variables, pairs.grid)
    for pair in pairs:
        odd.add(pair)
    agreed = odd.notes("truth")
    assert len(agreed) == 1
    assert re.fullmatch(r"Missing values are left out of the scores: temperature \(12 of the truth\)\.", agreed[0])
    (refused,) = odd.notes("none")
    assert "values of the truth are missing, the first of" in refused
