"""Land of the Earth where it is, on grids of any kind and spacing."""

import numpy as np
import pytest

from data_pipelines.pictures.maps import land_fraction, land_points
from emulators.grid import LatLonGrid, equiangular_grid

PLACES = {  # latitude, longitude, whether it is land
    "Sahara": (22.0, 10.0, True),
    "Siberia": (62.0, 100.0, True),
    "Amazonia": (-5.0, 300.0, True),
    "Australia": (-25.0, 134.0, True),
    "South Pole": (-89.0, 90.0, True),
    "Pacific": (0.0, 200.0, False),
    "Atlantic": (30.0, 320.0, False),
    "North Pole": (89.0, 0.0, False),
    "Gulf of Guinea": (0.0, 0.0, False),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("rows", [45, 181, 1440])
def test_places(place, rows):
    latitude, longitude, is_land = PLACES[place]
    half = 90.0 / rows
    column = longitude + np.array([-1.0, 0.0, 1.0]) * 2 * half
    row = latitude + np.array([0.5, -0.5]) * 2 * half
    patch = LatLonGrid(np.clip(row, -90.0, 90.0), np.mod(column, 360.0))
    assert (land_fraction(patch)[:, 1].mean() > 0.5) == is_land


def test_shares_of_the_globe():
    grid = equiangular_grid(32)
    fraction = land_fraction(grid)
    assert fraction.shape == grid.shape
    assert 0.0 <= fraction.min() <= fraction.max() <= 1.0
    share = float((grid.weights * fraction).mean())
    rows = np.cos(np.deg2rad(90.0 - 0.125 - 0.25 * np.arange(720)))[:, None]
    assert share == pytest.approx(float((rows * land_points()).sum() / rows.sum() / 1440), abs=2e-3)
    assert share == pytest.approx(0.29, abs=0.02)  # of the Earth, ice shelves apart
