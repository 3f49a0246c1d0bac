"""Any CF-legal file of the same fields opens as the same canonical dataset, or is refused by the name of the attribute.

EMUL_LEGAL_FILES: how many random files are written (100).
"""

import os

import netCDF4
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_pipelines.conventions.attributes import grid_of
from data_pipelines.opening.datasets import open_dataset
from data_pipelines.reading.fields import Fields
from emulators.variables import Variable, VariableSet

FILES = int(os.environ.get("EMUL_LEGAL_FILES", "100"))
LATITUDE, LONGITUDE, LEVELS = np.linspace(75.0, -75.0, 6), np.arange(8) * 45.0, np.array([500.0, 850.0])
MARK = -999.9
FAULTS = {
    "scale_factor": {"scale_factor": "a hundredth"},
    "scale_factor=0": {"scale_factor": 0.0},
    "valid_range": {"valid_range": "cold to warm"},
    "missing_value": {"missing_value": "none such"},
    "valid_min": {"valid_min": "zero"},
}


@st.composite
def recipes(draw):
    """Draw how a file says what it holds."""
    kind = draw(st.sampled_from(["NETCDF4", "NETCDF3_64BIT_OFFSET", "zarr2", "zarr3"]))
    packed = draw(st.sampled_from([None, "i2", "i4", "unsigned"]))
    marks = ["none", "_FillValue", "missing_value", "wide", "several", "range", "nan"]
    marks += ["unwritten"] if kind.startswith("NETCDF") and packed is None else []
    marks += ["text"] if packed is None else []
    return {
        "kind": kind,
        "packed": packed,
        "mark": draw(st.sampled_from(marks)),
        "order": draw(st.permutations(["time", "level", "latitude", "longitude"])),
        "levels": draw(
            st.sampled_from(["hPa", "Pa", "Pascal", "pascals", "mbar", "millibars", "kPa", "", "bare Pa", "none"])
        ),
        "level name": draw(st.sampled_from(["level", "lev", "plev", "pressure_level", "isobaricInhPa"])),
        "down": draw(st.booleans()),
        "south first": draw(st.booleans()),
        "latitude": draw(st.sampled_from(["degrees_north", "degree_N", "degrees", "deg", "", "degrees_south"])),
        "longitude": draw(st.sampled_from(["degrees_east", "degreesE", "degrees", "", "degrees_west"])),
        "names": draw(st.sampled_from([("latitude", "longitude"), ("lat", "lon"), ("nav_lat", "nav_lon"), ("Y", "X")])),
        "from": draw(st.sampled_from([0.0, -180.0])),
        "repeated": draw(st.sampled_from([None, 0.0, 2e-4, -2e-4])),
        "single": draw(st.booleans()),
        "units": draw(st.sampled_from(["K", "kelvin", "degK", "degC", "celsius"])),
        "calendar": draw(
            st.sampled_from(["standard", "proleptic_gregorian", "noleap", "gregorian", "365_day", "julian"])
        ),
        "since": draw(
            st.sampled_from(["hours since 2001-01-01", "days since 1999-12-31", "seconds since 2000-02-28 12:00"])
        ),
        "whole": draw(st.booleans()),
        "time name": draw(st.sampled_from(["time", "valid_time", "Time"])),
        "members": draw(st.sampled_from([None, None, "number", "realization", "ens", "member"])),
        "chunk": draw(st.integers(1, 3)),
        "zeros": draw(st.booleans()),
        "height": draw(st.booleans()),
        "text packing": draw(st.booleans()),
        "fault": draw(st.sampled_from([None] * 7 + sorted(FAULTS))),
        "seed": draw(st.integers(0, 2**20)),
    }


def truth(recipe):
    """Return the fields that the file holds, (time, member, level, latitude, longitude) in K, rounded as if packed."""
    random = np.random.default_rng(recipe["seed"])
    members = 1 if recipe["members"] is None else 2
    levels = 1 if recipe["levels"] == "none" else LEVELS.size
    values = random.integers(-3000, 3000, (3, members, levels, LATITUDE.size, LONGITUDE.size)) * 0.01 + 273.15
    gone = random.random(values.shape) < (0.0 if recipe["mark"] == "none" else 0.1)
    return np.where(gone, np.nan, values)


