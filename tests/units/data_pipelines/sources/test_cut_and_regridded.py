"""Sources made of another source: a limited area of it, and all of it on another grid."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import xarray as xr

from data_pipelines.conventions.attributes import grid_of
from data_pipelines.conventions.cells import grid_attributes
from data_pipelines.interfaces import Source
from data_pipelines.sources.limited_area import LimitedArea
from data_pipelines.sources.regridded import Regridded
from emulators.grid import equiangular_grid
from emulators.grids.catalogue import named_grid

GRID = equiangular_grid(18, 36)
SPLITS = {"train": ["2000", "2000"], "validation": None}


@dataclass
class Given:
    """A source that is made when it is asked for."""

    path: str = "given"
    splits: dict = field(default_factory=lambda: SPLITS)
    is_made: bool = False

    def prepare(self, progress=None):
        self.is_made = True

    def template(self):
        times = np.array(["2000-01-01", "2000-01-02"], "datetime64[ns]")
        north = np.broadcast_to(GRID.latitude[None, :, None], (2, *GRID.shape)).astype(np.float32)
        fields = {"temperature": (("time", "latitude", "longitude"), north, {"units": "K"})}
        coords = {"time": times, "latitude": GRID.latitude, "longitude": GRID.longitude}
        return xr.Dataset(fields, coords, grid_attributes(GRID))

    def dataset(self):
        assert self.is_made
        return self.template()


@pytest.mark.parametrize("number", [0, 1])
def test_they_are_sources(number):
    """They offer what their source offers, and say the same of it before it is made as after."""
    source = Given()
    made: Source = (
        LimitedArea(source, [20, 70], [-40, 40], 15, ["temperature"]),
        Regridded(source, "healpix:2"),
    )[number]
    assert (made.path, made.splits) == ("given", SPLITS)
    template = made.template()
    assert not source.is_made
    made.prepare()
    xr.testing.assert_identical(template.load(), made.dataset().load())


def test_an_area_is_cut_out_with_its_boundary():
    source = Given()
    cut = LimitedArea(source, [20, 70], [-40, 40], 15, ["temperature"]).template()
    np.testing.assert_array_equal(cut["latitude"], [65, 55, 45, 35, 25])
    np.testing.assert_array_equal(cut["longitude"], [320, 330, 340, 350, 0, 10, 20, 30, 40])
    np.testing.assert_array_equal(cut["boundary_zone"].sum("longitude"), [9, 6, 6, 4, 9])
    np.testing.assert_array_equal(cut["interior"], 1 - cut["boundary_zone"])
    zone = cut["boundary_zone"].values == 1
    told, truth = cut["temperature_at_boundary"].values, cut["temperature"].values
    np.testing.assert_array_equal(told[:, zone], truth[:, zone])
    np.testing.assert_allclose(told[:, ~zone], truth[:, zone].mean(), rtol=1e-6)  # the interior is not told
    with pytest.raises(ValueError, match="leaves no interior"):
        LimitedArea(source, [20, 70], [-40, 40], 60).template()


def test_the_same_field_on_another_grid():
    target = named_grid("O8")
    made = Regridded(Given(), "O8", "bilinear").template()
    assert grid_of(made).same_as(target)
    inside = np.abs(target.points[0]) < 80
    np.testing.assert_allclose(made["temperature"].values[0, inside], target.points[0][inside], atol=1e-4)
    with pytest.raises(ValueError, match="No grid 'O'"):
        Regridded(Given(), "O").template()
