"""Grids by the names that WeatherBench 2 gives them, longitudes x latitudes: 64x32_equiangular, 128x64_gaussian."""

from __future__ import annotations

import re

from emulators.grid import LatLonGrid, equiangular_grid, gaussian_grid

NAME = re.compile(r"(\d+)x(\d+)_(equiangular|gaussian)(_with_poles)?(_conservative)?")


def grid_named(name: str) -> LatLonGrid:
    """The grid of a name such as 64x32_equiangular, 240x121_equiangular_with_poles or 64x32_gaussian."""
    match = NAME.fullmatch(name)
    if match is None or (match[3] == "gaussian" and match[4]):
        raise ValueError(
            "grid: expected longitudes x latitudes and a kind, 64x32_equiangular, 240x121_equiangular_with_poles or "
            f"64x32_gaussian; got '{name}'."
        )
    columns, rows = int(match[1]), int(match[2])
    if match[3] == "gaussian":
        return gaussian_grid(rows, columns)
    return equiangular_grid(rows, columns, poles=bool(match[4]))
