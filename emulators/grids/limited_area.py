"""Limited areas on a projected plane: rows and columns (y, x) of a map, flattened to cells.

Projections of the sphere, with forward (longitude, latitude) -> (x, y) in m and its inverse (Snyder 1987,
doi 10.3133/pp1395): Lambert conformal conic (p. 106), polar stereographic (p. 157), and a rotated pole, whose x and y
are rotated longitude and latitude in degrees.

    Lambert   rho = R F / tan(pi/4 + phi/2)^n,  x = rho sin(n (lon - lon0)),  y = rho0 - rho cos(n (lon - lon0))

Cells are quadrilaterals whose corners lie midway between points; their sides are taken for arcs of great circles, which
leaves an error of the order of (spacing / radius of the Earth)^2 in the areas.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from emulators.constants import EARTH_RADIUS
from emulators.grid import Grid, PointGrid, degrees_of, unit_vectors
from emulators.sphere.polygons import Cells, whole_cells

EXAMPLES = ("lambert:63:15:12x10:100", "stereographic:90:0:12x10:200", "rotated_pole:60:10:12x10:1.5")
FORMS = "lambert:63:15:40x30:50 (latitude, longitude of the middle; columns x rows; km), stereographic, rotated_pole"
FAMILY = "limited_area"
NUMBER = r"(-?\d+(?:\.\d+)?)"
NAME = re.compile(rf"(lambert|stereographic|rotated_pole):{NUMBER}:{NUMBER}:(\d+)x(\d+):{NUMBER}")


def named(name: str) -> PointGrid | None:
    """Return the grid of a projection around a place: kind:latitude:longitude:columns x rows:km (rotated: degrees)."""
    match = NAME.fullmatch(name)
    if match is None:
        return None
    latitude, longitude, spacing = (float(match[k]) for k in (2, 3, 6))
    columns, rows = int(match[4]), int(match[5])
    if min(columns, rows) < 2 or spacing <= 0.0 or abs(latitude) > 90.0:
        raise ValueError(f"{name}: expected at least 2 columns and rows, a spacing above 0 and a latitude within 90.")
    mapping = {
        "lambert": {
            "grid_mapping_name": "lambert_conformal_conic",
            "standard_parallel": latitude,
            "latitude_of_projection_origin": latitude,
            "longitude_of_central_meridian": longitude,
        },
        "stereographic": {
            "grid_mapping_name": "polar_stereographic",
            "latitude_of_projection_origin": 90.0 if latitude >= 0.0 else -90.0,
            "straight_vertical_longitude_from_pole": longitude,
        },
        "rotated_pole": {
            "grid_mapping_name": "rotated_latitude_longitude",
            "grid_north_pole_latitude": 90.0 - latitude,
            "grid_north_pole_longitude": longitude + 180.0,
        },
    }[match[1]]
    unit = 1.0 if match[1] == "rotated_pole" else 1000.0
    middle = forward(np.array(latitude), np.array(longitude), mapping) if match[1] == "stereographic" else (0.0, 0.0)
    x, y = ((np.arange(n) - 0.5 * (n - 1)) * spacing * unit for n in (columns, rows))
    return from_mapping(middle[0] + x, middle[1] + y, mapping, name)


def from_mapping(x: np.ndarray, y: np.ndarray, mapping: Mapping[str, Any], name: str = "") -> PointGrid:
    """Return the grid of projection coordinates x and y, in m or degrees, under a CF grid mapping."""
    columns, rows = np.meshgrid(x, y)
    latitude, longitude = inverse(columns, rows, mapping)
    return from_arrays(latitude, longitude, name)


def from_arrays(latitude: np.ndarray, longitude: np.ndarray, name: str = "") -> PointGrid:
    """Return the grid of latitudes and longitudes of a field (y, x), in degrees."""
    if latitude.ndim != 2 or latitude.shape != longitude.shape or min(latitude.shape) < 2:
        raise ValueError(
            "Expected latitudes and longitudes (y, x) of at least 2 rows and columns; got shapes "
            f"{latitude.shape} and {longitude.shape}."
        )
    area = _quadrilaterals(latitude, longitude).areas
    flat, raster = (latitude.reshape(-1), longitude.reshape(-1)), (latitude.shape[0], latitude.shape[1])
    return PointGrid(*flat, area, FAMILY, name, float(min(area.sum() / (4.0 * np.pi), 1.0)), raster)


def cells(grid: Grid) -> Cells:
    """Return the cells."""
    assert isinstance(grid, PointGrid)
    if not grid.raster:
        raise ValueError(f"The cells of {grid} are no rows and columns, so that their sides are not known.")
    return _quadrilaterals(*(coordinate.reshape(grid.raster) for coordinate in grid.points))


def boundary_zone(raster: tuple[int, ...], width: int) -> np.ndarray:
    """Return True at the cells within `width` of the rim of a field (y, x), flat; ValueError where nothing is left."""
    rows, columns = raster
    if not 0 <= 2 * width < min(rows, columns):
        raise ValueError(f"A boundary zone of {width} cells leaves nothing of {rows} rows and {columns} columns.")
    inside = np.zeros((rows, columns), dtype=bool)
    inside[width : rows - width, width : columns - width] = True
    return ~inside.reshape(-1)


def _quadrilaterals(latitude: np.ndarray, longitude: np.ndarray) -> Cells:
    points = unit_vectors(latitude, longitude)
    for axis in (0, 1):  # one more point beyond each end, as far as the last one is from that before
        points = np.moveaxis(points, axis, 0)
        points = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
        points = np.moveaxis(points, 0, axis)
    corners = points[1:, 1:] + points[1:, :-1] + points[:-1, 1:] + points[:-1, :-1]
    corners /= np.linalg.norm(corners, axis=-1, keepdims=True)
    around = [corners[:-1, :-1], corners[:-1, 1:], corners[1:, 1:], corners[1:, :-1]]
    return whole_cells(np.stack(around, axis=2).reshape(-1, 4, 3))


def forward(latitude: np.ndarray, longitude: np.ndarray, mapping: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of places in degrees under a CF grid mapping."""
    kind = str(mapping["grid_mapping_name"])
    if kind == "rotated_latitude_longitude":
        return degrees_of(unit_vectors(latitude, longitude) @ _rotation(mapping))[::-1]
    n, factor, origin, middle, radius, easting, northing = _cone(mapping)
    sign = -1.0 if n < 0.0 else 1.0
    distance = factor * radius / np.tan(0.25 * np.pi + 0.5 * np.deg2rad(sign * latitude)) ** abs(n)
    angle = n * np.deg2rad((longitude - middle + 180.0) % 360.0 - 180.0)
    return easting + sign * distance * np.sin(angle), northing + origin - sign * distance * np.cos(angle)


