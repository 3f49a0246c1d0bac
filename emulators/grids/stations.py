"""Stations: points without cells, all of the same weight; coverage is 0, and no conservative regridding knows them."""

from __future__ import annotations

import numpy as np

from emulators.grid import Grid, PointGrid
from emulators.sphere.polygons import Cells

EXAMPLES = ("stations:52.5,13.4;48.1,11.6;60,-30",)
FORMS = "stations:52.5,13.4;48.1,11.6 (latitude,longitude of each)"
FAMILY = "stations"


def named(name: str) -> PointGrid | None:
    """Return the points called stations:latitude,longitude;latitude,longitude;..."""
    word, _, places = name.partition(":")
    if word != FAMILY:
        return None
    try:
        latitude, longitude = np.array([[float(angle) for angle in place.split(",")] for place in places.split(";")]).T
    except ValueError as error:
        raise ValueError(f"{name}: expected latitude,longitude of each station, with ; between them.") from error
    return PointGrid(latitude, longitude, np.ones(latitude.size), FAMILY, "", 0.0)


def cells(grid: Grid) -> Cells:
    """Raise ValueError, as stations have none."""
    raise ValueError(f"{grid} have no cells; take method=nearest or inverse_distance.")
