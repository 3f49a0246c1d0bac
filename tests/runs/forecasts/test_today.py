"""Forecasts from today's analysis: found, fetched from a server here, regridded, and checked."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from served_analyses import Server, ecmwf_row, message, serving

from data_pipelines.forecasts.manifest import read_manifest
from data_pipelines.forecasts.perturbations import MembersOfAnalysis
from data_pipelines.opening.indexed_grib import Message, ecmwf_index, joined, noaa_index
from data_pipelines.sources.era5_cds import PRESSURE, SINGLE, Era5Cds
from data_pipelines.sources.gefs import Gefs
from data_pipelines.sources.gfs import Gfs
from data_pipelines.sources.ifs_open import IfsOpen
from emul.forecast import forecast

NOW = np.datetime64("2003-01-20T13:00", "s")
LATEST = np.datetime64("2003-01-20T06", "s")
LEVELS = (500, 850)
SOURCES = {"ifs_open": IfsOpen, "gfs": Gfs, "gefs": Gefs, "era5_cds": Era5Cds}


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("data_pipelines.opening.open_analyses.now", lambda: NOW)
    with serving() as address:
        yield address


LATITUDE, LONGITUDE = np.linspace(90, -90, 46), np.arange(90) * 4.0
WORDS = {"t": "TMP", "2t": "TMP", "q": "SPFH", "sp": "PRES"}
PLACES = {"2t": "2 m above ground", "sp": "surface"}


def on_four_degrees(home):
    """The last fields of the home's data."""
    data = home.fields().isel(time=77)
    edges = data.isel(longitude=[-1, 0]).assign_coords(longitude=[data.longitude.values[-1] - 360, 360])
    data = xr.concat([edges.isel(longitude=[0]), data, edges.isel(longitude=[1])], "longitude")
    inside = np.clip(LATITUDE, float(data.latitude.min()), float(data.latitude.max()))
    return data.interp(latitude=inside, longitude=LONGITUDE).assign_coords(latitude=LATITUDE)


def published(service, home, shift=0.0, levels=LEVELS, time=LATEST, members=1):
    """Publish the last fields of the home's data among fields that nobody asks for; each member is 1 K warmer."""
    pytest.importorskip("eccodes")
    fine = on_four_degrees(home)
    entries = [("q", 500, None)]
    entries += [("t", level, fine["temperature"].sel(level=level).values) for level in levels]
    entries += [("q", 850, None), ("2t", 0, fine["2m_temperature"].values + shift), ("sp", 0, None)]
    options = {"members": members} if service == "gefs" else {}
    source = SOURCES[service](fields=["temperature"], levels=[500], address="", **options)
    for number, files in enumerate(source.files(time)):
        contents, rows = ([io.BytesIO() for _ in files], [[] for _ in files])
        for count, (name, level, values) in enumerate(entries, start=1):
            values = np.full((46, 90), 1e-3) + 1e-6 * np.arange(90) if values is None else values + number
            which = int(len(files) > 1 and level == 850)  # GEFS has some levels in its secondary file
            member = number if service == "gefs" else None
            content, file = message(name, level, time, LATITUDE, LONGITUDE, values, member), contents[which]
            if service == "ifs_open":
                row = ecmwf_row(name, level, file.tell(), len(content))
            else:
                place = f"{level} mb" if level else PLACES[name]
                row = f"{count}:{file.tell()}:d=2003012006:{WORDS[name]}:{place}:anl:"
            rows[which].append(row)
            file.write(content)
        for address, content, lines in zip(files, contents, rows, strict=True):
            Server.files[address] = content.getvalue()
            Server.files[source.index_address(address)] = "\n".join(lines).encode()
    return fine


def stored_in_the_climate_data_store(home, levels=LEVELS, failing=None):
    """Let the server answer as the Climate Data Store does, with fields in GRIB 1; `failing` says why it will not."""
    fine, root = on_four_degrees(home), "/api/retrieve/v1"
    fields = {
        PRESSURE: [("t", level, fine["temperature"].sel(level=level).values) for level in levels],
        SINGLE: [("2t", 0, fine["2m_temperature"].values)],
    }
    Server.files["/api/catalogue/v1/messages"] = {"messages": []}
    for dataset, entries in fields.items():
        content = b"".join(message(*entry[:2], LATEST, LATITUDE, LONGITUDE, entry[2], edition=1) for entry in entries)
        status = "failed" if failing else "successful"
        asset = {"href": f"@/{dataset}.grib", "file:size": len(content), "type": "application/x-grib"}
        results = {"title": "The job has failed", "traceback": failing} if failing else {"asset": {"value": asset}}
        Server.files |= {
            f"{root}/processes/{dataset}": {"id": dataset, "links": []},
            f"{root}/jobs/{dataset}": {"status": status, "links": []},
            f"{root}/jobs/{dataset}?log=True&request=True": {"status": status, "links": []},
            f"{root}/jobs/{dataset}/results": results,
            f"/{dataset}.grib": content,
        }


