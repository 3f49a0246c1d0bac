"""The planet on pressure levels: its layout, what stays as the planet has it, and the road from training to scores."""

import numpy as np
import pytest
import torch
import xarray as xr

from data_pipelines.sources.planet import Planet
from data_pipelines.sources.planet_pressure import LEVELS, PlanetPressure
from emul.config.compose import compose
from emul.eval import evaluate
from emul.forecast import forecast
from emul.train import train
from emulators.constants import GRAVITY
from emulators.grid import LatLonGrid
from emulators.physics.columns import column_water

SPLITS = {"train": ["2001-01-01", "2001-01-03"], "validation": ["2001-01-04"] * 2, "test": ["2001-01-05"] * 2}
TINY = {"days": 6, "trajectories": 1, "spinup_days": 1, "truncation": 10, "levels": 4, "timestep_minutes": 120}


@pytest.fixture(scope="module")
def planet(tmp_path_factory):
    return Planet(splits=SPLITS, folder=str(tmp_path_factory.mktemp("planet")), **TINY)


@pytest.fixture(scope="module")
def truth(planet):
    planet.prepare()
    return planet.dataset().load()


@pytest.fixture(scope="module", params=["64x32_equiangular", "36x19_equiangular_with_poles", "gaussian"])
def source(request, planet):
    source = PlanetPressure(planet=planet, levels=[50, 200, 500, 850, 1000], grid=request.param)
    source.prepare()
    return source


def mean(field: xr.DataArray) -> np.ndarray:
    weights = LatLonGrid(field.latitude.values, field.longitude.values).weights
    return (field.values.astype(np.float64) * weights / weights.size).sum(axis=(-2, -1))


def test_layout_is_that_of_the_template(source, truth):
    dataset, template = source.dataset().load(), source.template()
    assert list(dataset) == list(template)
    for name in template.variables:
        assert dataset[name].dims == template[name].dims, name
        assert dataset[name].shape == template[name].shape, name
        assert dataset[name].attrs == template[name].attrs, name
    assert all(field.dtype == np.float32 and np.isfinite(field).all() for field in dataset.values())
    assert dataset.attrs["vertical_kind"] == "pressure"
    assert dataset.evaporation_6hr.attrs == truth.evaporation_6hr.attrs
    np.testing.assert_array_equal(dataset.level, [50, 200, 500, 850, 1000])
    np.testing.assert_array_equal(dataset.time, truth.time)
    assert source.path.parent == source.planet.path.parent
    assert dataset.attrs["truth"] == source.planet.path.name


def test_water_and_fluxes_keep_their_area_means(source, truth):
    dataset = source.dataset().load()
    for name in ("total_precipitation_6hr", "evaporation_6hr", "net_radiation_6hr", "sea_surface_temperature"):
        np.testing.assert_allclose(mean(dataset[name]), mean(truth[name]), rtol=1e-6, err_msg=name)
    assert dataset.total_precipitation_6hr.min() >= 0.0
    assert dataset.specific_humidity.min() >= 0.0
    thickness = np.diff(truth.attrs["vertical_b"])[:, None, None] * truth.surface_pressure.values[:, None] / GRAVITY
    column = (truth.specific_humidity * thickness).sum("level")
    np.testing.assert_allclose(mean(dataset.total_column_water_vapour), mean(column), rtol=1e-6)


def test_a_flat_sea_has_its_level_at_the_surface(tmp_path):
    sea = Planet(splits=SPLITS, folder=str(tmp_path), geography="water", **TINY | {"days": 1})
    source = PlanetPressure(planet=sea, levels=[500], grid="36x19_equiangular_with_poles")
    source.prepare()
    dataset = source.dataset().load()
    np.testing.assert_array_equal(dataset.mean_sea_level_pressure, dataset.surface_pressure)
    assert not dataset.geopotential_at_surface.any()
    assert not dataset.land_sea_mask.any()


def test_fields_near_the_ground_and_at_sea_level_are_plausible(source, truth):
    dataset = source.dataset().load()
    high = dataset.geopotential_at_surface > 500.0 * GRAVITY
    assert high.any()
    assert (dataset.mean_sea_level_pressure > dataset.surface_pressure).where(high, True).all()
    assert 95000.0 < float(dataset.mean_sea_level_pressure.mean()) < 106000.0
    assert 0.0 <= float(dataset.land_sea_mask.min()) <= float(dataset.land_sea_mask.max()) <= 1.0
    np.testing.assert_allclose(mean(dataset.land_sea_mask), mean(truth.land_sea_mask), rtol=1e-6)
    heights = dataset.geopotential.values / GRAVITY
    assert (np.diff(heights, axis=1) < 0.0).all()
    assert 5000.0 < heights[:, 2].mean() < 5700.0
    near = dataset["2m_temperature"] - dataset.skin_temperature
    assert float(abs(near).max()) < 40.0
    wind = [np.hypot(dataset[f"{n}u_component_of_wind"], dataset[f"{n}v_component_of_wind"]) for n in ("10m_", "")]
    assert wind[0].mean() < wind[1].sel(level=850).mean()


