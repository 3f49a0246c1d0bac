"""Data on a slower clock: what is accumulated, which times remain, what is refused."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import xarray as xr

from data_pipelines.conventions.attributes import timestep_of
from data_pipelines.conventions.cells import grid_attributes
from data_pipelines.interfaces import Source
from data_pipelines.sources.averaged import Averaged
from emulators.grid import equiangular_grid

GRID = equiangular_grid(4)
SPLITS = {"train": ["2000", "2000"]}
DAYS = [("2000-01-01", 12), ("2000-02-01", 6)]  # two trajectories: first day and number of times
SUM, MEAN = {"sum": "evaporation_6hr"}, {"mean": {"evaporation_6hr": 2.0, "sun": 1.0}}


@dataclass
class SixHourly:
    """A source whose values are 0, 1, 2, ... in order of time."""

    path: str = "given"
    splits: dict = field(default_factory=lambda: SPLITS)

    def prepare(self, progress=None):
        pass

    def template(self):
        six = np.timedelta64(6, "h")
        times = np.concatenate([np.datetime64(day, "ns") + np.arange(number) * six for day, number in DAYS])
        number = np.arange(times.size, dtype=np.float32)[:, None, None] * np.ones(GRID.shape, dtype=np.float32)
        dims = ("time", "latitude", "longitude")
        fields = {
            "evaporation_6hr": (dims, number, {"units": "m", "positive": "up"}),
            "sun": (dims, 0 * number + 5.0, {"units": "W m-2"}),
        }
        coords = {"time": times, "latitude": GRID.latitude, "longitude": GRID.longitude}
        return xr.Dataset(fields, coords, grid_attributes(GRID))

    dataset = template


def values(dataset: xr.Dataset, name: str) -> list[float]:
    return dataset[name].isel(latitude=0, longitude=0).values.tolist()


def test_means_and_sums_are_over_the_timestep_before():
    """The first time with a whole day before it is number 4, whose sum is 1 + 2 + 3 + 4; none bridges a gap."""
    made: Source = Averaged(SixHourly(), "1d", {"evaporation_24hr": SUM, "mixed": MEAN, "now": {"last": "sun"}})
    dataset = made.dataset()
    numbers = [*range(4, 12), *range(16, 18)]
    assert values(dataset, "evaporation_6hr") == numbers
    assert values(dataset, "evaporation_24hr") == [4.0 * n - 6.0 for n in numbers]
    assert values(dataset, "mixed") == [2.0 * (n - 1.5) + 5.0 for n in numbers]
    assert set(values(dataset, "now")) == {5.0}
    assert timestep_of(dataset) == np.timedelta64(1, "D")
    assert dataset["evaporation_24hr"].attrs == {
        "units": "m", "positive": "up", "cell_methods": "time: sum (interval: 24 hours)",
    }  # fmt: skip
    xr.testing.assert_identical(made.template().load(), dataset.load())
    assert (made.path, made.splits) == ("given", SPLITS)


def test_any_times_are_read_alike():
    dataset = Averaged(SixHourly(), "12h", {"evaporation_12hr": SUM}).dataset()
    whole = values(dataset, "evaporation_12hr")
    assert [values(dataset.isel(time=[n]), "evaporation_12hr")[0] for n in range(len(whole))] == whole


@pytest.mark.parametrize(
    ("timestep", "accumulated", "match"),
    [
        ("8h", {}, "18 times every 6h; got 8h"),
        ("3h", {}, "got 3h"),
        ("1M", {}, "got 1M"),
        ("1d", {"x": {"median": "sun"}}, "expected {mean: name} or"),
        ("1d", {"x": {"mean": {}}}, "expected a name or"),
        ("1d", {"x": {"mean": "son"}}, "no variable 'son'.*sun"),
    ],
)
def test_what_is_refused(timestep, accumulated, match):
    with pytest.raises(ValueError, match=match):
        Averaged(SixHourly(), timestep, accumulated).dataset()
