"""Faces of HEALPix: what is padded is what lies there on the sphere, in either order of the cells, at all corners."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from emulators.grid import gaussian_grid, unit_vectors
from emulators.grids.catalogue import cells_of, named_grid
from emulators.models.dlwp_hpx import FaceConvolution, FacePadding, Faces

SIDE = 4
NORTH, BELT, SOUTH = (range(first, first + 4) for first in (0, 4, 8))


def numbers(name: str, border: int) -> np.ndarray:
    """The numbers of the cells of each face and beyond, (12, row, column)."""
    grid = named_grid(name)
    faces = Faces(grid).inward(torch.arange(grid.size, dtype=torch.float64)[None, None])
    return FacePadding(border)(faces)[:, 0].numpy()


@cache
def vertices(name: str) -> list[set[int]]:
    """For each cell the points on its sides; those that two cells share have one number."""
    cells = cells_of(named_grid(name))
    points = cells.corners.reshape(-1, 3)
    pairs = cKDTree(points).query_pairs(1e-6, output_type="ndarray")
    same = coo_matrix((np.ones(len(pairs)), pairs.T), shape=(len(points),) * 2)
    labels = connected_components(same, directed=False)[1].reshape(len(cells.corners), -1)
    sets: list[set[int]] = [set() for _ in range(12 * SIDE**2)]
    for owner, row in zip(cells.cell, labels, strict=True):
        sets[owner].update(row.tolist())
    return sets


def is_missing(border: int) -> np.ndarray:
    """Where faces and what is beyond have a square at a corner where only three faces meet, (12, row, column)."""
    squares = np.zeros((12, *[SIDE + 2 * border] * 2), dtype=bool)
    first, last = slice(None, border), slice(-border, None)
    polar = [*NORTH, *SOUTH]
    squares[polar, first, last] = squares[polar, last, first] = True
    squares[BELT, first, first] = squares[BELT, last, last] = True
    return squares


@pytest.mark.parametrize("name", ["healpix:4", "healpix:4:nested"])
@pytest.mark.parametrize("border", [1, 2, 4])
def test_any_four_cells_of_a_square_meet_in_one_point(name, border):
    """Rows and columns go on beyond the sides of a face, and over the corners where four faces meet."""
    cells, points = numbers(name, border), vertices(name)
    missing = is_missing(border)
    checked = 0
    for face in range(12):
        for row, column in np.ndindex(*[SIDE + 2 * border - 1] * 2):
            block = face, slice(row, row + 2), slice(column, column + 2)
            if missing[block].any():
                continue
            four = {int(cell) for cell in cells[block].flat}
            assert len(four) == 4, "four cells"
            assert set.intersection(*(points[cell] for cell in four)), f"{four} of face {face} share a point"
            checked += 1
    assert checked == 12 * (SIDE + 2 * border - 1) ** 2 - 24 * border**2


@pytest.mark.parametrize("name", ["healpix:4", "healpix:4:nested"])
def test_cells_around_a_cell_are_its_neighbours(name):
    """By search over the sphere: eight, or seven at a corner where three faces meet."""
    cells, points = numbers(name, 1), vertices(name)
    near = [{b for b in range(len(points)) if b != a and points[a] & points[b]} for a in range(len(points))]
    assert sorted(map(len, near)) == [7] * 24 + [8] * (12 * SIDE**2 - 24)
    for face, row, column in np.ndindex(12, SIDE, SIDE):
        around = cells[face, row : row + 3, column : column + 3].ravel().tolist()
        cell = around.pop(4)
        means = [around.pop(k) for k in (7, 0) if face in BELT and (row, column) == ((0, 0) if k == 0 else (3, 3))]
        assert set(around) == near[int(cell)]
        assert means in ([], [sum(around[k] for k in ((0, 2) if row == 0 else (4, 6))) / 2])


@pytest.mark.parametrize("border", [1, 2, 3, 4])
def test_missing_squares_hold_what_lies_beside_them(border):
    cells = numbers("healpix:4", border)
    last = slice(-border, None)
    inner = cells[:, border:-border, border:-border]
    np.testing.assert_array_equal(cells[0, last, :border], inner[3, :border, -border:])
    np.testing.assert_array_equal(cells[9, :border, last], inner[10, -border:, :border])
    corner = cells[4, :border, :border]
    for up, outward in np.ndindex(border, border):  # steps from the face, whose northern corner is that of 0 and 3
        above, beside = inner[0, -1 - up, max(up - outward - 1, 0)], inner[3, max(outward - up - 1, 0), -1 - outward]
        expected = above if up > outward else beside if up < outward else 0.5 * (above + beside)
        assert corner[border - 1 - up, border - 1 - outward] == expected


def test_centres_of_cells_lie_beside_each_other():
    """No two neighbours of a padded face are further apart than the longest diagonal of a cell, means among them."""
    grid = named_grid("healpix:4:nested")
    places = torch.as_tensor(unit_vectors(*grid.points).T)[None]
    padded = FacePadding(1)(Faces(grid).inward(places))
    for axis in (-2, -1):
        assert padded.diff(dim=axis).norm(dim=1).max() < 2.2 * np.sqrt(4 * np.pi / grid.size)


@pytest.mark.parametrize("name", ["healpix:8", "healpix:8:nested"])
def test_components_of_winds_go_on_over_sides_and_are_reversed_beyond_a_pole(name):
    """They are eastward and northward, not along a face: of air that turns as one body they have no seam but there."""
    grid = named_grid(name)
    latitude, longitude = (np.deg2rad(degrees) for degrees in grid.points)
    eastward = np.stack([-np.sin(longitude), np.cos(longitude), 0.0 * longitude])
    northward = np.stack([-np.sin(latitude) * np.cos(longitude), -np.sin(latitude) * np.sin(longitude)])
    places = unit_vectors(*grid.points)
    for axis, over_poles in (((0.0, 0.0, 1.0), False), ((1.0, 0.0, 0.0), True)):
        wind = np.cross(axis, places).T
        u, v = (wind * eastward).sum(0), (wind * np.concatenate([northward, np.cos(latitude)[None]])).sum(0)
        fields = torch.as_tensor(np.stack([u, v, latitude, np.cos(longitude), np.sin(longitude)]))[None]
        padded = FacePadding(1)(Faces(grid).inward(fields))
        far = padded[:, 2].abs() < np.deg2rad(60.0)
        for dim in (-2, -1):
            away = far.narrow(dim, 1, 9) & far.narrow(dim, 0, 9)
            jumps = padded[:, :2].diff(dim=dim).abs().amax(1)
            assert jumps[away].max() < 0.3, "cells are 0.13 apart, and meridians converge"
        beyond, corner = padded[:4, :2, 0, 0], padded[:4, :2, 1, 1]
        torch.testing.assert_close(beyond, -corner if over_poles else corner)
        assert over_poles == bool(corner.abs().max() > 0.5)


@pytest.mark.parametrize("name", ["healpix:1", "healpix:6", "healpix:8:nested"])
def test_cells_come_back(name):
    grid = named_grid(name)
    fields = torch.randn(2, 3, grid.size)
    faces = Faces(grid)
    squares = faces.inward(fields)
    assert squares.shape == (24, 3, faces.side, faces.side)
    assert torch.equal(faces.outward(squares), fields)


def test_both_orders_give_the_same_faces():
    grids = [named_grid(name) for name in ("healpix:8", "healpix:8:nested")]
    ring, nested = (Faces(grid).inward(torch.as_tensor(unit_vectors(*grid.points).T)[None]) for grid in grids)
    torch.testing.assert_close(ring, nested)


def test_a_constant_field_has_no_seams():
    convolution = FaceConvolution(2, 3, dilation=2)
    out = convolution(torch.ones(24, 2, 4, 4)).detach()
    torch.testing.assert_close(out, out[:1, :, :1, :1].expand_as(out))


@pytest.mark.parametrize("grid", [gaussian_grid(8), named_grid("O4"), named_grid("cubed_sphere:4")], ids=str)
def test_other_grids_are_refused(grid):
    with pytest.raises(ValueError, match=r"Expected a HEALPix grid.*got.*emul data regrid grid=healpix:32"):
        Faces(grid)
