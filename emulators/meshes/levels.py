"""Meshes in levels, fine to coarse, and the edges along which points of a grid are read and written.

On a limited area the levels are a quadtree on a plane: 3^n x 3^n nodes, each in the middle of nine of the finer level,
joined to its eight neighbours and to those nine (Oskarsson et al. 2023, arXiv 2309.17370). Around the globe they are
icosahedral meshes, each joined to the next coarser one, as in Oskarsson et al. 2024, arXiv 2406.04759.

A mesh node reads the points within REACH of the distance between nodes; a point reads the READ nodes nearest to it, of
equally near ones either.
What is told of an edge is its length and direction, divided by the length of the longest edge between nodes; on the
globe see `emulators.meshes.edges`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from emulators.grid import Grid, LatLonGrid, PointGrid, unit_vectors
from emulators.meshes.edges import Edges, edge_features, nearest, position_features, within_radius
from emulators.meshes.icosahedra import edges_of, icosahedra

BRANCHES = 3  # finer nodes along each side of a node
REACH, READ, UPWARD = 0.67, 4, 0.6
LOCAL = 0.5  # length of the mean of points as unit vectors from which on they lie on one side of the globe


@dataclass(frozen=True, eq=False)
class DescribedEdges:
    """Hold edges and the features of each, float32 (edge, feature)."""

    edges: Edges
    features: np.ndarray


@dataclass(frozen=True, eq=False)
class MeshLevels:
    """Hold features of the nodes of each level, fine to coarse, (node, feature), and edges.

    inward: from points to the finest level; outward: back. across: within each level. up, down: between each level and
    the next coarser one.
    """

    places: tuple[np.ndarray, ...]
    across: tuple[DescribedEdges, ...]
    up: tuple[DescribedEdges, ...]
    down: tuple[DescribedEdges, ...]
    inward: DescribedEdges
    outward: DescribedEdges

    @property
    def sizes(self) -> list[int]:
        """The number of nodes of each level."""
        return [len(some) for some in self.places]


def mesh_levels(grid: Grid, *, levels: int | None = None, level: int = 4, merged: bool = False) -> MeshLevels:
    """Return the levels of a grid's mesh. Raises ValueError for a grid or options that have none.

    levels: how many, from the finest on; default, all. level: finest icosahedral mesh, for points around the globe.
    merged: one level with the nodes of the finest and the edges within all.
    """
    if levels is not None and levels < 1:
        raise ValueError(f"Expected levels of at least 1, or null for all; got {levels}.")
    plane_points = plane(grid)
    if plane_points is None:
        return _globe(unit_vectors(*grid.points), levels, level, merged)
    return quadtree(*plane_points, levels=levels, merged=merged)


def plane(grid: Grid) -> tuple[np.ndarray, int] | None:
    """Return points of a limited area on a plane, (point, 2), and their number along the longer side; None for a globe.

    Rows and columns keep to their order, with their mean distances, in radii; other points are projected with equal
    areas about their middle.
    """
    points = unit_vectors(*grid.points)
    shape: tuple[int, ...] = grid.raster if isinstance(grid, PointGrid) else grid.shape
    if shape and not grid.is_global and not (isinstance(grid, LatLonGrid) and grid.is_cyclic):
        field = points.reshape(*shape, 3)
        apart = [float(np.linalg.norm(np.diff(field, axis=axis), axis=-1).mean()) for axis in (1, 0)]
        rows, columns = np.indices(shape)
        return np.stack([columns.reshape(-1) * apart[0], rows.reshape(-1) * apart[1]], axis=-1), max(shape)
    middle = points.mean(axis=0)
    if grid.is_global or np.linalg.norm(middle) < LOCAL:
        return None
    middle /= np.linalg.norm(middle)
    east = np.cross([0.0, 0.0, 1.0] if abs(middle[2]) < 0.9 else [1.0, 0.0, 0.0], middle)
    east /= np.linalg.norm(east)
    flat = points @ np.stack([east, np.cross(middle, east)], axis=1)
    return flat * np.sqrt(2.0 / (1.0 + points @ middle))[:, None], int(np.sqrt(len(points)))


def quadtree(points: np.ndarray, longest: int, *, levels: int | None = None, merged: bool = False) -> MeshLevels:
    """Return the quadtree over points (point, 2). longest: points along the longer side.

    Raises ValueError where there are too few points for the coarsest level.
    """
    depth = next(n for n in range(64) if BRANCHES ** (n + 1) > longest)
    if depth < 2:
        raise ValueError(
            f"A mesh of a limited_area needs at least {BRANCHES**2} points along its longer side; got {longest}."
        )
    sides = [BRANCHES**n for n in range(depth - 1, 0, -1)][:levels]
    low, high = points.min(axis=0), points.max(axis=0)
    span = high - low
    nodes = [_lattice(low, high, side) for side in sides]
    edges = [_neighbours(side) for side in sides]
    longest_edge = float(np.linalg.norm(span / sides[-1]))

    def described(some: Edges, senders: np.ndarray, receivers: np.ndarray) -> DescribedEdges:
        offset = senders[some.senders] - receivers[some.receivers]
        length = np.linalg.norm(offset, axis=-1, keepdims=True)
        features = np.concatenate([length, offset], axis=-1) / longest_edge
        return DescribedEdges(some, features.astype(np.float32))

    inward = within_radius(points, nodes[0], REACH * float((span / sides[0]).max()))
    if merged:
        edges = [_merged(edges, sides)]
        nodes = nodes[:1]
    up = [nearest(coarse, fine, 1).reversed for fine, coarse in pairwise(nodes)]
    places = [(some / span.max()).astype(np.float32) for some in nodes]
    return _assembled(nodes, edges, up, points, inward, places, described)


def _lattice(low: np.ndarray, high: np.ndarray, side: int) -> np.ndarray:
    """Return side x side nodes, column by column, each in the middle of its share of the area."""
    half = 0.5 * (high - low) / side
    x, y = (np.linspace(low[axis] + half[axis], high[axis] - half[axis], side) for axis in (0, 1))
    return np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2)


def _neighbours(side: int) -> Edges:
    """Return the edges of each node to its eight neighbours."""
    number = np.arange(side * side).reshape(side, side)
    parts = [(number[1:], number[:-1]), (number[:, 1:], number[:, :-1])]
    parts += [(number[1:, 1:], number[:-1, :-1]), (number[1:, :-1], number[:-1, 1:])]
    some, others = (np.concatenate([pair[end].reshape(-1) for pair in parts]) for end in (0, 1))
    ends = np.concatenate([some, others]), np.concatenate([others, some])
    return Edges.of(*ends, side * side, side * side)


def _merged(edges: Sequence[Edges], sides: Sequence[int]) -> Edges:
    """Return the edges of all levels between nodes of the finest, in whose midst coarser ones lie."""
    senders, receivers = [], []
    for some, side in zip(edges, sides, strict=True):
        wide = sides[0] // side
        places = (np.arange(side) * wide + wide // 2)[:, None] * sides[0] + np.arange(side) * wide + wide // 2
        senders.append(places.reshape(-1)[some.senders])
        receivers.append(places.reshape(-1)[some.receivers])
    count = sides[0] ** 2
    return Edges.of(np.concatenate(senders), np.concatenate(receivers), count, count)


def _globe(points: np.ndarray, levels: int | None, level: int, merged: bool) -> MeshLevels:
    """Return icosahedral levels, `level` the finest and 1 the coarsest."""
    if level < 1:
        raise ValueError(
            f"Expected the finest icosahedral level of a mesh around the globe to be 1 or more; got {level}."
        )
    meshes = icosahedra(level)[:0:-1][:levels]
    nodes, edges = [mesh.nodes for mesh in meshes], [mesh.edges for mesh in meshes]
    longest = meshes[-1].longest_edge
    if merged:
        edges, nodes = [edges_of(meshes[::-1])], nodes[:1]

    def described(some: Edges, senders: np.ndarray, receivers: np.ndarray) -> DescribedEdges:
        return DescribedEdges(some, edge_features(some, senders, receivers, longest))

    inward = within_radius(points, nodes[0], REACH * meshes[0].longest_edge)
    up = [
        within_radius(fine, coarse, UPWARD * mesh.longest_edge)
        for (fine, coarse), mesh in zip(pairwise(nodes), meshes[1:], strict=False)
    ]
    return _assembled(nodes, edges, up, points, inward, [position_features(some) for some in nodes], described)


def _assembled(
    nodes: Sequence[np.ndarray],
    edges: Sequence[Edges],
    up: Sequence[Edges],
    points: np.ndarray,
    inward: Edges,
    places: Sequence[np.ndarray],
    described: Callable[[Edges, np.ndarray, np.ndarray], DescribedEdges],
) -> MeshLevels:
    between = [(some, *pair) for some, pair in zip(up, pairwise(nodes), strict=True)]
    return MeshLevels(
        places=tuple(places),
        across=tuple(described(some, here, here) for some, here in zip(edges, nodes, strict=True)),
        up=tuple(described(some, fine, coarse) for some, fine, coarse in between),
        down=tuple(described(some.reversed, coarse, fine) for some, fine, coarse in between),
        inward=described(inward, points, nodes[0]),
        outward=described(nearest(nodes[0], points, min(READ, len(nodes[0]))), nodes[0], points),
    )
