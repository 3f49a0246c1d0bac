"""A planet on cells: regridded, packed, trained on, forecast, scored and drawn; and a limited area of it."""

import json

import numpy as np
import pytest
import xarray as xr

from data_pipelines.conventions.attributes import grid_of
from data_pipelines.opening.datasets import open_dataset
from data_pipelines.sources.weatherbench2 import WeatherBench2
from emul.main import main
from emulators.grids.catalogue import named_grid

pytestmark = pytest.mark.slow

TIMES = "train: [2001-01-01, 2001-01-20], validation: [2001-01-31, 2001-02-09], test: [2001-02-10, 2001-02-19]"
SPLITS = f"data.splits={{{TIMES}}}"
MODEL = ["model=linear", "model.kernel=1", "hardware=debug"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the planet on an octahedral grid."""
    folder = tmp_path_factory.mktemp("cells")
    main(["data", "regrid", "data=planet_tiny", "grid=O8", f"weights={folder}/w.npz", f"to={folder}/O8.zarr"])
    return folder


def test_from_regridding_to_the_report(folder, monkeypatch):
    monkeypatch.chdir(folder)
    data = open_dataset(folder / "O8.zarr")
    assert grid_of(data).same_as(named_grid("O8"))
    variables = ["variables.prognostic=[temperature,surface_pressure]", "variables.static=[land_sea_mask]"]
    variables += ["variables.forcing=[toa_incident_solar_radiation]"]
    source = ["data=weatherbench2", "data.path=O8.zarr", SPLITS]
    main(["data", "convert", *source, *variables, "to=packed"])
    main(["train", "data=packed", "data.path=packed", *MODEL, "name=cells"])
    main(["forecast", "run=outputs/train/cells", "lead=1d"])
    forecast = xr.open_zarr("outputs/forecast/cells/forecast.zarr")
    assert forecast["temperature"].dims == ("time", "prediction_timedelta", "level", "cell")
    assert forecast["temperature"].attrs.get("coordinates") is None
    assert {"latitude", "longitude", "cell_area_weight"} <= set(forecast.coords) | set(forecast.variables)
    main(["eval", "run=outputs/train/cells", "regions=[global,northern-hemisphere]"])
    scores = xr.open_dataset("outputs/eval/cells/scores.nc")
    assert scores.attrs["grid"] == "reduced_gaussian O8 of 544 cells"
    found = scores["surface_pressure"].sel(metric="rmse", region="global").isel(lead_time=0).item()
    truth = data["surface_pressure"]
    inits = forecast["time"].values
    lead = forecast["prediction_timedelta"].values[0]
    error = forecast["surface_pressure"].isel(prediction_timedelta=0).values - truth.sel(time=inits + lead).values
    weights = named_grid("O8").weights
    assert found == pytest.approx(np.sqrt((error**2 * weights).mean(axis=1).mean()), rel=1e-5)
    for name in ("report.html", "hero.png", "case.html"):
        assert (folder / "outputs/eval/cells" / name).stat().st_size > 10_000
    assert any((folder / "outputs/eval/cells/maps").glob("*.png"))


def test_a_network_on_the_faces_of_healpix(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source = ["data=regridded", "data@data.source=planet_tiny", "data.grid=healpix:16"]
    model = ["model=dlwp_hpx_small", "model.channels=[8,4,4]", "history=2", "hardware=debug"]
    assert main(["train", *source, *model, "training.steps=2", "name=on_healpix"]) == 0
    assert main(["forecast", "run=outputs/train/on_healpix", "lead=1d"]) == 0
    forecast = xr.open_zarr("outputs/forecast/on_healpix/forecast.zarr")
    assert grid_of(forecast).same_as(named_grid("healpix:16"))
    assert np.isfinite(forecast["temperature"].values).all()
    assert main(["check", "data=planet_tiny", "model=dlwp_hpx_small"])
    assert "Expected a HEALPix grid" in " ".join(capsys.readouterr().out.split())


def test_networks_of_rows_refuse_cells(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    fault = main(["check", "data=weatherbench2", "data.path=O8.zarr", SPLITS, "variables.prognostic=[temperature]",
                  "model=unet"])  # fmt: skip
    assert fault
    told = " ".join(capsys.readouterr().out.split())
    assert "rows and columns of latitude and longitude" in told


@pytest.mark.parametrize("cells", [True, False])
def test_a_limited_area_has_its_boundary(folder, cells):
    path = folder / "O8.zarr"
    if not cells:
        path = folder / "rows.zarr"
        main(["data", "regrid", "data=planet_tiny", "grid=36x18_equiangular", f"to={path}"])
    area = {"latitude": [20, 80], "longitude": [-30, 60], "boundary": 12, "prescribe": ["temperature"]}
    made = WeatherBench2(str(path), area=area).dataset()
    grid, zone = grid_of(made), made["boundary_zone"].values.reshape(-1)
    latitude, longitude = grid.points
    east = (longitude + 180) % 360 - 180
    assert not grid.is_global
    assert latitude.min() >= 20
    assert latitude.max() <= 80
    assert east.min() >= -30
    assert east.max() <= 60
    inner = (latitude > 32) & (latitude < 68)
    assert zone[~inner].all()
    assert not zone[inner & (np.abs(east - 15) < 10)].any()
    np.testing.assert_array_equal(made["interior"].values.reshape(-1), 1 - zone)
    told, truth = (made[name][3].values.reshape(-1, zone.size) for name in ("temperature_at_boundary", "temperature"))
    np.testing.assert_array_equal(told[:, zone == 1], truth[:, zone == 1])
    expected = truth[:, zone == 1].mean(axis=1, keepdims=True) + np.zeros((1, int((zone == 0).sum())))
    np.testing.assert_allclose(told[:, zone == 0], expected, rtol=1e-5)
    with pytest.raises(ValueError, match="leaves no interior"):
        WeatherBench2(str(path), area=area | {"boundary": 40}).dataset()
    with pytest.raises(ValueError, match="holds no points"):
        WeatherBench2(str(path), area=area | {"boundary": 0}).dataset()
    with pytest.raises(ValueError, match="holds no part"):
        WeatherBench2(str(path), area=area | {"latitude": [89.5, 89.9]}).dataset()
    assert json.loads(json.dumps(grid.plain()))
