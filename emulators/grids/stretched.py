"""Stretched grids: an icosahedral globe with a finer region, as in Nipen et al. 2024, arXiv 2409.02891.

Within a radius of a place vertices of a finer level are added. The points are all vertices, each with the places
nearest to it as its cell. Areas are exact; spherical harmonics of degree 2 are integrated to 4^-(level of the globe)
/ 50.
"""

from __future__ import annotations

import re

import numpy as np

from emulators.grid import Grid, PointGrid, degrees_of, unit_vectors
from emulators.meshes.icosahedra import stretched
from emulators.sphere.polygons import Cells, voronoi_cells

EXAMPLES = ("stretched:2:4:60:10:15",)
FORMS = "stretched:3:6:60:10:15 (levels of globe and region; latitude, longitude and radius of it in degrees)"
FAMILY = "stretched"
NUMBER = r"(-?\d+(?:\.\d+)?)"
NAME = re.compile(rf"stretched:(\d+):(\d+):{NUMBER}:{NUMBER}:{NUMBER}")


def named(name: str) -> PointGrid | None:
    """Return the grid called stretched:<level>:<fine level>:<latitude>:<longitude>:<radius>."""
    match = NAME.fullmatch(name)
    if match is None:
        return None
    level, fine, (latitude, longitude, radius) = int(match[1]), int(match[2]), map(float, match.groups()[2:])
    return from_region(level, fine, latitude, longitude, radius, name)


def from_region(level: int, fine: int, latitude: float, longitude: float, radius: float, name: str) -> PointGrid:
    """Return the grid of a globe of `level`, refined to `fine` within `radius` degrees of a place."""
    if not 0.0 < radius <= 90.0 or not -90.0 <= latitude <= 90.0:
        raise ValueError(f"{name}: expected a radius of up to 90 degrees around a latitude of -90 to 90.")
    place = unit_vectors(np.array([latitude]), np.array([longitude]))
    nodes, _ = stretched(level, fine, place, float(np.deg2rad(radius)))
    return PointGrid(*degrees_of(nodes), voronoi_cells(nodes).areas, FAMILY, name)


def cells(grid: Grid) -> Cells:
    """Return the cells around the vertices."""
    return voronoi_cells(unit_vectors(*grid.points))