def words(service, server, *more):
    data = [f"data={service}", f"data.address={server}", "data.fields=[temperature,2m_temperature]"]
    return [*data, "data.levels=[500,850]", "init=latest", "regrid=conservative", "lead=12h", *more]


@pytest.mark.parametrize("service", ["ifs_open", "gfs"])
def test_one_command_from_the_newest_analysis_to_a_forecast(service, server, home, tmp_path):
    pytest.importorskip("cfgrib")
    published(service, home)
    whole = sum(map(len, Server.files.values()))
    folder = forecast(home.config(tmp_path, *words(service, server, "writer=grib")))
    assert [path.name for path in sorted((folder / "grib").iterdir())] == [
        f"20030120T0600_000{hours:02d}h.grib2" for hours in (6, 12)
    ]
    manifest = read_manifest(folder)
    assert manifest["inits"]["first"] == "2003-01-20T06:00:00"
    assert manifest["verdict"] == "unverified"
    assert manifest["settings"]["regrid"] == "conservative"
    assert sum(Server.sent) <= whole
    with xr.open_zarr(folder / "forecast.zarr", consolidated=True) as made:
        truth = home.fields().isel(time=78)["2m_temperature"]  # the untrained run hardly changes anything in 6 h
        assert abs(made["2m_temperature"].isel(time=0, prediction_timedelta=0) - truth).mean() < 5.0
    fetched = len(Server.sent)
    Server.files = {path: content for path, content in Server.files.items() if path.endswith(("index", "idx"))}
    again = forecast(home.config(tmp_path, *words(service, server, "writer=grib", "name=again")))
    assert len(Server.sent) == fetched + 1  # the newest index alone; the fields are kept
    with xr.open_zarr(folder / "forecast.zarr") as one, xr.open_zarr(again / "forecast.zarr") as two:
        xr.testing.assert_equal(one.load(), two.load())


def test_a_missing_field_is_named_before_anything_is_fetched(server, home, tmp_path):
    pytest.importorskip("cfgrib")
    published("ifs_open", home, levels=(500,))
    with pytest.raises(ValueError, match=r"has no t 850; leave them out: data\.fields, data\.levels"):
        forecast(home.config(tmp_path, *words("ifs_open", server)))
    with pytest.raises(ValueError, match="850"):
        forecast(home.config(tmp_path, *words("ifs_open", server), "data.levels=[500]"))
    assert not (tmp_path / "forecast").exists()


def test_an_analysis_of_another_system_is_named_before_the_first_step(server, home, tmp_path):
    pytest.importorskip("cfgrib")
    published("gfs", home, shift=25.0)
    with pytest.raises(ValueError, match=r"2m_temperature: its .* above .* guards\.ranges=mark goes on"):
        forecast(home.config(tmp_path, *words("gfs", server), "guards.ranges=refuse"))
    with pytest.raises(ValueError, match=r"is on .* Regrid it: emul data regrid, or for a forecast regrid="):
        forecast(home.config(tmp_path, *words("gfs", server), "regrid=null"))


def test_what_is_not_there_or_broken_is_said(server, home, tmp_path):
    with pytest.raises(OSError, match="ifs_open: no analysis of the last 4 days at http"):
        IfsOpen(fields=["temperature"], levels=[500], address=server).prepare()
    with pytest.raises(OSError, match="ifs_open has no analysis of 2003-01-02"):
        IfsOpen(fields=["temperature"], levels=[500], address=server, dates="2003-01-02").prepare()
    pytest.importorskip("eccodes")
    published("ifs_open", home)
    source = IfsOpen(fields=["temperature"], levels=[500], address=server)
    path = source.file(LATEST).removeprefix(server)
    Server.files[path] = b"x" + Server.files[path][:-1]
    with pytest.raises(OSError, match="expected the GRIB message t 500 at byte"):
        source.prepare()
    assert not list((tmp_path / "cache").rglob("*.grib2"))
    with pytest.raises(ValueError, match=r"data\.fields: gfs has no ozone here; there are geopotential"):
        Gfs(fields=["ozone"], levels=[500], address=server)


