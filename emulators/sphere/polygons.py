"""Polygons on the sphere: areas, overlaps, and the cells around points.

Sides are arcs of great circles. The area of a triangle of unit vectors a, b, c is E with

    tan(E / 2) = a . (b x c) / (1 + a . b + b . c + c . a)

(Van Oosterom & Strackee 1983, doi 10.1109/TBME.1983.325207). Convex polygons are cut by the planes of each other's
sides (Sutherland & Hodgman 1974, doi 10.1145/360767.360802). The cells around points are those of Voronoi.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.spatial import KDTree, SphericalVoronoi

BLOCK = 100_000  # pairs of pieces that are cut at a time


class Cells(NamedTuple):
    """Hold the cells of a grid as convex pieces.

    corners: unit vectors, counter-clockwise seen from outside, (piece, corner, 3); a piece of fewer corners repeats its
    last one. cell: that each piece belongs to, (piece,). size: number of cells.
    """

    corners: np.ndarray
    cell: np.ndarray
    size: int

    @property
    def areas(self) -> np.ndarray:
        """The areas of the cells in steradians, (cell,)."""
        return np.bincount(self.cell, polygon_areas(self.corners), minlength=self.size)


def polygon_areas(corners: np.ndarray) -> np.ndarray:
    """Return the areas of polygons (..., corner, 3) in steradians, (...,); negative for clockwise corners."""
    first, b, c = corners[..., :1, :], corners[..., 1:-1, :], corners[..., 2:, :]
    volume = (first * np.cross(b, c)).sum(-1)
    return 2.0 * np.arctan2(volume, 1.0 + (first * b).sum(-1) + (b * c).sum(-1) + (c * first).sum(-1)).sum(-1)


def whole_cells(corners: np.ndarray) -> Cells:
    """Return cells of one piece each, (cell, corner, 3), corners in either order."""
    clockwise = polygon_areas(corners) < 0.0
    corners = np.where(clockwise[:, None, None], corners[:, ::-1], corners)
    return Cells(corners, np.arange(len(corners)), len(corners))


def boxes(north: np.ndarray, south: np.ndarray, west: np.ndarray, east: np.ndarray, width: float = 1.0) -> Cells:
    """Return cells between circles of latitude and meridians, in degrees, each (cell,).

    width: of the pieces in degrees of arc; between their corners the circles of latitude are arcs of great circles,
    which leave out or add a share of about width^2 / 30,000 of a cell.
    """
    across = (east - west) * np.cos(np.deg2rad(np.clip(0.5 * (north + south), -89.0, 89.0)))
    pieces = np.maximum(1, np.ceil(np.maximum(across / width, (east - west) / 5.0))).astype(int)
    cell = np.repeat(np.arange(len(north)), pieces)
    number = np.arange(cell.size) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    step = ((east - west) / pieces)[cell]
    left = west[cell] + number * step
    longitude = np.deg2rad(np.stack([left, left + step, left + step, left], axis=1))
    latitude = np.deg2rad(np.stack([south[cell], south[cell], north[cell], north[cell]], axis=1))
    level = np.cos(latitude)
    corners = np.stack([level * np.cos(longitude), level * np.sin(longitude), np.sin(latitude)], axis=-1)
    return Cells(corners, cell, len(north))


def voronoi_cells(points: np.ndarray) -> Cells:
    """Return the cells of the places nearest to each of `points`, unit vectors (cell, 3), over the whole sphere.

    Raises ValueError for points that coincide or do not surround the sphere.
    """
    try:
        diagram = SphericalVoronoi(points, threshold=1e-9)
    except ValueError as error:
        raise ValueError(
            f"No cells can be drawn around these {len(points)} points: {error}. Give the areas with the data as the "
            "coordinate cell_area_weight."
        ) from error
    diagram.sort_vertices_of_regions()
    corner_count = max(map(len, diagram.regions))
    table = np.array([[*region, *[region[-1]] * (corner_count - len(region))] for region in diagram.regions])
    corners = diagram.vertices[table]
    clockwise = polygon_areas(corners) < 0.0
    lengths = np.array([len(region) for region in diagram.regions])
    turned = (lengths[:, None] - 1 - np.arange(corner_count)).clip(0)
    table = np.where(clockwise[:, None], np.take_along_axis(table, turned, 1), table)
    return Cells(diagram.vertices[table], np.arange(len(points)), len(points))


def overlaps(source: Cells, target: Cells) -> csr_array:
    """Return the area that each cell of `target` shares with each cell of `source` in steradians, (target, source)."""
    sources, targets = _near_pairs(source, target)
    total = csr_array((target.size, source.size))
    for start in range(0, len(sources), BLOCK):
        block = slice(start, start + BLOCK)
        areas, pairs = _shared_areas(source.corners[sources[block]], target.corners[targets[block]])
        at = (target.cell[targets[block][pairs]], source.cell[sources[block][pairs]])
        total = total + csr_array(coo_array((areas, at), shape=total.shape))
    return total


def _near_pairs(source: Cells, target: Cells) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of pieces whose circles meet."""
    (centres, reach), (others, far) = (_circles(cells.corners) for cells in (source, target))
    near = KDTree(centres).query_ball_point(others, far + reach.max())
    lengths = np.array([len(row) for row in near])
    sources = np.concatenate([np.asarray(row, dtype=np.int64) for row in near]) if len(near) else np.zeros(0, np.int64)
    targets = np.repeat(np.arange(len(others)), lengths)
    meet = np.linalg.norm(centres[sources] - others[targets], axis=1) <= reach[sources] + far[targets]
    return sources[meet], targets[meet]


