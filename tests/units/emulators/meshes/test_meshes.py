"""Meshes and edges: counts as published, geometry, edges found by brute force."""

from __future__ import annotations

import numpy as np
import pytest

from emulators.grid import unit_vectors
from emulators.meshes.edges import Edges, edge_features, nearest, within_radius
from emulators.meshes.icosahedra import edges_of, icosahedra, stretched, triangle_corners

RANDOM = np.random.default_rng(0)
POINTS = unit_vectors(np.rad2deg(np.arcsin(RANDOM.uniform(-1, 1, 300))), RANDOM.uniform(0, 360, 300))


@pytest.mark.parametrize(
    ("level", "nodes", "edges"),
    [(0, 12, 60), (1, 42, 300), (2, 162, 1_260), (3, 642, 5_100), (4, 2_562, 20_460), (5, 10_242, 81_900)],
)
def test_multimesh_has_the_published_size(level, nodes, edges):
    meshes = icosahedra(level)
    found = edges_of(meshes)
    assert (len(meshes[-1].nodes), len(found)) == (nodes, edges)
    pairs = set(zip(found.senders.tolist(), found.receivers.tolist(), strict=True))
    assert len(pairs) == edges
    assert pairs == {(b, a) for a, b in pairs}
    np.testing.assert_array_equal(meshes[-1].nodes[: len(meshes[0].nodes)], meshes[0].nodes)


def test_triangles_look_outward_and_cover_the_sphere():
    mesh = icosahedra(3)[-1]
    np.testing.assert_allclose(np.linalg.norm(mesh.nodes, axis=1), 1.0)
    a, b, c = mesh.nodes[mesh.faces].transpose(1, 0, 2)
    volume = np.einsum("ij,ij->i", a, np.cross(b, c))
    assert (volume > 0).all()
    beside = 1 + (a * b).sum(1) + (b * c).sum(1) + (c * a).sum(1)
    assert 2 * np.arctan2(volume, beside).sum() == pytest.approx(4 * np.pi)
    assert np.abs(icosahedra(0)[0].nodes[:, 2]).max() < 0.8  # faces, not nodes, lie over the poles


def test_points_lie_in_their_triangles():
    mesh = icosahedra(2)[-1]
    corners = mesh.nodes[triangle_corners(POINTS, 2)]
    shares = np.linalg.solve(corners.transpose(0, 2, 1), POINTS[..., None])[..., 0]
    assert shares.min() > -0.02  # the nearest face is the one below the point, but for rounding of the planes' angles


def test_edges_are_those_of_brute_force():
    nodes = icosahedra(2)[-1].nodes
    apart = np.linalg.norm(POINTS[:, None] - nodes, axis=-1)
    edges = within_radius(POINTS, nodes, 0.3)
    assert set(zip(edges.senders, edges.receivers, strict=True)) == set(zip(*np.nonzero(apart <= 0.3), strict=True))
    assert (np.diff(edges.receivers) >= 0).all()
    three = nearest(nodes, POINTS, 3)
    np.testing.assert_array_equal(three.senders.reshape(-1, 3), np.sort(apart.argsort(1)[:, :3], axis=1))


def test_features_are_those_of_the_receivers_frame():
    """A neighbour to the north is a step north wherever the receiver is."""
    for latitude, longitude in ((0.0, 0.0), (50.0, 130.0), (-30.0, 300.0)):
        at = unit_vectors(np.array([latitude]), np.array([longitude]))
        for name, place in {"north": (latitude + 5.0, longitude), "east": (latitude, longitude + 0.01)}.items():
            sender = unit_vectors(*(np.array([x]) for x in place))
            length, up, east, north = edge_features(Edges.of(np.zeros(1), np.zeros(1), 1, 1), sender, at)[0]
            assert length == 1.0
            assert up <= 0.0
            assert {"north": north, "east": east}[name] > 0.99


def test_refinement_keeps_to_its_place():
    inside = unit_vectors(*(a.ravel() for a in np.meshgrid(np.arange(40.0, 60.0, 2.0), np.arange(0.0, 20.0, 2.0))))
    nodes, edges = stretched(2, 5, inside, 0.05)
    fine, was_there = (
        np.linalg.norm(some[:, None] - inside, axis=-1).min(1) < 0.05
        for some in (nodes, icosahedra(2, False)[-1].nodes)
    )
    assert len(nodes) == 162 + fine.sum() - was_there.sum() > 200
    assert (np.diff(nodes[:, 2]) < 1e-8).all()
    lengths = np.linalg.norm(nodes[edges.senders] - nodes[edges.receivers], axis=-1)
    assert lengths[fine[edges.senders] & fine[edges.receivers]].min() < 0.045
    assert lengths[~fine[edges.senders] & ~fine[edges.receivers]].min() > 0.25
    whole, multi = stretched(2, 2, inside)
    assert (len(whole), len(multi)) == (162, 1_200)  # without the edges of the icosahedron


def test_results_are_remembered():
    assert within_radius(POINTS, POINTS[:5], 0.1) is within_radius(POINTS.copy(), POINTS[:5], 0.1)
    assert within_radius(POINTS, POINTS[:5], 0.1) is not within_radius(POINTS, POINTS[:5], 0.2)


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match="mesh level from 0 to"):
        icosahedra(-1)
    with pytest.raises(ValueError, match="1 to 300 nearest"):
        nearest(POINTS, POINTS, 301)