def test_members_start_from_their_own_analyses(server, home, tmp_path):
    pytest.importorskip("cfgrib")
    published("gefs", home, members=3)
    more = ["data.members=3", "members=3", "perturbation=analyses", "lead=6h"]
    folder = forecast(home.config(tmp_path, *words("gefs", server), *more))
    with xr.open_zarr(folder / "forecast.zarr", consolidated=True) as made:
        warmer = made["2m_temperature"].mean(("latitude", "longitude")).squeeze()
        assert np.diff(warmer.values) == pytest.approx(1.0, abs=0.05)  # the untrained run hardly changes anything
    starts = MembersOfAnalysis(None).prepare(None, SimpleNamespace(members=3, origin="gefs"), None, 0, "cpu")
    with pytest.raises(ValueError, match=r"gefs holds 3 members.*data\.members=4"):
        starts(None, (), range(4))
    with pytest.raises(ValueError, match="expected 1 to 31"):
        Gefs(fields=["temperature"], levels=[500], address=server, members=32)
    with pytest.raises(ValueError, match="needs temperature too"):
        Gefs(fields=["specific_humidity"], levels=[500], address=server)


def test_analyses_of_era5_come_from_the_climate_data_store(server, home, tmp_path, monkeypatch):
    pytest.importorskip("cdsapi")
    pytest.importorskip("cfgrib")
    monkeypatch.setenv("CDSAPI_KEY", "secret")
    stored_in_the_climate_data_store(home)
    asked = [word.replace(server, f"{server}/api") for word in words("era5_cds", server, "data.behind=7h")]
    folder = forecast(home.config(tmp_path, *asked))
    shared = {
        "product_type": ["reanalysis"], "year": ["2003"], "month": ["01"], "day": ["20"], "time": ["06:00"],
        "data_format": "grib", "download_format": "unarchived", "key": "secret",
    }  # fmt: skip
    assert Server.asked == [
        shared | {"dataset": PRESSURE, "variable": ["temperature"], "pressure_level": ["500", "850"]},
        shared | {"dataset": SINGLE, "variable": ["2m_temperature"]},
    ]
    with xr.open_zarr(folder / "forecast.zarr", consolidated=True) as made:
        truth = home.fields().isel(time=78)["2m_temperature"]
        assert abs(made["2m_temperature"].isel(time=0, prediction_timedelta=0) - truth).mean() < 5.0
    source = Era5Cds(fields=["temperature"], levels=[500, 850], address=f"{server}/api", dates="2003-01-20T06")
    source.prepare()
    stored_in_the_climate_data_store(home, levels=(500,))
    other = Era5Cds(fields=["temperature"], levels=[500, 850, 925], address=f"{server}/api", dates="2003-01-20T06")
    with pytest.raises(ValueError, match="era5_cds of 2003-01-20T06:00:00 has no t 850, t 925; leave them out"):
        other.prepare()
    stored_in_the_climate_data_store(home, failing="None of the data you have requested is available yet")
    with pytest.raises(OSError, match=r"None of the data you have requested.*~/\.cdsapirc.*data\.behind"):
        other.prepare()
    assert len(list((tmp_path / "cache").rglob("*.grib2*"))) == 2


def test_as_many_analyses_as_a_network_reads():
    source = IfsOpen(fields=["temperature"], levels=[500], address="", dates=["2003-01-02", "2003-01-02T06"], count=2)
    assert source.times.astype(str).tolist() == ["2003-01-01T18:00:00", "2003-01-02T00:00:00", "2003-01-02T06:00:00"]


def test_indices_say_where_the_fields_are():
    text = '{"levtype": "pl", "levelist": "500", "param": "t", "_offset": 10, "_length": 5}\n'
    text += '{"levtype": "sfc", "param": "2t", "_offset": 15, "_length": 7}\n{"levtype": "sol", "param": "sot"}\n'
    assert ecmwf_index(text) == [Message(("t", "500"), 10, 15), Message(("2t", ""), 15, 22)]
    text = "1:0:d=2026112900:PRMSL:mean sea level:anl:\n2:900:d=2026112900:TMP:500 mb:anl:\n"
    assert noaa_index(text) == [Message(("PRMSL", "mean sea level"), 0, 900), Message(("TMP", "500 mb"), 900, None)]
    far = [Message(("a", ""), 0, 10), Message(("b", ""), 20, 30), Message(("c", ""), 10**6, None)]
    assert [(first, stop, len(inside)) for first, stop, inside in joined(far)] == [(0, 30, 2), (10**6, None, 1)]