def attributes_and_numbers(recipe, values):
    """Return the attributes of the field and the numbers that are stored of it."""
    celsius = recipe["units"] in ("degC", "celsius")
    values = values - 273.15 if celsius else values
    said, gone, mark = {"units": recipe["units"]}, np.isnan(values), recipe["mark"]
    if recipe["packed"]:
        offset = 0.0 if celsius else 273.15
        scale = 0.01
        said |= {"scale_factor": scale, "add_offset": offset}
        if recipe["text packing"]:
            said |= {key: str(said[key]) for key in ("scale_factor", "add_offset")}
        kind = "i4" if recipe["packed"] == "i4" else "i2"
        numbers = np.round((np.nan_to_num(values, nan=offset) - offset) / scale)
        if recipe["packed"] == "unsigned":
            numbers, said["_Unsigned"] = numbers + 40000, "true"
            said["add_offset"] = str(offset - 400.0) if recipe["text packing"] else offset - 400.0
            numbers = numbers.astype("u2").view("i2")
            one, two = np.int16(np.uint16(65000).view("i2")), np.int16(np.uint16(64000).view("i2"))
            least, greatest = np.uint16(30000).view("i2"), np.uint16(50000).view("i2")
        else:
            numbers = numbers.astype(kind)
            one, two = numbers.dtype.type(-32000), numbers.dtype.type(-31000)
            least, greatest = numbers.dtype.type(-4000), numbers.dtype.type(4000)
    else:
        numbers = np.nan_to_num(values, nan=0.0).astype("f4" if recipe["seed"] % 3 else "f8")
        one, two = numbers.dtype.type(MARK), numbers.dtype.type(1e20)
        least, greatest = -400.0, 1000.0
    if mark in ("_FillValue", "nan") and not (mark == "nan" and recipe["packed"]):
        said["_FillValue"] = numbers.dtype.type(np.nan) if mark == "nan" else one
    elif mark in ("missing_value", "nan"):
        said["missing_value"] = one
    elif mark == "wide":
        said["missing_value"] = (
            np.float64(one) if recipe["packed"] else (np.float64(MARK) if recipe["seed"] % 2 else np.float32(MARK))
        )
    elif mark == "text":
        said["missing_value"] = str(MARK)
    elif mark == "several":
        said["missing_value"] = np.array([one, two])
    elif mark == "range":
        said["valid_range"] = np.array([least, greatest])
    filled = said.get("_FillValue", one)
    if mark == "unwritten":
        filled = netCDF4.default_fillvals[numbers.dtype.str[1:]]
    numbers[gone] = filled
    if mark == "several":
        numbers[gone & (np.arange(gone.size).reshape(gone.shape) % 2 == 0)] = two
    if recipe["fault"]:
        said |= FAULTS[recipe["fault"]]
    return said, numbers


def coordinates(recipe):
    """Return name -> (dimension, values, attributes) of the coordinates, and how each axis of the fields is ordered."""
    kind = "f4" if recipe["single"] else "f8"
    rows = np.arange(LATITUDE.size)[:: -1 if recipe["south first"] else 1]
    latitude = LATITUDE[rows] * (-1.0 if recipe["latitude"] == "degrees_south" else 1.0)
    columns = np.arange(LONGITUDE.size)
    east = LONGITUDE if recipe["from"] == 0.0 else np.where(LONGITUDE >= 180.0, LONGITUDE - 360.0, LONGITUDE)
    columns = np.argsort(east)
    east = east[columns]
    if recipe["repeated"] is not None:
        east, columns = np.append(east, east[0] + 360.0 + recipe["repeated"]), np.append(columns, columns[0])
    longitude = -east if recipe["longitude"] == "degrees_west" else east
    y, x = recipe["names"]
    found = {
        y: (y, latitude.astype(kind), {"units": recipe["latitude"]} if recipe["latitude"] else {}),
        x: (x, longitude.astype(kind), {"units": recipe["longitude"]} if recipe["longitude"] else {}),
    }
    order = {"latitude": rows, "longitude": columns, "level": np.arange(1), "time": np.arange(3), "member": slice(None)}
    if recipe["levels"] != "none":
        units = "Pa" if recipe["levels"] == "bare Pa" else recipe["levels"]
        factor = {"Pa": 100.0, "Pascal": 100.0, "pascals": 100.0, "kPa": 0.1}.get(units, 1.0)
        order["level"] = np.arange(2)[:: -1 if recipe["down"] else 1]
        values = (LEVELS * factor)[order["level"]]
        z = "plev" if recipe["levels"] == "bare Pa" else recipe["level name"]
        said = {"units": units} if units and recipe["levels"] != "bare Pa" else {}
        found[z] = (z, values.astype(kind), said)
    dates = np.array(["2001-03-01T00", "2001-03-01T06", "2001-03-01T12"], dtype="datetime64[s]").astype(object)
    calendar = recipe["calendar"]
    cf = [netCDF4.num2date(0, "hours since 2001-03-01", calendar).replace(hour=date.hour) for date in dates]
    numbers = np.asarray(netCDF4.date2num(cf, recipe["since"], calendar), dtype="f8")
    numbers = numbers.astype("i4") if recipe["whole"] and (numbers == numbers.astype("i4")).all() else numbers
    found[recipe["time name"]] = (recipe["time name"], numbers, {"units": recipe["since"], "calendar": calendar})
    return found, order


