"""Stores elsewhere: WeatherBench 2's exact layout over http and s3, what of it is kept here; anemoi stores."""

import functools
import http.server
import importlib
import shutil
import threading
import time
import urllib.parse
import urllib.request
import warnings

import fsspec
import numpy as np
import pytest
import torch
import xarray as xr
import zarr

from data_pipelines.batches.archive import Archive
from data_pipelines.batches.world import VariableRoles, world_from_dataset
from data_pipelines.files import checkpoints
from data_pipelines.opening.datasets import open_dataset
from data_pipelines.opening.zarr_stores import CachedStore, cache_folder
from data_pipelines.reading import threads
from data_pipelines.reading.threads import DamagedData
from data_pipelines.sources.weatherbench2 import WeatherBench2
from emul.config.compose import compose
from emul.data.arguments import main as data_verb
from emul.train import train
from emulators.grid import equiangular_grid, gaussian_grid

GRID = equiangular_grid(32)
LEVELS = [50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, counts what is asked for, says nothing.

    ill: asked for a path that ends so, it does what stands there first: 500 and the like; seconds to wait; fine.
    """

    asked: list[str] = []  # noqa: RUF012
    ill: dict[str, list] = {}  # noqa: RUF012

    def do_GET(self):
        self.asked.append(self.path)
        for end, ills in self.ill.items():
            ill = ills.pop(0) if self.path.endswith(end) and ills else None
            if isinstance(ill, int):
                return self.send_error(ill)
            time.sleep(ill or 0.0)
        return super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def served(tmp_path):
    """The folder `tmp_path` over http on loopback: (address, paths asked for)."""
    Quiet.asked, Quiet.ill = [], {}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", Quiet.asked
    server.shutdown()
    thread.join()


def weatherbench2(path, times=12, zarr_format=2, consolidated=True) -> xr.Dataset:
    """A store as gs://weatherbench2/datasets/era5/1959-2023_01_10-6h-64x32_equiangular_conservative.zarr lays it out.

    Dimensions (time, level, longitude, latitude), south first, integer levels, hours since 1959, many times a chunk.
    """
    random = np.random.default_rng(0)
    coords = {
        "time": ("time", 6 * np.arange(times), {"units": "hours since 1959-01-01", "calendar": "proleptic_gregorian"}),
        "level": ("level", np.array(LEVELS, "int64"), {"units": "hPa"}),
        "longitude": ("longitude", GRID.longitude),
        "latitude": ("latitude", GRID.latitude[::-1]),
    }
    columns, surface = ("time", "level", "longitude", "latitude"), ("time", "longitude", "latitude")
    sizes = {"time": times, "level": 13, "longitude": 64, "latitude": 32}

    def field(dims, units, mean):
        values = mean * (1.0 + 0.01 * random.standard_normal([sizes[d] for d in dims], dtype=np.float32))
        return dims, values.astype("float32"), {"units": units}

    made = xr.Dataset(
        {
            "temperature": field(columns, "K", 250.0),
            "geopotential": field(columns, "m**2 s**-2", 5e4),
            "2m_temperature": field(surface, "K", 280.0),
            "sea_surface_temperature": field(surface, "K", 290.0),
            "geopotential_at_surface": field(surface[1:], "m**2 s**-2", 100.0),
            "land_sea_mask": field(surface[1:], "(0 - 1)", 0.5),
        },
        coords,
    )
    made["sea_surface_temperature"][:, :20] = np.nan
    encoding = {n: {"chunks": tuple({"time": 5}.get(d, sizes[d]) for d in made[n].dims)} for n in made.data_vars}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.to_zarr(path, zarr_format=zarr_format, consolidated=consolidated, encoding=encoding)
    return made


@pytest.mark.slow
@pytest.mark.parametrize(("zarr_format", "consolidated"), [(2, True), (3, True), (2, False)])
def test_weatherbench2_over_http(tmp_path, served, zarr_format, consolidated):
    pytest.importorskip("aiohttp", reason="aiohttp is not installed")
    made = weatherbench2(tmp_path / "era5.zarr", zarr_format=zarr_format, consolidated=consolidated)
    source = WeatherBench2(f"{served[0]}/era5.zarr", {"train": ["1959", "1959"]}, masks=["sea_surface_temperature"],
                           fill={"sea_surface_temperature": 270.0})  # fmt: skip
    source.prepare()
    ds = source.dataset()
    roles = VariableRoles(
        [{"geopotential": [500]}, "temperature", "2m_temperature"],
        forcing=["toa_incident_solar_radiation", "sea_surface_temperature"],
        static=["land_sea_mask", "geopotential_at_surface", "sea_surface_temperature_mask"],
    )
    there = world_from_dataset(ds, roles)
    assert there.grid.same_as(GRID)
    assert there.timestep == np.timedelta64(6, "h")
    state = Archive(ds, there).states(np.datetime64("1959-01-03T06"))
    truth = made.isel(time=9).transpose(..., "latitude", "longitude").isel(latitude=slice(None, None, -1))
    np.testing.assert_array_equal(state["geopotential"][0], truth["geopotential"].sel(level=500))
    np.testing.assert_array_equal(state["temperature"], truth["temperature"])
    np.testing.assert_array_equal(there.static_fields[2], np.isfinite(truth["sea_surface_temperature"]))


@pytest.fixture
def google(tmp_path):
    """The folder `tmp_path` as the public bucket gs://weather of a server on loopback: its address."""
    gcsfs = pytest.importorskip("gcsfs.core", reason="gcsfs is not installed")
    for scheme in ("gs", "gcs"):  # what gcsfs puts in its place asks by gRPC, which is not spoken here, for the bucket
        fsspec.register_implementation(scheme, gcsfs.GCSFileSystem, clobber=True)
    emulator = pytest.importorskip("gcp_storage_emulator.server", reason="gcp-storage-emulator is not installed")
    storage = emulator.Storage(use_memory_fs=True)
    emulator.buckets.create_bucket("weather", storage)
    handler = functools.partial(emulator.RequestHandler, storage)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)  # its own answers one caller at a time
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    weatherbench2(tmp_path / "era5.zarr")
    for file in (tmp_path / "era5.zarr").rglob("*"):
        if file.is_file():
            name = urllib.parse.quote(str(file.relative_to(tmp_path)), safe="")
            upload = f"{address}/upload/storage/v1/b/weather/o?uploadType=media&name={name}"
            urllib.request.urlopen(urllib.request.Request(upload, file.read_bytes(), method="POST"), timeout=10).close()
    yield address
    server.shutdown()
    thread.join()


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """The folder `tmp_path` as the public bucket s3://weather of a server on loopback: its address."""
    for package in ("s3fs", "boto3", "flask_cors"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    boto3 = importlib.import_module("boto3")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    weatherbench2(tmp_path / "era5.zarr")
    keys = {"region_name": "us-east-1", "aws_access_key_id": "a", "aws_secret_access_key": "b"}
    client = boto3.client("s3", endpoint_url=address, **keys)
    client.create_bucket(Bucket="weather")
    for file in tmp_path.rglob("*"):
        if file.is_file():
            name = str(file.relative_to(tmp_path))
            client.put_object(Bucket="weather", Key=name, Body=file.read_bytes(), ACL="public-read")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    yield address
    server.stop()


@pytest.fixture(params=["http", "s3", "s3 by the settings of fsspec", "gs"])
def elsewhere(request, monkeypatch):
    """The words by which a user names the store that lies elsewhere."""
    words = ["data=weatherbench2", f"data.path={request.param[:2]}://weather/era5.zarr"]
    if request.param == "http":
        pytest.importorskip("aiohttp", reason="aiohttp is not installed")
        address, _ = request.getfixturevalue("served")
        weatherbench2(request.getfixturevalue("tmp_path") / "era5.zarr")
        return [words[0], f"data.path={address}/era5.zarr"]
    if request.param == "gs":
        address = request.getfixturevalue("google")
        return [*words, f"data.storage_options={{token: anon, endpoint_url: '{address}'}}"]
    address = request.getfixturevalue("bucket")
    if request.param == "s3":
        return [*words, f"data.storage_options={{anon: true, endpoint_url: '{address}'}}"]
    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": address})
    return words


@pytest.mark.slow
def test_the_road_from_a_store_elsewhere(tmp_path, elsewhere, monkeypatch, capsys):
    """What the README shows for ERA5 in its public bucket: look, train straight from it, fetch a part, check that."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    splits = "{train: [1959-01-01, 1959-01-02], validation: [1959-01-03, 1959-01-03], test: [1959-01-03, 1959-01-03]}"
    words = [*elsewhere, f"data.splits={splits}"]
    assert data_verb(["inspect", *words]) == 0
    assert "12, 1959-01-01T00:00:00 to 1959-01-03T18:00:00, every 6h" in capsys.readouterr().out
    copy = tmp_path / "copy.zarr"
    assert data_verb(["download", *words, "fields=[temperature]", "years=1959-01-02", f"to={copy}"]) == 0
    whole = open_dataset(tmp_path / "era5.zarr").temperature.sel(time="1959-01-02")
    np.testing.assert_array_equal(open_dataset(copy).temperature, whole)
    assert data_verb(["check", str(copy), f"output={tmp_path}"]) == 0
    small = ["model=unet", "model.channels=[8]", "model.blocks=1", "training.steps=3", "training.batch_size=2"]
    small += ["variables=listed", "variables.prognostic=[{geopotential: [500]}, 2m_temperature]"]
    small += ["training.validation_lead=1", "hardware.threads=1", f"output={tmp_path}", "loader.gigabytes=0"]
    weights = {}
    for name, source in (("straight", [*words, "data.cache_gigabytes=0.1"]), ("local", [words[0], *words[-1:]])):
        source = source if name == "straight" else [*source, f"data.path={tmp_path / 'era5.zarr'}"]
        run = train(compose("train", [*source, *small, f"name={name}"]))
        weights[name] = checkpoints.load(run / "checkpoints" / "last.ckpt")["state_dict"]
    assert all(torch.equal(value, weights["local"][name]) for name, value in weights["straight"].items())
    assert list(cache_folder().glob("*/*"))


@pytest.mark.parametrize("ill", [500, 0.6])
def test_a_chunk_that_fails_or_hangs_is_tried_again_then_named(tmp_path, served, ill, monkeypatch):
    pytest.importorskip("aiohttp", reason="aiohttp is not installed")
    monkeypatch.setattr(threads, "WAITS", (0.0,))
    monkeypatch.setattr(threads, "TIMEOUT", 0.3)
    made = weatherbench2(tmp_path / "era5.zarr", times=8)
    ds = open_dataset(f"{served[0]}/era5.zarr")
    archive = Archive(ds, world_from_dataset(ds, VariableRoles(["2m_temperature"])), cache_gigabytes=0)
    Quiet.ill = {"/2m_temperature/1.0.0": [ill]}
    expected = made["2m_temperature"][6].transpose("latitude", "longitude")[::-1]
    np.testing.assert_array_equal(archive.gather(np.array([6]))[0, 0], expected)
    Quiet.ill = {"/2m_temperature/1.0.0": 9 * [ill]}
    with pytest.raises(DamagedData, match=r"'2m_temperature' at 1959-01-02T12:00:00 from http://.*era5\.zarr"):
        archive.gather(np.array([6]))


def test_an_address_without_a_store(served):
    pytest.importorskip("aiohttp", reason="aiohttp is not installed")
    with pytest.raises(FileNotFoundError, match="No Zarr store at http"):
        open_dataset(f"{served[0]}/era5.zarr")


def test_what_was_fetched_is_kept_up_to_a_size(tmp_path, served, monkeypatch):
    pytest.importorskip("aiohttp", reason="aiohttp is not installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = weatherbench2(tmp_path / "era5.zarr")
    address, asked = f"{served[0]}/era5.zarr", served[1]

    def read(gigabytes, times):
        asked.clear()
        ds = open_dataset(address, cache_gigabytes=gigabytes)
        found = ds["temperature"].isel(time=times, latitude=slice(None, None, -1)).values
        np.testing.assert_array_equal(found, made["temperature"].transpose(*ds["temperature"].dims)[times])
        return [path for path in asked if "/temperature/" in path and path[-1].isdigit()]

    assert len(read(1.0, slice(0, 12))) == 3
    assert read(1.0, slice(0, 12)) == []
    shutil.rmtree(tmp_path / "era5.zarr")
    made = weatherbench2(tmp_path / "era5.zarr", times=14)  # grown within its last chunk
    assert len(read(1.0, slice(0, 14))) == 3
    kept = sorted(cache_folder().glob("*/*"))
    sizes = sum(path.stat().st_size for path in kept)
    assert len(kept) >= 3
    kept[0].with_name(".half.1-1").write_bytes(b"x")  # of a process that was killed
    limit = 0.5 * sizes
    store = CachedStore(zarr.storage.MemoryStore({}), "a", cache_folder(), limit)
    store._keep(cache_folder() / "aa" / "new", b"0" * 10)
    assert sum(path.stat().st_size for path in cache_folder().glob("*/*")) <= limit
    assert (cache_folder() / "aa" / "new").exists()  # the youngest stays
    assert read(1.0, slice(0, 12))


def anemoi(path, shape=(8, 16), members=1, zarr_format=2) -> np.ndarray:
    """A store as anemoi-datasets makes it; its values, (time, variable, ensemble, cell)."""
    grid = gaussian_grid(8)
    latitude, longitude = (a.reshape(-1) for a in np.meshgrid(grid.latitude, grid.longitude, indexing="ij"))
    names = ["10u", "2t", "lsm", "t_500", "t_850", "z", "z_500", "z_850", "cos_latitude", "insolation"]
    values = np.random.default_rng(1).random((6, len(names), members, latitude.size), dtype=np.float32)
    root = zarr.create_group(path, zarr_format=zarr_format)
    for name, data, dims in (
        ("data", values, ("time", "variable", "ensemble", "cell")),
        ("dates", np.datetime64("2020-01-01", "s") + np.arange(6) * np.timedelta64(6, "h"), ("time",)),
        ("latitudes", latitude, ("cell",)),
        ("longitudes", longitude, ("cell",)),
        ("mean", values.mean(axis=(0, 2, 3)), ("variable",)),
        ("stdev", values.std(axis=(0, 2, 3)), ("variable",)),
    ):
        array = root.create_array(name, data=data, chunks=(1, *data.shape[1:]) if name == "data" else data.shape,
                                  **({"dimension_names": dims} if zarr_format == 3 else {}))  # fmt: skip
        if zarr_format == 2:
            array.attrs["_ARRAY_DIMENSIONS"] = list(dims)
    root.attrs.update(variables=names, missing_dates=["2020-01-01T18:00:00"], frequency="6h")
    if shape:
        root.attrs["field_shape"] = list(shape)
    return values


@pytest.mark.parametrize(("shape", "zarr_format"), [((8, 16), 2), (None, 3)])
def test_anemoi(tmp_path, shape, zarr_format):
    values = anemoi(tmp_path / "a.zarr", shape, zarr_format=zarr_format)
    source = WeatherBench2(str(tmp_path / "a.zarr"), {"train": ["2020", "2020"]})
    ds = source.dataset()
    made = world_from_dataset(
        ds, VariableRoles([{"temperature": [500, 850]}, "geopotential", "2m_temperature"], static=["land_sea_mask"])
    )
    archive = Archive(ds, made)
    assert made.grid.kind == "gaussian"
    assert archive.times.size == 5
    assert archive.following.tolist() == [1, 2, -1, 4, -1]  # the missing date is a gap
    state = archive.states(np.datetime64("2020-01-02"))
    np.testing.assert_array_equal(state.values.reshape(5, -1), values[4, [3, 4, 6, 7, 1], 0])
    assert ds["geopotential_at_surface"].dims == ("time", "latitude", "longitude")
    assert made.prognostic.variable("2m_temperature").units == "K"


def test_members_and_cells_of_anemoi(tmp_path):
    values = anemoi(tmp_path / "a.zarr", members=3)
    with pytest.raises(ValueError, match=r"'ensemble' of 3 .*select=\{ensemble: 0\}"):
        open_dataset(tmp_path / "a.zarr")
    ds = open_dataset(tmp_path / "a.zarr", select={"ensemble": 2})
    np.testing.assert_array_equal(ds["2m_temperature"][0].values.reshape(-1), values[0, 1, 2])
    root = zarr.open_group(tmp_path / "a.zarr")
    root["latitudes"][3] += 1.0
    points = open_dataset(tmp_path / "a.zarr", select={"ensemble": 2})
    np.testing.assert_array_equal(points["2m_temperature"][0].values, values[0, 1, 2])
    assert points["2m_temperature"].dims == ("time", "cell")
