"""Regions: which points belong to them, and with what weight."""

import numpy as np
import pytest

from emulators.grid import LatLonGrid, equiangular_grid, gaussian_grid
from emulators.statistics.area_means import REGIONS, Region, region, region_weights

GRID = equiangular_grid(13, poles=True)  # rows every 15 degrees, columns every 15
LIMITED = LatLonGrid(np.arange(60.0, 29.0, -1.5), np.arange(350.0, 371.0, 1.5) % 360)


def test_global_weights_are_cell_areas():
    weights = region_weights(GRID, ["global"])
    np.testing.assert_allclose(weights.matrix[:, 0], GRID.weights.ravel() / GRID.weights.sum(), rtol=1e-15)


@pytest.mark.parametrize("name", list(REGIONS))
def test_columns_sum_to_one(name):
    weights = region_weights(gaussian_grid(32), [name], np.full((32, 64), 0.3))
    assert weights.names == (name,)
    assert weights.matrix.sum() == pytest.approx(1.0, abs=1e-14)


def test_bounds_are_included():
    rows = region("northern-hemisphere").mask(equiangular_grid(19, poles=True))[:, 0]
    assert rows.sum() == 8  # 90, 80, ..., 20
    assert region({"box": {"latitude": [15, 30]}}).mask(GRID)[:, 0].sum() == 2


def test_boxes_may_cross_the_zero_meridian():
    columns = region("europe").mask(GRID)[3]  # 45 N
    assert GRID.longitude[columns].tolist() == [0.0, 15.0, 30.0]
    assert region({"west": {"longitude": [-30, 0]}}).mask(GRID)[0].sum() == 3
    assert region({"all": {"longitude": [0, 360]}}).mask(GRID).all()


def test_hemispheres_make_the_extra_tropics():
    masks = {name: region(name).mask(GRID) for name in ("extra-tropics", "northern-hemisphere", "southern-hemisphere")}
    np.testing.assert_array_equal(masks["extra-tropics"], masks["northern-hemisphere"] | masks["southern-hemisphere"])


def test_land_is_weighted_by_its_fraction():
    land = np.zeros(GRID.shape)
    land[6, 0], land[6, 1] = 1.0, 0.5
    weights = region_weights(GRID, ["global_land"], land).matrix.reshape(GRID.shape)
    assert weights[6, 0] == pytest.approx(2 * weights[6, 1])
    assert np.count_nonzero(weights) == 2


def test_land_and_ocean_make_the_whole():
    land = np.random.default_rng(0).random(GRID.shape)
    weights = region_weights(GRID, ["europe", "europe_land", "europe_ocean"], land).matrix
    area = GRID.weights.ravel() * region("europe").mask(GRID).ravel()
    share = (area * land.ravel()).sum() / area.sum()
    np.testing.assert_allclose(share * weights[:, 1] + (1 - share) * weights[:, 2], weights[:, 0], atol=1e-15)
    with pytest.raises(ValueError, match="over land and over ocean"):
        Region("both", land=True, ocean=True)


def test_limited_area():
    weights = region_weights(LIMITED, ["global", "arctic", "antarctic", "ausnz"])
    assert weights.names == ("global", "arctic")
    assert np.count_nonzero(weights.matrix[:, 0]) == np.prod(LIMITED.shape)
    assert set(weights.skipped) == {"antarctic", "ausnz"}
    assert "no point" in weights.skipped["ausnz"]
    assert np.abs(weights.matrix[:, 0].reshape(LIMITED.shape)[0, 0] / weights.matrix[:, 0].mean() - 1) < 0.3


def test_regions_over_land_are_skipped_without_a_mask():
    assert "land-sea mask" in region_weights(GRID, ["global", "tropics_land"]).skipped["tropics_land"]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("atlantis", "No region 'atlantis'"),
        ({"a": {"latitude": [10, -10]}}, "south <= north"),
        ({"a": {"latitude": [10]}}, "two bounds"),
        ({"a": {"lat": [0, 10]}}, "takes latitude, longitude, land and ocean"),
        ({"a": {}, "b": {}}, "one mapping"),
    ],
)
def test_bad_regions_are_refused(entry, said):
    with pytest.raises(ValueError, match=said):
        region(entry)


def test_no_region_at_all_is_refused():
    with pytest.raises(ValueError, match="None of the regions"):
        region_weights(LIMITED, ["antarctic"])
    with pytest.raises(ValueError, match="Two different regions"):
        region_weights(GRID, [Region("a"), Region("a", ((0, 10),))])
