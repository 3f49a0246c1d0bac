"""Forecasts in one form, and their truth by valid time."""

import numpy as np
import pytest
import xarray as xr

from data_pipelines.conventions.attributes import on_grid, with_levels
from data_pipelines.conventions.durations import gaps, unbroken_until
from data_pipelines.opening.forecasts import open_forecast
from data_pipelines.verification.matching import shared_variables
from data_pipelines.verification.pairs import CachedClimatology, FieldCache, Pairs
from emulators.grid import LatLonGrid, equiangular_grid

GRID = equiangular_grid(4)
SPACE = {"latitude": GRID.latitude, "longitude": GRID.longitude}


def monthly():
    """Truth on the first of 12 months, the field being the number of the month; a forecast that is right."""
    months = np.arange("2001-01", "2002-01", dtype="datetime64[M]")
    field = np.broadcast_to(np.arange(12.0)[:, None, None], (12, *GRID.shape)).astype("float32")
    truth = xr.Dataset({"temperature": (("time", *SPACE), field)}, {"time": months.astype("datetime64[ns]"), **SPACE})
    valid = months[:4, None] + np.arange(1, 4)
    made = field[np.arange(4)[:, None] + np.arange(1, 4)]
    leads = (np.arange(1, 4) * 2_629_800).astype("timedelta64[s]").astype("timedelta64[ns]")
    coords = {"time": months[:4].astype("datetime64[ns]"), "prediction_timedelta": leads, **SPACE}
    coords["valid_time"] = (("time", "prediction_timedelta"), valid.astype("datetime64[ns]"))
    return truth, xr.Dataset({"temperature": (("time", "prediction_timedelta", *SPACE), made)}, coords)


def test_valid_times_of_the_file_go_before_init_plus_lead(tmp_path):
    truth, forecast = monthly()
    forecast.to_netcdf(tmp_path / "fc.nc")
    pairs = Pairs(open_forecast(tmp_path / "fc.nc"), truth, megabytes=0.001)
    assert (pairs.total, pairs.missing) == (12, 0)
    found = list(pairs)
    assert {pair.lead for pair in found} == {0, 1, 2}
    for pair in found:
        assert (pair.prediction.values == pair.target.values).all()
        assert (pair.start.values == pair.target.values - 1 - pair.lead).all()
        assert (pair.prediction.time == pair.target.time).all()


def test_shares_of_the_initial_times_make_the_whole():
    truth, forecast = monthly()
    pairs = Pairs(forecast, truth, megabytes=0.0006)  # four fields at a time
    whole = [(init, pair.lead) for pair in pairs for init in pair.inits]
    assert len(whole) == len(set(whole)) == pairs.total == sum(map(pairs.count, pairs.blocks()))
    for shares in (2, 3, 9):
        parts = [pairs.blocks(share, shares) for share in range(1, shares + 1)]
        assert [(i, pair.lead) for blocks in parts for pair in pairs.of(blocks) for i in pair.inits] == whole
    ends = [pair.last for pair in pairs]
    assert ends[-1]
    assert sum(ends) == len(pairs.blocks())


def test_no_truth_beyond_a_gap_in_it():
    truth, forecast = monthly()
    broken = truth.isel(time=[0, 1, 2, 4, 5, 6])
    pairs = Pairs(forecast, broken)
    assert (pairs.total, pairs.missing) == (6, 6)
    whole = Pairs(forecast, broken, across_gaps=True)
    assert whole.total == 9  # only April's own truth is missing
    assert [str(time)[:7] for time in whole.absent] == ["2001-04"]
    assert [str(time)[:7] for time in pairs.absent] == ["2001-04", "2001-05", "2001-06"]
    reached = {(str(init)[:7], pair.lead) for pair in pairs for init in pair.inits}
    january, february, april = (
        {(f"2001-{m:02d}", lead) for lead in leads} for m, leads in ((1, (0, 1)), (2, (0,)), (4, (0, 1, 2)))
    )
    assert reached == january | february | april  # April itself is not in the truth, and no gap follows it


def test_gaps_in_series_of_hours_and_of_months():
    hours = np.datetime64("2001-01-01", "s") + np.array([0, 6, 12, 24, 30, 36, 42]) * np.timedelta64(1, "h")
    assert gaps(hours).tolist() == [2]
    until = unbroken_until(hours, hours[[0, 2, 3]])
    assert (hours[2] <= until[:2]).all()
    assert (until[:2] < hours[3]).all()
    assert until[2] > hours[-1]
    months = np.arange("2000-01", "2003-01", dtype="datetime64[M]").astype("datetime64[s]") + np.timedelta64(15, "D")
    assert not gaps(months).size
    assert gaps(np.delete(months, 14)).tolist() == [13]
    assert not gaps(months[:1]).size
    assert unbroken_until(months[:0], months[:1]) > months[-1]


