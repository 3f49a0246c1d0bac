"""The time at which fields are valid, from all that a file says of it."""

import numpy as np
import pytest
import xarray as xr

from data_pipelines.conventions.canonical import canonical
from data_pipelines.opening.datasets import open_dataset
from data_pipelines.verification.pairs import Reader
from emulators.variables import Variable, VariableSet

T0, H = np.datetime64("2020-01-01", "ns"), np.timedelta64(1, "h").astype("timedelta64[ns]")
LEAD = 6 * H
INITIAL = {"long_name": "initial time of forecast", "standard_name": "time"}
SPACE = {"latitude": [60.0, 20.0, -20.0, -60.0], "longitude": 45.0 * np.arange(8)}


def fields(count=4, dim="time"):
    values = np.broadcast_to(np.arange(float(count), dtype="f4")[:, None, None], (count, 4, 8))
    return xr.Dataset(
        {"t": ((dim, "latitude", "longitude"), values, {"units": "K"})}, {dim: T0 + np.arange(count) * LEAD, **SPACE}
    )


STEPS = np.arange(4) * LEAD
VALID = {
    "valid_time and a step left over": fields(dim="valid_time").assign_coords(step=LEAD),
    "lead_time left over": fields(dim="valid_time").assign_coords(lead_time=LEAD),
    "all three agree": fields().assign_coords(
        time=("time", T0 + STEPS - LEAD, INITIAL), step=LEAD, valid_time=("time", T0 + STEPS)
    ),
    "the initial time says so": fields().assign_coords(time=("time", T0 + STEPS - LEAD, INITIAL), step=LEAD),
    "swapped to valid time": fields(dim="valid_time").assign_coords(time=T0),
    "swapped, with its steps": fields(dim="valid_time").assign_coords(time=T0, step=("valid_time", STEPS)),
    "as iris writes": fields().assign_coords(forecast_period=("time", STEPS), forecast_reference_time=T0),
    "initial and lead time alone": fields(dim="init_time").assign_coords(init_time=T0 + STEPS - LEAD, lead_time=LEAD),
    "a step of its own axis": fields()
    .expand_dims(step=[LEAD], axis=1)
    .assign_coords(time=("time", T0 + STEPS - LEAD, INITIAL), valid_time=(("time", "step"), (T0 + STEPS)[:, None])),
    "a step of nothing": fields().assign_coords(step=0 * LEAD),
}


@pytest.mark.parametrize("name", VALID)
def test_times_are_valid_times(name, tmp_path):
    VALID[name].to_netcdf(tmp_path / "a.nc")
    found = open_dataset(tmp_path / "a.nc")
    np.testing.assert_array_equal(found["time"].values, T0 + STEPS)
    assert found["temperature"].dims == ("time", "latitude", "longitude")
    assert found["temperature"].values[:, 0, 0].tolist() == [0.0, 1.0, 2.0, 3.0]


