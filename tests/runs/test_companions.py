"""The planet's fast companions as data: layout, repeatability, cache, twins, and a training on each."""

import csv
import math
from itertools import pairwise

import numpy as np
import pytest
from omegaconf import OmegaConf

from data_pipelines.simulators.stores import Trajectories, store_path
from data_pipelines.sources.kuramoto_sivashinsky import KuramotoSivashinsky
from data_pipelines.sources.lorenz96 import Lorenz96
from data_pipelines.sources.quasigeostrophic import QuasiGeostrophic
from data_pipelines.sources.shallow_water import ShallowWater
from emul.config.compose import compose
from emul.eval import evaluate
from emul.forecast import forecast
from emul.train import train
from places import CONF

SPLITS = {"train": ["2001-01-01", "2001-01-02"], "validation": ["2001-01-03"] * 2, "test": ["2001-01-04"] * 2}
SMALL = {
    "quasigeostrophic": (
        QuasiGeostrophic,
        {"days": 6, "trajectories": 2, "spinup_days": 2, "truncation": 8, "timestep_minutes": 180},
        {"seed": 1, "days": 7, "mountains": 0.0, "oceans": 0.0, "truncation": 9, "interval_hours": 6},
    ),
    "shallow_water": (
        ShallowWater,
        {"days": 2, "trajectories": 3, "truncation": 12, "timestep_minutes": 60, "interval_hours": 6},
        {"seed": 1, "case": "mountain", "noise": 0.1, "damping_hours": None, "trajectories": 2},
    ),
    "lorenz96": (
        Lorenz96,
        {"days": 6, "trajectories": 2, "spinup_days": 20, "sectors": 12},
        {"seed": 1, "forcing": 10.0, "fast": 4, "sectors": 13, "days": 5},
    ),
    "kuramoto_sivashinsky": (
        KuramotoSivashinsky,
        {"days": 6, "trajectories": 2, "spinup_days": 30, "points": 44},
        {"seed": 1, "length": 20.0, "points": 48, "days": 5},
    ),
}
CONFIGS = CONF / "data"


def _source(name, folder, **changes):
    kind, settings, _ = SMALL[name]
    return kind(**{"splits": SPLITS, "folder": str(folder), **settings, **changes})


@pytest.fixture(scope="module", params=SMALL)
def made(request, tmp_path_factory):
    source = _source(request.param, tmp_path_factory.mktemp(request.param))
    source.prepare()
    return request.param, source, source.dataset().load()


def test_layout_is_that_of_the_template(made):
    _, source, dataset = made
    template = source.template()
    assert list(dataset) == list(template)
    assert dataset.attrs == template.attrs
    for name in template.variables:
        assert dataset[name].dims == template[name].dims
        assert dataset[name].shape == template[name].shape
        assert dataset[name].dtype == template[name].dtype
        assert dataset[name].attrs == template[name].attrs
    for name, field in dataset.data_vars.items():
        assert field.dims[-2:] == ("latitude", "longitude")
        assert {"units", "long_name"} <= set(field.attrs), name
        assert field.dtype == np.float32
        assert np.isfinite(field).all()
    np.testing.assert_array_equal(dataset.time, source.trajectories.times)
    assert dataset.attrs["Conventions"] == "CF-1.8"


def test_trajectories_differ_and_move(made):
    _, source, dataset = made
    first = next(iter(dataset.data_vars.values()))
    many, long = source.trajectories.number, source.trajectories.samples
    parts = first.values.reshape(many, long, -1)
    spread = parts.std()
    assert np.abs(parts[0] - parts[1]).max() > 0.05 * spread
    assert (np.abs(np.diff(parts, axis=1)).max(axis=(1, 2)) > 0.0).all()
    steps = np.diff(dataset.time.values)
    assert (steps == steps.min()).sum() == many * (long - 1)
    assert steps.max() > np.timedelta64(10, "D")


def test_same_seed_same_data_and_what_is_there_is_kept(made, tmp_path):
    name, source, dataset = made
    shares = []
    again = _source(name, tmp_path)
    again.prepare(lambda label, share: shares.append(share))
    assert again.path.name == source.path.name
    assert again.dataset().identical(dataset)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    written = again.path.stat().st_mtime_ns
    again.prepare()
    assert again.path.stat().st_mtime_ns == written