def write(path, recipe):
    """Write the file; its dimensions are named as its coordinates."""
    said, numbers = attributes_and_numbers(recipe, truth(recipe))
    found, order = coordinates(recipe)
    y, x = recipe["names"]
    z = next((name for name in found if name not in (y, x, recipe["time name"])), None)
    names = {"time": recipe["time name"], "level": z, "latitude": y, "longitude": x}
    numbers = numbers[order["time"]][:, :, order["level"]][:, :, :, order["latitude"]][..., order["longitude"]]
    dims = ["time", "member", "level", "latitude", "longitude"]
    wanted = [d for d in recipe["order"] if d != "level" or z is not None]
    if recipe["members"] is not None:
        wanted.insert(recipe["seed"] % 3, "member")
        names["member"] = recipe["members"]
    dropped = tuple(n for n, d in enumerate(dims) if d not in wanted)
    numbers = np.squeeze(numbers, dropped)
    there = [d for d in dims if d in wanted]
    numbers = np.ascontiguousarray(numbers.transpose([there.index(d) for d in wanted]))
    along = [names[d] for d in wanted]
    fields = {**found, "temperature": (along, numbers, said)}
    if recipe["height"]:
        fields["height"] = ((), np.float64(2.0), {"units": "m"})
    if recipe["kind"].startswith("NETCDF"):
        _write_netcdf(path, recipe, fields)
    else:
        _write_zarr(path, recipe, fields)


def _write_netcdf(path, recipe, fields):
    with netCDF4.Dataset(path, "w", format=recipe["kind"]) as file:
        for dims, values, _ in fields.values():
            for dim, size in zip([dims] if isinstance(dims, str) else dims, values.shape, strict=True):
                if dim not in file.dimensions:
                    file.createDimension(dim, size)
        for name, (dims, values, said) in fields.items():
            said = dict(said)
            made = file.createVariable(
                name,
                values.dtype,
                (dims,) if isinstance(dims, str) else tuple(dims),
                fill_value=said.pop("_FillValue", None),
            )
            made.set_auto_maskandscale(False)
            made.setncatts(said)
            made[...] = values


def _write_zarr(path, recipe, fields):
    version = 2 if recipe["kind"] == "zarr2" else 3
    group = zarr.open_group(path, mode="w", zarr_format=version)
    for name, (dims, values, said) in fields.items():
        dims, said = [dims] if isinstance(dims, str) else list(dims), dict(said)
        fill = said.pop("_FillValue", None)
        chunks = tuple(min(recipe["chunk"] + 3 * n, size) for n, size in enumerate(values.shape)) or ()
        more = {"dimension_names": dims} if version == 3 else {}
        told = fill if version == 2 and fill is not None else (0 if recipe["zeros"] or version == 3 else None)
        array = group.create_array(name, shape=values.shape, chunks=chunks, dtype=values.dtype, fill_value=told, **more)
        array[...] = values
        if version == 3 and fill is not None:
            said["_FillValue"] = fill
        plain = {k: v.tolist() if isinstance(v, np.ndarray | np.generic) else v for k, v in said.items()}
        plain = {k: str(v) if isinstance(v, float) and np.isnan(v) else v for k, v in plain.items()}
        array.attrs.update(plain | ({"_ARRAY_DIMENSIONS": dims} if version == 2 else {}))


@pytest.mark.slow
@settings(
    max_examples=FILES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(recipe=recipes())
def test_any_legal_file_is_the_same_dataset(recipe, tmp_path_factory):
    path = tmp_path_factory.mktemp("legal") / ("f.nc" if recipe["kind"].startswith("NETCDF") else "f.zarr")
    write(path, recipe)
    options = {"members": recipe["members"]} if recipe["members"] else {}
    if recipe["fault"]:
        with pytest.raises(ValueError, match=recipe["fault"]):
            open_dataset(path, **options)
        return
    opened = open_dataset(path, **options)
    celsius = recipe["units"] in ("degC", "celsius")
    field = opened["temperature"]
    wanted = truth(recipe) - (273.15 if celsius else 0.0)
    wanted = wanted if recipe["members"] else wanted[:, 0]
    wanted = wanted if recipe["levels"] != "none" else wanted[..., 0, :, :]
    level = ["level"] if recipe["levels"] != "none" else []
    member = ["member"] if recipe["members"] else []
    assert list(field.dims) == ["time", *member, *level, "latitude", "longitude"]
    np.testing.assert_array_equal(np.isnan(field.values), np.isnan(wanted))
    np.testing.assert_allclose(field.values, wanted, atol=2e-3 if recipe["packed"] else 1e-4)
    np.testing.assert_allclose(opened["latitude"], LATITUDE, atol=1e-3)
    np.testing.assert_allclose(opened["longitude"], LONGITUDE, atol=1e-3)
    if level:
        np.testing.assert_allclose(opened["level"], LEVELS, rtol=1e-6)
    times = np.array(["2001-03-01T00", "2001-03-01T06", "2001-03-01T12"], dtype="datetime64[s]")
    np.testing.assert_array_equal(opened["time"].values.astype("datetime64[s]"), times)
    if not member:
        variables = VariableSet((Variable("temperature", field.attrs["units"], tuple(LEVELS) if level else ()),))
        out = np.empty((3, variables.size, LATITUDE.size, LONGITUDE.size), dtype="f4")
        Fields(opened, variables, grid_of(opened)).read(np.arange(3), out)
        np.testing.assert_array_equal(out.reshape(wanted.shape), field.values.astype("f4"))