WRONG = {
    "valid_time is not time + step": (
        fields().assign_coords(step=LEAD, valid_time=("time", T0 + STEPS)),
        "'valid_time' of .* contradicts 'time' \\+ 'step': 2020-01-01T00:00:00 against 2020-01-01T06:00:00",
    ),
    "nor the reference time's": (
        fields().assign_coords(forecast_period=("time", STEPS + H), forecast_reference_time=T0),
        "'time' of .* contradicts 'forecast_reference_time' \\+ 'forecast_period'",
    ),
    "nor where they are swapped": (
        fields(dim="valid_time").assign_coords(time=T0, step=("valid_time", STEPS // 2)),
        "at 3 of 4 times",
    ),
    "not said which": (fields().assign_coords(step=LEAD), "initial or the valid time.*rename=.time: valid_time"),
}


@pytest.mark.parametrize("name", WRONG)
def test_contradictions_are_refused_and_the_advice_helps(name, tmp_path):
    dataset, told = WRONG[name]
    dataset.to_netcdf(tmp_path / "a.nc")
    with pytest.raises(ValueError, match=told) as caught:
        open_dataset(tmp_path / "a.nc")
    old, new = str(caught.value).split("rename={")[1].split("}")[0].split(": ")
    np.testing.assert_array_equal(open_dataset(tmp_path / "a.nc", rename={old: new})["time"].values, T0 + STEPS)


def monthly(days, edges=None, methods="time: mean", **attributes):
    days = np.asarray(days, dtype=float)
    made = xr.Dataset(
        {"t": (("time", "latitude", "longitude"), np.zeros((days.size, 4, 8), "f4"), {"units": "K"})},
        {"time": ("time", days, {"units": "days since 2001-01-01", "calendar": "noleap", **attributes}), **SPACE},
    )
    made["t"].attrs["cell_methods"] = methods
    return made if edges is None else made.assign(time_bnds=(("time", "nbnd"), np.asarray(edges, dtype=float)))


ENDS = np.cumsum([31, 28, 31, 30])
MONTHS = np.stack([np.append(0, ENDS[:-1]), ENDS], axis=1)
DAYS = np.stack([np.arange(4), np.arange(1, 5)], axis=1)
FIRSTS = np.array(["2001-01-01", "2001-02-01", "2001-03-01", "2001-04-01"], "datetime64[ns]")


@pytest.mark.parametrize("told", [{"bounds": "time_bnds"}, {}])
def test_means_that_carry_the_end_of_their_month_are_of_that_month(told):
    np.testing.assert_array_equal(canonical(monthly(ENDS, MONTHS, **told))["time"].values, FIRSTS)
    assert canonical(monthly(ENDS[:1], MONTHS[:1], **told))["time"].values[0] == FIRSTS[0]


def test_which_intervals_are_moved():
    daily = canonical(monthly(DAYS[:, 1], DAYS, bounds="time_bnds"))["time"].values
    assert str(daily[0])[:10] == "2001-01-01"
    middle = canonical(monthly(MONTHS.mean(axis=1), MONTHS, bounds="time_bnds"))["time"].values
    assert str(middle[0])[:13] == "2001-01-16T12"
    for methods, bounds in (("time: point", MONTHS), ("", DAYS)):
        kept = canonical(monthly(bounds[:, 1], bounds, methods, bounds="time_bnds"))["time"].values
        assert str(kept[0])[:10] == {31: "2001-02-01", 1: "2001-01-02"}[int(bounds[0, 1])]
    hourly = canonical(monthly(DAYS[:, 1] / 4, DAYS / 4, bounds="time_bnds"))["time"].values
    assert str(hourly[0])[:13] == "2001-01-01T06", "sums over hours are dated by their end, as in WeatherBench 2"
    with pytest.raises(ValueError, match=r"2001-03-01.* lies outside its bounds, 2001-01-01"):
        canonical(monthly(ENDS + 28, MONTHS, bounds="time_bnds"))


@pytest.mark.parametrize(
    ("attributes", "methods"),
    [
        ({"coordinate_defines": "end"}, "time: mean"),
        ({"long_name": "end of averaging period"}, "time: mean"),
        ({"description": "Ends of months"}, ""),
    ],
)
def test_without_bounds_an_attribute_of_the_time_says_that_it_is_the_end(attributes, methods):
    result = canonical(monthly(ENDS, None, methods, **attributes))
    np.testing.assert_array_equal(result["time"].values, FIRSTS)
    assert "by its start" in result.attrs["assumed_units"]
    last_days = canonical(monthly(ENDS - 1, None, methods, **attributes))
    np.testing.assert_array_equal(last_days["time"].values, FIRSTS)
    years = canonical(monthly([365, 730, 1095], None, methods, **attributes))["time"].values
    np.testing.assert_array_equal(years.astype("datetime64[Y]").astype(int) + 1970, [2001, 2002, 2003])


YEAR = np.append(ENDS, 120 + np.cumsum([31, 30, 31, 31, 30, 31, 30, 31]))  # 1 February to 1 January
SILENT = {
    "means": (monthly(ENDS[1:]), True),
    "first a month after the reference": (monthly(ENDS, None, ""), True),
    "February to January": (monthly(365 + YEAR, None, ""), True),
    "said to be starts": (monthly(ENDS, coordinate_defines="start"), False),
    "points": (monthly(ENDS, None, "time: point"), False),
    "nothing of means": (monthly(365 + np.append(0, ENDS), None, ""), False),
    "in the middle": (monthly(MONTHS.mean(axis=1)), False),
    "days": (monthly(np.arange(1, 9)), False),
}


@pytest.mark.parametrize("name", SILENT)
def test_monthly_means_that_do_not_say_it_keep_their_dates_and_it_is_told(name, tmp_path):
    dataset, is_told = SILENT[name]
    stamps = dataset["time"].values
    result = canonical(dataset)
    decoded = xr.decode_cf(dataset)["time"].values
    assert [str(t)[:10] for t in result["time"].values] == [str(t)[:10] for t in decoded], stamps
    assert ("dates={time: ends}" in result.attrs.get("assumed_units", "")) == is_told


def test_the_user_says_that_times_are_ends(tmp_path):
    whole = monthly(YEAR)
    for month in range(12):
        whole.isel(time=[month]).to_netcdf(tmp_path / f"{month:02d}.nc")
    result = open_dataset(str(tmp_path / "*.nc"), dates={"time": "ends"})
    months = np.arange("2001-01", "2002-01", dtype="datetime64[M]")
    np.testing.assert_array_equal(result["time"].values, months.astype("datetime64[ns]"))
    assert "ends" not in result.attrs.get("assumed_units", "")
    with pytest.raises(ValueError, match=r"no two times.*dates=\{time: 1979-01/1M\}"):
        open_dataset(tmp_path / "00.nc", dates={"time": "ends"})
    given = open_dataset(tmp_path / "00.nc", dates={"time": "2001-01/1M"})
    assert str(given["time"].values[0])[:10] == "2001-01-01"
    hours = fields()
    hours.to_netcdf(tmp_path / "hours.nc")
    np.testing.assert_array_equal(
        open_dataset(tmp_path / "hours.nc", dates={"time": "ends"})["time"].values, hours["time"].values - LEAD
    )
    monthly(ENDS, MONTHS).drop_vars("time_bnds").to_netcdf(tmp_path / "m.nc")
    monthly(ENDS, MONTHS, bounds="time_bnds").to_netcdf(tmp_path / "b.nc")
    for name in ("m.nc", "b.nc"):
        np.testing.assert_array_equal(open_dataset(tmp_path / name, dates={"time": "ends"})["time"].values, FIRSTS)


def test_a_month_dated_by_its_last_day_is_the_month_dated_by_its_first():
    months = np.arange("2001-01", "2001-07", dtype="datetime64[M]")
    firsts = months.astype("datetime64[s]")
    lasts = (months + 1).astype("datetime64[s]") - np.timedelta64(86400, "s")
    values = np.zeros((6, 4, 8), "f4")

    def reader(times):
        data = xr.Dataset({"t": (("time", "latitude", "longitude"), values)}, {"time": times.astype("M8[ns]"), **SPACE})
        return Reader(data, VariableSet((Variable("t"),)))

    for truth, wanted in ((firsts, lasts), (lasts, firsts), (firsts, firsts), (lasts, lasts)):
        assert reader(truth).find(wanted).tolist() == [0, 1, 2, 3, 4, 5]
        assert reader(truth).find(wanted.reshape(2, 3)).tolist() == [[0, 1, 2], [3, 4, 5]]