def inverse(x: np.ndarray, y: np.ndarray, mapping: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return latitude and longitude in degrees of x and y under a CF grid mapping."""
    kind = str(mapping["grid_mapping_name"])
    if kind == "rotated_latitude_longitude":
        return degrees_of(unit_vectors(y, x) @ _rotation(mapping).T)
    n, factor, origin, middle, radius, easting, northing = _cone(mapping)
    sign = -1.0 if n < 0.0 else 1.0
    east, north = sign * (x - easting), sign * (origin - (y - northing))
    distance = np.hypot(east, north) / radius
    with np.errstate(divide="ignore"):
        latitude = sign * (2.0 * np.arctan((factor / distance) ** (1.0 / abs(n))) - 0.5 * np.pi)
    return np.rad2deg(latitude), np.mod(middle + np.rad2deg(np.arctan2(east, north) / n), 360.0)


def _cone(mapping: Mapping[str, Any]) -> tuple[float, float, float, float, float, float, float]:
    """Return n, F, y of the origin, the central meridian, the radius and the false easting and northing."""
    kind = str(mapping["grid_mapping_name"])
    axes = [float(mapping[name]) for name in ("earth_radius", "semi_major_axis") if name in mapping]
    radius = axes[0] if axes else EARTH_RADIUS
    false = float(mapping.get("false_easting", 0.0)), float(mapping.get("false_northing", 0.0))
    if kind in ("polar_stereographic", "stereographic"):
        pole = float(mapping["latitude_of_projection_origin"])
        if abs(abs(pole) - 90.0) > 1e-6:
            raise ValueError(f"A stereographic map about the pole is understood; this one has its origin at {pole:g}.")
        sign = 1.0 if pole > 0.0 else -1.0
        true = float(mapping.get("standard_parallel", pole))
        scale = float(mapping.get("scale_factor_at_projection_origin", 0.5 * (1.0 + np.sin(np.deg2rad(abs(true))))))
        keys = ("straight_vertical_longitude_from_pole", "longitude_of_projection_origin")
        middle = next(float(mapping[key]) for key in keys if key in mapping)
        return sign, 2.0 * scale, 0.0, middle, radius, *false
    if kind != "lambert_conformal_conic":
        raise ValueError(
            "Understood are the grid mappings lambert_conformal_conic, polar_stereographic and "
            f"rotated_latitude_longitude; got {kind}. Give latitudes and longitudes (y, x) with the data."
        )
    parallels = np.deg2rad(np.atleast_1d(np.asarray(mapping["standard_parallel"], dtype=np.float64)))
    first, second = parallels[0], parallels[-1]

    def slope(angle: float) -> float:
        return float(np.tan(0.25 * np.pi + 0.5 * angle))

    n = float(np.sin(first))
    if abs(first - second) > 1e-10:
        n = float(np.log(np.cos(first) / np.cos(second)) / np.log(slope(second) / slope(first)))
    factor = float(np.cos(first)) * slope(abs(first)) ** abs(n) / abs(n)
    start = np.deg2rad(float(mapping.get("latitude_of_projection_origin", np.rad2deg(first))))
    sign = np.sign(n)
    origin = sign * factor * radius / slope(sign * start) ** abs(n)
    return n, factor, float(origin), float(mapping["longitude_of_central_meridian"]), radius, *false


def _rotation(mapping: Mapping[str, Any]) -> np.ndarray:
    """Return the axes of the rotated sphere as columns: rotated unit vector = unit vector @ axes."""
    latitude = np.deg2rad(float(mapping["grid_north_pole_latitude"]))
    longitude = np.deg2rad(float(mapping["grid_north_pole_longitude"]))
    north = np.deg2rad(float(mapping.get("north_pole_grid_longitude", 0.0)))
    level, height = np.cos(latitude), np.sin(latitude)
    pole = np.array([level * np.cos(longitude), level * np.sin(longitude), height])
    towards = np.array([-height * np.cos(longitude), -height * np.sin(longitude), level])  # the true pole
    x = np.cos(north) * towards - np.sin(north) * np.cross(pole, towards)
    return np.stack([x, np.cross(pole, x), pole], axis=1)