def test_on_its_own_grid_the_planet_stays_as_it_is(planet, truth):
    source = PlanetPressure(planet=planet, grid="gaussian")
    source.prepare()
    dataset = source.dataset().load()
    for name in ("surface_pressure", "total_precipitation_6hr", "geopotential_at_surface", "land_sea_mask"):
        np.testing.assert_array_equal(dataset[name], truth[name])
    assert tuple(dataset.level.values) == LEVELS
    colder = truth.temperature.min(("time", "level")), truth.temperature.max(("time", "level"))
    free = 100.0 * dataset.level < 1e-3 * float(truth.level[-1]) * truth.surface_pressure  # above the lowest level
    within = (dataset.temperature >= colder[0] - 1e-3) & (dataset.temperature <= colder[1] + 1e-3)
    assert 0.5 < float(free.mean()) < 1.0
    assert within.where(free, True).all()


def test_each_layers_water_goes_to_the_grid_as_mass(source, truth):
    view = source.view()
    columns, surfaces = view.on_grid({name: truth[name].values[:3] for name in truth if "time" in truth[name].dims})
    column = column_water(columns["specific_humidity"], surfaces["surface_pressure"], view.vertical)
    torch.testing.assert_close(column, surfaces["total_column_water_vapour"], rtol=1e-12, atol=1e-12)


def test_interrupted_view_leaves_nothing_that_looks_whole(planet, truth):
    source = PlanetPressure(planet=planet, levels=[500], grid="64x32_equiangular")

    def interrupt(label, share):
        if label == "pressure levels" and share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        source.prepare(interrupt)
    with pytest.raises(FileNotFoundError, match="not made yet"):
        source.dataset()
    assert not list(source.path.parent.glob(f".{source.path.name}.partial*"))


def test_progress_runs_once_from_nothing_to_all(tmp_path):
    shares = []
    planet = Planet(splits=SPLITS, folder=str(tmp_path), **TINY | {"days": 2})
    PlanetPressure(planet=planet, levels=[500]).prepare(lambda label, share: shares.append(share))
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)


def test_every_view_has_a_store_of_its_own(planet):
    other = Planet(splits=SPLITS, folder=str(planet.path.parent), **TINY | {"seed": 3})
    views = [{}, {"levels": [500]}, {"grid": "gaussian"}, {"grid": "32x16_equiangular"}, {"planet": other}]
    assert len({PlanetPressure(**{"planet": planet} | view).path for view in views}) == len(views)
    named, plain = ("64x32_equiangular_conservative", "64x32_equiangular")
    assert PlanetPressure(planet=planet, grid=named).path == PlanetPressure(planet=planet, grid=plain).path


def test_settings_that_cannot_work_are_refused(planet):
    with pytest.raises(ValueError, match=r"No grid .64x32.: longitudes x latitudes and a kind, 64x32_equiangular"):
        PlanetPressure(planet=planet, grid="64x32")
    with pytest.raises(ValueError, match="from the top down; got"):
        PlanetPressure(planet=planet, levels=[850, 500])
    with pytest.raises(ValueError, match="resolves 8 degrees, the data 11"):
        PlanetPressure(planet=planet, grid="16x8_equiangular")


@pytest.mark.slow
def test_the_whole_road(tmp_path, capsys):
    """Train, forecast, evaluate: the score card leads with geopotential at 500 hPa and temperature at 850 hPa."""
    settings = ["data=planet_pressure", "data@data.planet=planet_tiny", "data.levels=[200,500,850]"]
    settings += ["model=linear", f"output={tmp_path}", "name=x", "training.validation_cases=2"]
    run = train(compose("train", settings))
    forecast(compose("forecast", [f"run={run}", "lead=1d", f"output={tmp_path}"]))
    capsys.readouterr()
    target = evaluate(compose("eval", [f"run={run}", f"output={tmp_path}", "pictures=false"]))
    told = capsys.readouterr().out
    assert "geopotential 500 hPa" in told
    assert "temperature 850 hPa" in told
    with xr.open_dataset(target / "scores.nc", decode_timedelta=True) as scores:
        assert np.isfinite(scores.geopotential.sel(metric="rmse", region="global", level=500)).all()