def test_every_setting_makes_data_of_their_own(made, tmp_path):
    name, source, _ = made
    changes = SMALL[name][2]
    paths = {_source(name, tmp_path, **{key: value}).path.name for key, value in changes.items()}
    assert len(paths | {source.path.name}) == len(changes) + 1


def test_interrupted_run_leaves_nothing_that_looks_whole(made, tmp_path):
    source = _source(made[0], tmp_path)

    def interrupt(label, share):
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        source.prepare(interrupt)
    with pytest.raises(FileNotFoundError, match="not made yet"):
        source.dataset()
    assert not list(tmp_path.glob("*.zarr*"))
    assert not list(tmp_path.glob("*.partial*"))


def test_twins_start_alike_and_part(made):
    name, source, dataset = made
    noise = {"quasigeostrophic": 0.1, "shallow_water": 0.1, "lorenz96": 1e-3, "kuramoto_sivashinsky": 1e-3}[name]
    field = str(next(iter(dataset.data_vars)))
    sizes = []
    for case in source.twins(2, 8, noise, lambda label, share: None):
        errors = []
        last = None
        for truth, other in zip(case.control, case.twin, strict=True):
            assert truth[field].shape == dataset[field].shape[1:]
            errors.append(np.sqrt(np.mean((truth[field] - other[field]) ** 2)))
            last = truth
        sizes.append(errors)
        assert np.abs(last[field] - case.first[field]).max() > 0.0
    spread = float(dataset[field].std())
    assert 0.0 < np.max(sizes) < 0.3 * spread
    assert np.shape(sizes) == (2, 8)


def test_twins_of_shallow_water_begin_where_trajectories_do(tmp_path):
    """A jet that has broken is no case for one that is about to."""
    source = _source("shallow_water", tmp_path)
    source.prepare()
    stored = source.dataset().u_component_of_wind.values.reshape(3, -1, *source.grid.shape)
    cases = list(source.twins(3, 1, 0.1, lambda label, share: None))
    for case, trajectory in zip(cases, stored, strict=True):
        np.testing.assert_allclose(case.first["u_component_of_wind"], trajectory[0], atol=1e-3)
        np.testing.assert_allclose(next(case.control)["u_component_of_wind"], trajectory[1], atol=1e-3)


def test_published_case_of_shallow_water_comes_first(tmp_path):
    source = _source("shallow_water", tmp_path, case="rotation", noise=1.0, days=1)
    source.prepare()
    u = source.dataset().u_component_of_wind.values.reshape(3, 4, *source.grid.shape)
    assert np.ptp(u[0], axis=(0, 2)).max() < 0.01  # steady and zonal
    assert np.ptp(u[1], axis=2).max() > 0.5


def test_mountains_and_oceans_are_options(tmp_path):
    source = _source("quasigeostrophic", tmp_path, mountains=0.0, oceans=0.0, days=1)
    source.prepare()
    dataset = source.dataset()
    assert not dataset.geopotential_at_surface.any()
    high = _source("quasigeostrophic", tmp_path, days=1)
    high.prepare()
    ground = high.dataset().geopotential_at_surface / 9.80665
    assert 2300.0 < float(ground.max()) <= 3000.0
    assert float(ground.where(ground.latitude < 0).max()) < 10.0