def test_several_files_make_one_forecast(tmp_path):
    truth, forecast = monthly()
    paths = [tmp_path / f"{i}.nc" for i in range(2)]
    for i, path in enumerate(paths):
        forecast.isel(time=slice(2 * i, 2 * i + 2)).to_netcdf(path)
    assert Pairs(open_forecast(paths), truth).total == 12


def test_a_single_initial_time_without_its_dimension(tmp_path):
    truth, forecast = monthly()
    forecast.isel(time=1).to_netcdf(tmp_path / "fc.nc")
    pairs = Pairs(open_forecast(tmp_path / "fc.nc"), truth)
    assert pairs.inits.tolist() == forecast["time"].values[1:2].astype("datetime64[s]").tolist()
    assert pairs.total == 3


def test_lead_times_that_could_be_anything_are_refused(tmp_path):
    _, forecast = monthly()
    forecast.drop_vars("valid_time").assign_coords(prediction_timedelta=[1e6, 2e6, 3e6]).to_netcdf(tmp_path / "fc.nc")
    with pytest.raises(ValueError, match="have no units"):
        open_forecast(tmp_path / "fc.nc")


def test_repeated_lead_times_are_refused(tmp_path):
    _, forecast = monthly()
    forecast.isel(prediction_timedelta=[0, 1, 1]).to_netcdf(tmp_path / "fc.nc")
    with pytest.raises(ValueError, match="are repeated"):
        open_forecast(tmp_path / "fc.nc")


def test_an_ensemble_has_its_members_in_front(tmp_path):
    truth, forecast = monthly()
    members = xr.concat([forecast, forecast + 1], dim=xr.DataArray([0, 1], dims="number", name="number"))
    members.transpose(..., "number").to_netcdf(tmp_path / "fc.nc")
    found = open_forecast(tmp_path / "fc.nc")
    assert found["temperature"].dims[:3] == ("member", "time", "prediction_timedelta")
    for pair, single in zip(Pairs(found, truth), Pairs(forecast, truth), strict=True):
        assert pair.prediction.lead == (2, len(pair.inits))
        np.testing.assert_allclose(pair.prediction.values[1], single.prediction.values + 1)
        np.testing.assert_array_equal(pair.target.values, single.target.values)
    assert open_forecast(tmp_path / "fc.nc", select={"number": 1})["temperature"].dims[0] == "time"


def test_levels_that_only_one_variable_has(tmp_path):
    truth, forecast = monthly()
    upper = forecast["temperature"].expand_dims(level=[500.0, 850.0]).assign_attrs(levels=[850.0])
    both = forecast.assign(u=upper)
    shared = shared_variables(both, truth.assign(u=truth["temperature"].expand_dims(level=[300.0, 500.0, 850.0])))
    assert shared.variable("u").levels == (850.0,)
    assert shared.variable("temperature").levels == ()


def test_variables_by_level_keep_their_own_levels():
    truth, forecast = monthly()
    upper = truth["temperature"].expand_dims(level=[500.0, 850.0])
    names = {f"geopotential_{level}": truth["temperature"] for level in (300, 500)}
    both = with_levels(xr.Dataset({"temperature": upper, **names}))
    assert both["geopotential"].attrs["levels"] == [300.0, 500.0]
    made = forecast["temperature"].expand_dims(level=[300.0, 500.0, 850.0])
    shared = shared_variables(xr.Dataset({"temperature": made, "geopotential": made}), both)
    assert shared.variable("temperature").levels == (500.0, 850.0)
    assert shared.variable("geopotential").levels == (300.0, 500.0)


def test_the_latest_fields_stay():
    asked = []

    def make(keys):
        asked.extend(keys.tolist())
        return keys[:, None].astype(float)

    latest = FieldCache(make, room=2)
    assert latest(np.array([1, 2, 1])).ravel().tolist() == [1, 2, 1]
    latest(np.array([2, 3]))
    latest(np.array([2]))
    assert asked == [1, 2, 3]
    latest(np.array([1]))
    assert asked == [1, 2, 3, 1]


def test_normal_fields_are_made_once_for_a_time():
    import torch

    calls = []
    normals = CachedClimatology(lambda times: calls.append(len(times)) or torch.zeros(len(times), 1), room=10)
    times = np.array(["2001-01-01", "2001-01-02"], "datetime64[s]")
    assert normals(times).shape == normals(times[::-1]).shape == (2, 1)
    assert calls == [2]


def test_grids():
    truth, _ = monthly()
    part = LatLonGrid(GRID.latitude[1:3], np.array([315.0, 0.0, 45.0]))
    cut = on_grid(truth, part)
    assert cut.sizes["latitude"] == 2
    assert cut["longitude"].values.tolist() == [315.0, 0.0, 45.0]
    with pytest.raises(ValueError, match="different grids"):
        on_grid(truth, equiangular_grid(5))
