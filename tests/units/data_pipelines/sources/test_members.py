"""Members of an ensemble beside the truth: which fields stand where, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from data_pipelines.inspection.perfect_model import AnalysisErrors, ensemble_folder, make_ensemble
from data_pipelines.sources.members import Members
from example_data import CircleSource

HOURS = np.timedelta64(6 * 3600, "s")


@pytest.fixture
def source(tmp_path):
    """x(t + 1) = x(t) + 1, everywhere."""
    return CircleSource(tmp_path / "shifted.zarr", 60, 8, lambda x: x + 1.0, {"train": ["2001", "2001"]})


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