def test_two_scales_store_the_small_one(tmp_path):
    source = _source("lorenz96", tmp_path, fast=4)
    source.prepare()
    dataset = source.dataset()
    assert dataset.fast_variable.dims == ("time", "level", "latitude", "longitude")
    assert dataset.level.values.tolist() == [1, 2, 3, 4]
    assert dataset.attrs["vertical_kind"] == "none"
    np.testing.assert_allclose(dataset.subgrid_tendency, -dataset.fast_variable.sum("level"), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("quasigeostrophic", {"timestep_minutes": 50}, "must divide 6 hours; got 50"),
        ("quasigeostrophic", {"interval_hours": 7}, "must divide a day"),
        ("quasigeostrophic", {"truncation": 3}, "truncation must be at least 5; got 3"),
        ("shallow_water", {"case": "vortex"}, "one of rotation, mountain, haurwitz, jet; got 'vortex'"),
        ("shallow_water", {"damping_hours": 0.0}, "damping_hours must be above 0, or null"),
        ("shallow_water", {"noise": -1.0}, "noise must be at least 0; got -1"),
        ("lorenz96", {"sectors": 3}, "sectors must be at least 4; got 3"),
        ("kuramoto_sivashinsky", {"length": 30.0, "points": 32}, "points must be at least 60; got 32"),
    ],
)
def test_settings_that_cannot_work_are_refused(name, change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        _source(name, tmp_path, **change)


def test_hasty_timestep_is_told(tmp_path):
    source = _source("shallow_water", tmp_path, truncation=31, timestep_minutes=180)
    with pytest.raises(ValueError, match="grew without bound; choose a shorter timestep"):
        source.prepare()
    assert not list(tmp_path.glob("*.partial*"))


def test_trajectories_are_laid_one_after_the_other(tmp_path):
    six, day = np.timedelta64(6, "h"), np.timedelta64(1, "D")
    two = Trajectories(2, 3, six, np.datetime64("2001-01-01", "s"), day)
    hours = (two.times - np.datetime64("2001-01-01", "s")) / np.timedelta64(1, "h")
    assert hours.tolist() == [0.0, 6.0, 12.0, 42.0, 48.0, 54.0]
    other = Trajectories(2, 3, six, np.datetime64("2001-01-02", "s"), day)
    assert store_path(None, "x", two.plain()) != store_path(None, "x", other.plain())


@pytest.mark.parametrize("name", SMALL)
def test_shipped_splits_lie_apart_on_dates_that_exist(name):
    settings = OmegaConf.to_container(OmegaConf.load(CONFIGS / f"{name}.yaml"))
    kind = SMALL[name][0]
    source = kind(**{key: value for key, value in settings.items() if key not in ("_target_", "defaults")})
    times = source.trajectories.times
    periods = [np.array(source.splits[split], dtype="datetime64[s]") for split in source.splits]
    assert all(end in times for period in periods for end in period)
    for before, after in pairwise(sorted(periods, key=lambda period: period[0])):
        assert after[0] - before[1] > np.timedelta64(2, "D")
    ends = times.reshape(source.trajectories.number, -1)
    for start, end in periods:  # whole trajectories
        assert start in ends[:, 0]
        assert end in ends[:, -1]


ROADS = {
    "quasigeostrophic": ["model=unet", "model.channels=[8]", "model.blocks=1"],
    "shallow_water": ["model=sfno", "model.embed=8", "model.layers=1"],
    "lorenz96": ["model=unet", "model.channels=[8]", "model.blocks=1"],
    "kuramoto_sivashinsky": ["model=linear", "model.kernel=5", "model.bands=1"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_trains_forecasts_and_is_scored(name, tmp_path):
    kind, settings, _ = SMALL[name]
    source = kind(splits=SPLITS, folder=str(tmp_path / "cache"), **settings)
    long = source.trajectories
    first, last = (str(long.times[i * long.samples]) for i in (0, 1))
    ends = [str(long.times[(i + 1) * long.samples - 1]) for i in (0, 1)]
    data = [f"data.{key}={value}" for key, value in settings.items()]
    overrides = [
        f"data={name}",
        f"data.folder={tmp_path / 'cache'}",
        *data,
        f"data.splits={{train: ['{first}', '{ends[0]}'], validation: ['{last}', '{ends[1]}'], "
        f"test: ['{last}', '{ends[1]}']}}",
        "hardware=debug",
        *ROADS[name],
        f"output={tmp_path}",
        "name=x",
    ]
    folder = train(compose("train", overrides))
    forecast(compose("forecast", [f"run={folder}", "lead=2", "every=1d", f"output={tmp_path}"]))
    evaluate(compose("eval", [f"run={folder}", f"output={tmp_path}"]))
    scores = tmp_path / "eval" / "x" / "scores.nc"
    assert scores.is_file()
    assert (tmp_path / "eval" / "x" / "hero.png").is_file()
    if "linear" not in ROADS[name][0]:
        with (folder / "metrics.csv").open() as file:
            losses = [float(row["loss"]) for row in csv.DictReader(file) if row.get("loss")]
        assert losses
        assert all(map(math.isfinite, losses))