def _circles(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    centres = corners.mean(axis=1)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    return centres, np.linalg.norm(corners - centres[:, None], axis=-1).max(axis=1) * (1.0 + 1e-9)


def _shared_areas(polygons: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the areas that pairs of polygons share, and the numbers of the pairs that share any."""
    sides, (total, size) = others.shape[1], polygons.shape[:2]
    padded = np.concatenate([polygons, np.repeat(polygons[:, -1:], sides, axis=1)], axis=1)  # a cut adds a corner
    pairs, count = np.arange(total), np.full(total, size)
    for side in range(sides):
        start, end = others[pairs, side], others[pairs, (side + 1) % sides]
        normal = np.cross(start, end)
        height = np.einsum("pcd,pd->pc", padded[:, : size + side], normal)
        height[(normal**2).sum(-1) < 1e-30] = 1.0  # no side, as between repeated corners
        inside = height >= 0.0
        touches, all_ = inside.any(axis=1), inside.all(axis=1)
        cut = np.flatnonzero(touches & ~all_)
        clipped, count[cut] = _cut(padded[cut, : size + side], count[cut], height[cut])
        padded[cut, : size + side + 1], padded[cut, size + side + 1 :] = clipped, clipped[:, -1:]
        remaining = touches & (count > 2)
        pairs, padded, count = pairs[remaining], padded[remaining], count[remaining]
    return np.maximum(polygon_areas(padded), 0.0), pairs


def _cut(polygons: np.ndarray, count: np.ndarray, height: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the parts of polygons (pair, corner, 3), of `count` corners, whose height above a plane is not negative.

    They have room for one more corner; those beyond the last repeat it.
    """
    place = np.arange(polygons.shape[1])[None]
    is_corner = place < count[:, None]
    following = np.where(place + 1 < count[:, None], place + 1, 0)
    after = np.take_along_axis(height, following, 1)
    ahead = np.take_along_axis(polygons, following[..., None], 1)
    inside, crosses = (height >= 0.0) & is_corner, ((height >= 0.0) != (after >= 0.0)) & is_corner
    share = np.where(crosses, height / np.where(crosses, height - after, 1.0), 0.0)[..., None]
    between = polygons + share * (ahead - polygons)
    between /= np.linalg.norm(between, axis=-1, keepdims=True).clip(1e-300)
    retained = np.stack([inside, crosses], axis=-1).reshape(len(polygons), -1)
    corners = np.stack([polygons, between], axis=2).reshape(len(polygons), -1, 3)
    sizes = retained.sum(1)
    order = np.argsort(~retained, axis=1, kind="stable")[:, : polygons.shape[1] + 1]
    last = np.minimum(np.arange(polygons.shape[1] + 1)[None], np.maximum(sizes - 1, 0)[:, None])
    return np.take_along_axis(corners, np.take_along_axis(order, last, 1)[..., None], 1), sizes
