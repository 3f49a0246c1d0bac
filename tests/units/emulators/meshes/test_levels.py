"""Meshes in levels: numbers of nodes and edges, geometry, which grids have which, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from emulators.grid import LatLonGrid, PointGrid, gaussian_grid, unit_vectors
from emulators.grids.catalogue import named_grid
from emulators.meshes.levels import mesh_levels, plane, quadtree

AREA = LatLonGrid(np.linspace(66.0, 30.0, 28), np.linspace(-60.0, 60.0, 82))


def test_levels_of_a_limited_area():
    mesh = mesh_levels(AREA)
    assert mesh.sizes == [27**2, 9**2, 3**2]
    eight = [2 * (2 * n * (n - 1) + 2 * (n - 1) ** 2) for n in (27, 9, 3)]
    assert [len(some.edges) for some in mesh.across] == eight
    assert [len(some.edges) for some in mesh.up] == [27**2, 9**2]  # one parent for each node
    assert all((np.bincount(some.edges.receivers) == 9).all() for some in mesh.up)
    assert (np.bincount(mesh.outward.edges.receivers) == 4).all()
    assert np.bincount(mesh.inward.edges.senders, minlength=AREA.size).min() >= 1
    longest = max(some.features[:, 0].max() for some in mesh.across)
    assert longest == pytest.approx(1.0)
    merged = mesh_levels(AREA, merged=True)
    assert merged.sizes == [27**2]
    assert len(merged.across[0].edges) == sum(eight)
    assert mesh_levels(AREA, levels=2).sizes == [27**2, 9**2]


def test_what_is_told_of_edges():
    """Length and direction agree with places, and what goes down is what goes up, the other way."""
    mesh = mesh_levels(AREA)
    for some in (*mesh.across, *mesh.up, *mesh.down, mesh.inward, mesh.outward):
        np.testing.assert_allclose(some.features[:, 0], np.hypot(*some.features[:, 1:].T), rtol=1e-5)
    up, down = mesh.up[0], mesh.down[0]
    order = np.lexsort((up.edges.receivers, up.edges.senders))
    np.testing.assert_allclose(down.features[:, 1:], -up.features[order, 1:], rtol=1e-6)


def test_coarse_nodes_lie_amid_fine_ones():
    points, longest = plane(AREA)
    mesh = quadtree(points, longest)
    for fine, coarse, some in zip(mesh.places[:-1], mesh.places[1:], mesh.up, strict=True):
        sums = np.zeros_like(coarse, dtype=np.float64)
        np.add.at(sums, some.edges.receivers, fine[some.edges.senders])
        np.testing.assert_allclose(sums / 9, coarse, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["lambert:63:15:30x20:50", "stereographic:90:0:20x30:200", "rotated_pole:60:10:30x20:1.5"]
)
def test_rows_and_columns_of_projections(name):
    assert mesh_levels(named_grid(name)).sizes == [9**2, 3**2]


def test_scattered_points_are_projected():
    random = np.random.default_rng(0)
    latitude, longitude = random.uniform(40, 60, 400), random.uniform(-10, 20, 400)
    points, longest = plane(PointGrid(latitude, longitude, np.ones(400), coverage=0.02))
    assert longest == 20
    apart = np.linalg.norm(points[:200] - points[200:], axis=-1)
    ends = unit_vectors(latitude, longitude)
    np.testing.assert_allclose(apart, np.linalg.norm(ends[:200] - ends[200:], axis=-1), rtol=0.05)


def test_levels_around_the_globe():
    grid = gaussian_grid(16)
    assert plane(grid) is None
    mesh = mesh_levels(grid, level=3)
    assert mesh.sizes == [642, 162, 42]
    assert [len(some.edges) for some in mesh.up] == [642 + 480, 162 + 120]  # nodes midway between two hear of both
    merged = mesh_levels(grid, level=3, merged=True)
    assert len(merged.across[0].edges) == 1_260 - 60 + 3_840  # the multi-mesh without the icosahedron


def test_refusals():
    with pytest.raises(ValueError, match="limited_area needs at least 9 points along its longer side; got 8"):
        mesh_levels(LatLonGrid(np.linspace(60.0, 40.0, 8), np.linspace(0.0, 20.0, 8)))
    with pytest.raises(ValueError, match="levels of at least 1"):
        mesh_levels(AREA, levels=0)
    with pytest.raises(ValueError, match="1 or more; got 0"):
        mesh_levels(gaussian_grid(8), level=0)
