"""Data on points, as institutes write them, in one form."""

import numpy as np
import pytest
import xarray as xr

from data_pipelines.conventions.attributes import grid_of
from data_pipelines.conventions.canonical import canonical
from emulators.grids import limited_area
from emulators.grids.catalogue import named_grid

TIME = np.array(["2001-01-01", "2001-01-02"], dtype="datetime64[ns]")


def along(grid, dim="cell", names=("lat", "lon"), **more):
    values = np.arange(2.0 * grid.size).reshape(2, -1)
    coords = {"time": TIME, **{n: (dim, part) for n, part in zip(names, grid.points, strict=True)}}
    return xr.Dataset({"t2m": (("time", dim), values, {"units": "K"})}, coords, more)


@pytest.mark.parametrize("name", ["O4", "N32", "healpix:2", "healpix:2:nested", "icosahedral:1", "cubed_sphere:3"])
def test_one_dimension_of_points(name):
    grid = named_grid(name)
    made = canonical(along(grid, "values", ("latitude", "longitude")))
    assert made["2m_temperature"].dims == ("time", "cell")
    np.testing.assert_array_equal(made["2m_temperature"][1], np.arange(grid.size) + grid.size)
    found = grid_of(made)
    assert found.same_as(grid)
    np.testing.assert_allclose(found.weights, grid.weights, rtol=5e-2 if "cubed" in name else 1e-6)
    assert found.is_global
    assert grid_of(canonical(made)).kind == found.kind


def test_radians_and_areas_of_icon():
    grid = named_grid("icosahedral:1:triangles")
    data = along(grid, "ncells").drop_vars(["lat", "lon"])
    for name, kind, part in zip(("clat", "clon"), ("latitude", "longitude"), grid.points, strict=True):
        data = data.assign_coords({name: ("ncells", np.deg2rad(part), {"units": "radian", "standard_name": kind})})
    made = canonical(data.assign(cell_area=("ncells", grid.area, {"standard_name": "cell_area"})))
    assert grid_of(made).same_as(grid)
    np.testing.assert_allclose(grid_of(made).weights, grid.weights)


def test_latitudes_on_two_dimensions():
    """As of MEPS and WRF: rows and columns of a map, each point with its own latitude."""
    grid = named_grid("lambert:63:15:6x5:100")
    latitude, longitude = (part.reshape(grid.raster) for part in grid.points)
    values = np.arange(60.0).reshape(2, 5, 6)
    meps = xr.Dataset(
        {"t2m": (("time", "y", "x"), values, {"grid_mapping": "projection_lambert"})},
        {"time": TIME, "latitude": (("y", "x"), latitude), "longitude": (("y", "x"), longitude)},
    ).assign(x=np.arange(6) * 1e5, y=np.arange(5) * 1e5)
    wrf = xr.Dataset(
        {"t2m": (("time", "south_north", "west_east"), values)},
        {"time": TIME, "XLAT": (("time", "south_north", "west_east"), np.stack([latitude] * 2)),
         "XLONG": (("time", "south_north", "west_east"), np.stack([longitude] * 2))},
    )  # fmt: skip
    for data in (meps, wrf):
        made = canonical(data)
        found = grid_of(made)
        assert (found.kind, found.raster) == ("limited_area", (5, 6))
        assert found.same_as(grid)
        np.testing.assert_allclose(found.coverage, grid.coverage)
        np.testing.assert_array_equal(made["2m_temperature"].values, values.reshape(2, -1))


@pytest.mark.parametrize("name", limited_area.EXAMPLES)
def test_projections_without_latitudes(name):
    """x and y under a CF grid mapping are the points that the grid has."""
    kind = name.split(":")[0]
    mapping = {
        "lambert": {"grid_mapping_name": "lambert_conformal_conic", "standard_parallel": [30.0, 60.0],
                    "latitude_of_projection_origin": 52.0, "longitude_of_central_meridian": 10.0},
        "stereographic": {"grid_mapping_name": "polar_stereographic", "latitude_of_projection_origin": 90.0,
                          "straight_vertical_longitude_from_pole": 0.0, "standard_parallel": 60.0},
        "rotated_pole": {"grid_mapping_name": "rotated_latitude_longitude", "grid_north_pole_latitude": 39.25,
                         "grid_north_pole_longitude": -162.0},
    }[kind]  # fmt: skip
    rotated = kind == "rotated_pole"
    x, y = (np.arange(6) - 2.0, np.arange(5) - 1.0) if rotated else (np.arange(6) * 2e5, np.arange(5) * 2e5)
    names = ("grid_longitude", "grid_latitude") if rotated else ("projection_x_coordinate", "projection_y_coordinate")
    data = xr.Dataset(
        {"t2m": (("time", "y", "x"), np.zeros((2, 5, 6))), "map": ((), 0, mapping)},
        {"time": TIME, "x": ("x", x, {"standard_name": names[0]}), "y": ("y", y, {"standard_name": names[1]})},
    )
    found = grid_of(canonical(data))
    assert found.raster == (5, 6)
    east, north = limited_area.forward(*found.points, mapping)
    east = (east + 180) % 360 - 180 if rotated else east
    np.testing.assert_allclose(east.reshape(5, 6)[2], x, atol=1e-5 if rotated else 0.1)
    np.testing.assert_allclose(north.reshape(5, 6)[:, 3], y, atol=1e-5 if rotated else 0.1)


def test_known_places_of_projections():
    """Numbers of Snyder 1987, doi 10.3133/pp1395: Lambert p. 296, and the pole of a rotated grid."""
    mapping = {"grid_mapping_name": "lambert_conformal_conic", "standard_parallel": [33.0, 45.0],
               "latitude_of_projection_origin": 23.0, "longitude_of_central_meridian": -96.0,
               "earth_radius": 1.0}  # fmt: skip
    x, y = limited_area.forward(np.array(35.0), np.array(-75.0), mapping)
    assert (float(x), float(y)) == pytest.approx((0.2966785, 0.2462112), abs=1e-7)
    pole = {"grid_mapping_name": "rotated_latitude_longitude", "grid_north_pole_latitude": 39.25,
            "grid_north_pole_longitude": -162.0}  # fmt: skip
    latitude, longitude = limited_area.inverse(np.array([0.0, 0.0]), np.array([0.0, 90.0]), pole)
    np.testing.assert_allclose(latitude, [50.75, 39.25])
    np.testing.assert_allclose(longitude, [18.0, 198.0])


def test_healpix_by_its_mapping():
    values = np.zeros((2, 48))
    crs = {"grid_mapping_name": "healpix", "healpix_nside": 2, "healpix_order": "nest"}
    made = canonical(xr.Dataset({"t2m": (("time", "cell"), values), "crs": ((), 0, crs)}, {"time": TIME}))
    assert grid_of(made).name == "healpix:2:nested"
    with pytest.raises(ValueError, match="has 192 cells; the data have 48"):
        canonical(xr.Dataset({"t2m": (("time", "cell"), values)}, {"time": TIME}, {"healpix_nside": 4}))


def test_stations_and_missing_places():
    grid = named_grid("stations:52.5,13.4;48.1,11.6;60,330")
    found = grid_of(canonical(along(grid, "station")))
    assert (found.kind, found.coverage, found.weights.tolist()) == ("stations", 0.0, [1.0, 1.0, 1.0])
    data = along(grid, "station")
    data["lat"].values[1] = np.nan
    with pytest.raises(ValueError, match="missing; leave these points out"):
        canonical(data)
