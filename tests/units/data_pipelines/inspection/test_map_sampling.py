"""Maps: places where the projection puts them, pixels that find them again, equal areas, limited areas, coasts."""

import numpy as np
import pytest

from data_pipelines.inspection.picture_fields import is_whole_sphere, map_sampling, mollweide
from emulators.grid import LatLonGrid, equiangular_grid

WIDTH = 800
GRID = equiangular_grid(90)
LATITUDE, LONGITUDE = np.meshgrid(GRID.latitude, GRID.longitude, indexing="ij")


def test_the_projection_is_mollweides() -> None:
    for latitude, longitude in ((0.0, 180.0), (60.0, 30.0), (-45.0, 359.0), (90.0, 10.0)):
        x, y = mollweide(latitude, longitude)
        theta = np.arcsin(y)
        assert (2.0 * theta + np.sin(2.0 * theta)) / np.pi == pytest.approx(np.sin(np.deg2rad(latitude)), abs=1e-7)
        assert x == pytest.approx((longitude - 180.0) / 90.0 * np.cos(theta), abs=1e-7)


def test_pixels_show_the_places_that_lie_there() -> None:
    sampling = map_sampling(GRID, WIDTH)
    for latitude, longitude in ((50.0, 60.0), (0.0, 181.0), (-51.0, 320.0)):
        x, y = mollweide(latitude, longitude)
        at = round((1.0 - y) / 2.0 * (WIDTH // 2 - 1)), round((x + 2.0) / 4.0 * (WIDTH - 1))
        assert sampling.values(LATITUDE)[at] == pytest.approx(latitude, abs=0.5)
        assert sampling.values(LONGITUDE)[at] == pytest.approx(longitude, abs=0.8)


def test_areas_are_true() -> None:
    sampling = map_sampling(GRID, WIDTH)
    north = sampling.values((LATITUDE > 30.0).astype(float))
    assert north[sampling.inside].mean() == pytest.approx(0.25, abs=0.01)
    assert sampling.inside.mean() == pytest.approx(np.pi / 4, abs=0.01)


def test_a_limited_area_fills_its_map() -> None:
    area = LatLonGrid(np.linspace(60.0, 40.0, 11), np.mod(np.linspace(-10.0, 20.0, 16), 360.0))
    assert not is_whole_sphere(area)
    sampling = map_sampling(area, 100)
    assert sampling.inside.all()
    assert sampling.inside.shape[1] == 100
    field = np.broadcast_to(area.latitude[:, None], area.shape)
    np.testing.assert_allclose(sampling.values(field)[[0, -1]], [[60.0] * 100, [40.0] * 100])


def test_coasts_lie_where_land_begins() -> None:
    sampling = map_sampling(GRID, WIDTH)
    coasts = sampling.coasts((LATITUDE > 0.0).astype(float))
    assert set(np.flatnonzero(coasts.any(axis=1)).tolist()) <= {199, 200, 201}
    assert not sampling.coasts(None).any()
