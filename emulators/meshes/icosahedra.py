"""Icosahedral meshes: a hierarchy of triangle meshes on the sphere, each level a refinement of the one before.

Level 0 is the regular icosahedron with two of its faces, not vertices, over the poles. Each next level divides every
triangle into four and puts the new vertices on the sphere, so that level n has 10 * 4^n + 2 nodes, of which the first
are those of level n - 1. The multi-mesh has the nodes of the finest level and the edges of all: Lam et al. 2023, doi
10.1126/science.adi2336. A stretched mesh is finer near one place: Nipen et al. 2024, arXiv 2409.02891.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.spatial import cKDTree

from emulators.meshes.edges import Edges, cached_by_arrays

FINEST = 8  # 655,362 nodes
NEARBY = 16  # faces with the nearest centres, among which the nearest one is sought


@dataclass(frozen=True, eq=False)
class TriangleMesh:
    """Hold the nodes of a mesh as unit vectors, (node, 3), and its triangles, counter-clockwise, (face, 3)."""

    nodes: np.ndarray
    faces: np.ndarray

    @property
    def edges(self) -> Edges:
        """The edges of all triangles, in both directions."""
        return edges_of((self,))

    @property
    def longest_edge(self) -> float:
        """The length of the longest edge as a chord, in radii."""
        ends = self.nodes[self.faces]
        return float(np.linalg.norm(ends - np.roll(ends, 1, axis=1), axis=-1).max())


def edges_of(meshes: Sequence[TriangleMesh]) -> Edges:
    """Return the edges of all meshes among the nodes of the last, in both directions."""
    faces = np.concatenate([mesh.faces for mesh in meshes])
    count = len(meshes[-1].nodes)
    return Edges.of(faces.T.reshape(-1), np.roll(faces, -1, axis=1).T.reshape(-1), count, count)


def icosahedron(turned: bool = True) -> TriangleMesh:
    """Return the regular icosahedron with an edge over each pole or, turned about the y axis, a face."""
    golden = 0.5 * (1.0 + np.sqrt(5.0))
    corners = [(x, y, 0.0) for x in (1.0, -1.0) for y in (golden, -golden)]
    nodes = np.array([np.roll(corner, shift) for corner in corners for shift in range(3)]) / np.hypot(1.0, golden)
    turn = 0.5 * np.pi - np.arcsin(golden / np.sqrt(3.0))  # half of what two faces lack of lying in one plane
    cos, sin = np.cos(turn * turned), np.sin(turn * turned)
    nodes = nodes @ np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])
    distances = np.linalg.norm(nodes[:, None] - nodes, axis=-1)
    adjacent = (distances > 0.1) & (distances < 1.2)  # edges are 1.05 long
    triples = itertools.combinations(range(12), 3)
    faces = np.array([t for t in triples if all(adjacent[a, b] for a, b in itertools.combinations(t, 2))])
    inward = np.linalg.det(nodes[faces]) < 0
    faces[inward] = faces[inward, ::-1]
    return TriangleMesh(nodes, faces)


def refined(mesh: TriangleMesh) -> TriangleMesh:
    """Return the mesh with each triangle divided into four by the middles of its edges."""
    faces = mesh.faces
    ends = np.sort(np.stack([faces, np.roll(faces, -1, axis=1)], axis=-1), axis=-1).reshape(-1, 2)
    pairs, first, number = np.unique(ends, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)  # new nodes in the order in which triangles come upon them
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    middles = mesh.nodes[pairs[order]].sum(1)
    middles /= np.linalg.norm(middles, axis=1, keepdims=True)
    a, b, c = faces.T
    ab, bc, ca = (len(mesh.nodes) + place[number.reshape(-1)]).reshape(-1, 3).T
    triangles = np.stack([[a, ab, ca], [ab, b, bc], [ca, bc, c], [ab, bc, ca]]).transpose(2, 0, 1).reshape(-1, 3)
    return TriangleMesh(np.concatenate([mesh.nodes, middles]), triangles)


@lru_cache
def icosahedra(level: int, turned: bool = True) -> tuple[TriangleMesh, ...]:
    """Return the meshes of levels 0 to `level`, coarse to fine. Raises ValueError for a level that is none.

    turned: whether a face, not an edge, of the icosahedron lies over each pole.
    """
    if not 0 <= level <= FINEST:
        raise ValueError(f"Expected a mesh level from 0 to {FINEST}; got {level}.")
    meshes = [icosahedron(turned)]
    for _ in range(level):
        meshes.append(refined(meshes[-1]))
    return tuple(meshes)


def stretched(level: int, fine: int, inside: np.ndarray, margin: float = 0.0) -> tuple[np.ndarray, Edges]:
    """Return the nodes of a mesh of `level` that is as fine as `fine` near some points, (node, 3), and its edges.

    inside: unit vectors of the points, (point, 3). margin: radians around them with fine nodes. Nodes lie from north to
    south. Edges are those of levels 1 to `fine`, of an icosahedron with an edge, not a face, over each pole.
    """
    if not 1 <= level <= fine:
        raise ValueError(f"Expected mesh levels 1 <= level <= fine; got {level} and {fine}.")
    meshes = icosahedra(fine, False)
    nodes = meshes[-1].nodes
    retained = np.arange(len(nodes)) < len(meshes[level].nodes)
    if fine > level:
        retained |= cKDTree(inside).query(nodes)[0] <= 2.0 * np.sin(0.5 * margin)
    longitude = np.arctan2(nodes[:, 1], nodes[:, 0])
    order = np.lexsort((longitude.round(9), -nodes[:, 2].round(9)))
    order = order[retained[order]]
    place = np.full(len(nodes), -1)
    place[order] = np.arange(len(order))
    edges = edges_of(meshes[1:])
    ends = place[edges.senders], place[edges.receivers]
    whole = (ends[0] >= 0) & (ends[1] >= 0)
    return nodes[order], Edges.of(ends[0][whole], ends[1][whole], len(order), len(order))


@cached_by_arrays
def triangle_corners(points: np.ndarray, level: int) -> np.ndarray:
    """Return the nodes of the triangle of icosahedra(level) nearest to each point, (point, 3). points: unit vectors.

    The nearest point of the polyhedron decides, and between equally near faces the one that faces the point most.
    """
    mesh = icosahedra(level)[-1]
    corners = mesh.nodes[mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    tree = cKDTree(corners.mean(1))
    return np.concatenate(
        [
            mesh.faces[_nearest_faces(chunk, tree, corners, normals)]
            for chunk in np.array_split(points, 1 + len(points) // 50_000)
        ]
    )


def _nearest_faces(points: np.ndarray, tree: cKDTree, corners: np.ndarray, normals: np.ndarray) -> np.ndarray:
    nearby = tree.query(points, k=min(NEARBY, len(corners)))[1]
    nearby.sort(axis=1)
    away = points[:, None] - _on_triangles(points[:, None], corners[nearby])
    distance = np.square(away).sum(-1)
    facing = (away * normals[nearby]).sum(-1) / np.sqrt(np.maximum(distance, 1e-300))
    ties = distance <= distance.min(1, keepdims=True) + 1e-8
    best = np.where(ties, facing, -np.inf).argmax(1)
    return nearby[np.arange(len(points)), best]


def _on_triangles(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Return the point of each triangle (..., 3, 3) that is nearest to a point (..., 3)."""
    a, b, c = (corners[..., n, :] for n in range(3))
    ab, ac, ap = b - a, c - a, points - a
    g = [[(u * v).sum(-1) for v in (ab, ac)] for u in (ab, ac, ap)]
    scale = g[0][0] * g[1][1] - g[0][1] ** 2
    s = (g[1][1] * g[2][0] - g[0][1] * g[2][1]) / scale
    t = (g[0][0] * g[2][1] - g[0][1] * g[2][0]) / scale
    best = a + s[..., None] * ab + t[..., None] * ac
    within = (s >= 0) & (t >= 0) & (s + t <= 1)
    distance = np.where(within, np.square(points - best).sum(-1), np.inf)
    for start, end in ((a, b), (b, c), (c, a)):
        along = ((points - start) * (end - start)).sum(-1) / np.square(end - start).sum(-1)
        near = start + np.clip(along, 0.0, 1.0)[..., None] * (end - start)
        away = np.where(within, np.inf, np.square(points - near).sum(-1))
        best = np.where((away < distance)[..., None], near, best)
        distance = np.minimum(distance, away)
    return best
