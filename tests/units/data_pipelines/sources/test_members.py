"""Members of an ensemble beside the truth: which fields stand where, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from data_pipelines.inspection.perfect_model import AnalysisErrors, ensemble_folder, make_ensemble
from data_pipelines.simulators.stores import SURFACE, empty_dataset
from data_pipelines.sources.members import Members
from emulators.grid import gaussian_grid

HOURS = np.timedelta64(6 * 3600, "s")


class Shifted:
    """x(t + 1) = x(t) + 1, everywhere."""

    state_variables = ("x",)
    hidden = ()

    def __init__(self, folder: Path) -> None:
        self.path, self.splits = folder / "shifted.zarr", {"train": ["2001", "2001"]}
        self.times = np.datetime64("2001-01-01", "s") + np.arange(60) * HOURS
        self.values = np.random.default_rng(0).standard_normal((60, 1, 8)).astype(np.float32)

    def template(self) -> xr.Dataset:
        return empty_dataset({"x": (SURFACE, "1", "", "x")}, gaussian_grid(1, 8), self.times)

    def prepare(self, progress=None) -> None: ...

    def dataset(self) -> xr.Dataset:
        return self.template().assign(x=(SURFACE, self.values, {"units": "1"}))

    def twins(self, cases, leads, perturbation, report, forgotten=()): ...

    def continued(self, first, start) -> Iterator:
        x = first["x"]
        while True:
            x = x + 1.0
            yield {"x": x}


@pytest.fixture
def source(tmp_path):
    return Shifted(tmp_path)


def simulated(source, inits: list[int], leads: int = 2) -> None:
    make_ensemble(source, source.times[inits], leads, 3, AnalysisErrors(0.1, "white"), anew=True)


def test_fields_stand_at_their_valid_times(source):
    simulated(source, [4, 20])
    members = Members(source, members=3)
    members.prepare()
    dataset = members.dataset()
    np.testing.assert_array_equal(dataset.time.values.astype("datetime64[s]"), source.times[[4, 5, 6, 20, 21, 22]])
    np.testing.assert_array_equal(dataset.x, source.values[[4, 5, 6, 20, 21, 22]])
    with xr.open_zarr(ensemble_folder(source) / "forecast.zarr", decode_timedelta=True) as stored:
        for number in range(3):
            fields = dataset[f"member_{number + 1}_x"]
            assert fields.attrs["units"] == "1"
            np.testing.assert_array_equal(fields[[0, 3]], source.values[[4, 20]])
            expected = stored.x.isel(number=number).transpose("time", "prediction_timedelta", ...).values
            np.testing.assert_array_equal(fields[[1, 2, 4, 5]].values.reshape(expected.shape), expected)
    assert members.splits == {"train": [str(source.times[4]), str(source.times[22])]}
    assert list(members.template()) == list(dataset)
    assert members.template().sizes == dataset.sizes


def test_fewer_members_are_copied(source):
    simulated(source, [4, 20])
    dataset = Members(source, members=5, only=2).dataset()
    np.testing.assert_array_equal(dataset.member_3_x, dataset.member_1_x)
    assert not np.array_equal(dataset.member_2_x, dataset.member_1_x)
    with pytest.raises(ValueError, match="has 3 members"):
        Members(source, members=5).dataset()


def test_what_cannot_be_joined_is_refused(source):
    assert list(Members(source, members=1).template()) == ["x", "member_1_x"]
    with pytest.raises(FileNotFoundError, match="emul data ensemble"):
        Members(source).prepare()
    simulated(source, [4, 7])
    with pytest.raises(ValueError, match="two intervals or more after the last lead"):
        Members(source, members=3).dataset()
    simulated(source, [4, 57], leads=3)
    with pytest.raises(ValueError, match="leads within the data"):
        Members(source, members=3).dataset()
    with pytest.raises(ValueError, match=r"data\.only"):
        Members(source, members=3, only=4)
