"""Between any two grids: what is kept, how close it comes, and which weights are taken again."""

import numpy as np
import pytest
import torch

from data_pipelines.derived.regridding import SPARSE_METHODS, CellRegridding, Regridding
from emulators.grid import unit_vectors
from emulators.grids.catalogue import cells_of, named_grid
from emulators.sphere.polygons import overlaps

PAIRS = [
    ("36x19_equiangular_with_poles", "O4"),
    ("O4", "healpix:3"),
    ("healpix:2:nested", "cubed_sphere:4"),
    ("icosahedral:1", "icosahedral:1:triangles"),
    ("cubed_sphere:4", "stretched:1:3:60:10:15"),
    ("icosahedral:2", "12x7_equiangular_with_poles"),
]


def mean(grid, field):
    return float((field.numpy() * grid.weights).sum() / grid.weights.sum())


def smooth(grid):
    x, y, z = unit_vectors(*grid.points).T
    return torch.from_numpy((2.0 + x * y + z**3 - 0.3 * x * z).reshape(grid.shape))


@pytest.mark.parametrize(("one", "two"), PAIRS)
def test_conservative_keeps_means_and_constants(one, two):
    source, target = named_grid(one), named_grid(two)
    there, back = CellRegridding(source, target), CellRegridding(target, source)
    field = torch.from_numpy(np.random.default_rng(0).standard_normal((3, *source.shape)))
    made = there(field)
    assert made.shape == (3, *target.shape)
    for before, after in zip(field, made, strict=True):
        assert mean(target, after) == pytest.approx(mean(source, before), abs=1e-12)
        assert mean(source, back(after)) == pytest.approx(mean(source, before), abs=1e-12)
    torch.testing.assert_close(there(torch.ones(source.shape)), torch.ones(target.shape, dtype=torch.float64))
    assert there.matrix.min() >= 0.0


def test_rows_overlap_as_polygons_do():
    source, target = named_grid("24x12_equiangular"), named_grid("O4")
    exact, cut = CellRegridding(source, target).matrix, overlaps(cells_of(source), cells_of(target))
    shares = cut / cut.sum(axis=1)[:, None]
    assert np.abs((exact - shares).toarray()).max() < 0.02


def test_rows_to_rows_are_those_of_the_dense_way():
    source, target = named_grid("24x12_equiangular"), named_grid("32x16_gaussian")
    field = smooth(source)
    torch.testing.assert_close(CellRegridding(source, target)(field), Regridding(source, target).conservative(field))
    dense = Regridding(source, target).bilinear(field)
    torch.testing.assert_close(CellRegridding(source, target, "bilinear")(field), dense)


@pytest.mark.parametrize("method", SPARSE_METHODS)
@pytest.mark.parametrize(("coarse", "fine"), [("icosahedral:2", "icosahedral:3"), ("O8", "O16")])
def test_errors_fall_with_the_spacing(method, coarse, fine):
    target = named_grid("24x12_equiangular")
    errors = [
        float((CellRegridding(grid, target, method)(smooth(grid)) - smooth(target)).pow(2).mean().sqrt())
        for grid in (named_grid(coarse), named_grid(fine))
    ]
    assert errors[1] < (0.85 if method != "bilinear" else 0.4) * errors[0]


def test_bilinear_keeps_linear_fields_within_triangles():
    """A plane through the corners of a chord triangle is met where the ray of the point meets the triangle."""
    source, target = named_grid("icosahedral:2"), named_grid("O4")
    made = CellRegridding(source, target, "bilinear")(torch.from_numpy(unit_vectors(*source.points).T.copy()))
    direction = (made / made.norm(dim=0)).numpy().T
    np.testing.assert_allclose(direction, unit_vectors(*target.points), atol=1e-12)


@pytest.mark.slow
def test_missing_values_and_areas():
    source, target = named_grid("lambert:60:10:20x20:100"), named_grid("icosahedral:4")
    field = torch.from_numpy(np.random.default_rng(0).random(source.size))
    for method in SPARSE_METHODS:
        made = CellRegridding(source, target, method)(field)
        known = made.isfinite().numpy()
        assert 0 < known.sum() < 0.05 * target.size, method
        centre = unit_vectors(np.array([60.0]), np.array([10.0]))
        assert (unit_vectors(*target.points)[known] @ centre.T).min() > np.cos(np.deg2rad(18)), method
    holes = field.clone()
    holes[:40] = torch.nan
    made = CellRegridding(source, named_grid("lambert:60:10:10x10:200"))(holes)
    assert made.isfinite().sum() == 90


def test_weights_are_kept_and_taken_again(tmp_path):
    source, target, file = named_grid("O4"), named_grid("cubed_sphere:3"), tmp_path / "w.npz"
    first = CellRegridding(source, target, "nearest", file)
    second = CellRegridding(source, target, "nearest", file)
    assert (first.matrix != second.matrix).nnz == 0
    with pytest.raises(ValueError, match="holds other weights"):
        CellRegridding(source, target, "conservative", file)
    with pytest.raises(ValueError, match="one of conservative"):
        CellRegridding(source, target, "spectral")
    with pytest.raises(ValueError, match="no cells"):
        CellRegridding(named_grid("stations:0,0;1,1"), target)
