"""Regridding: area means, bounds, band-limited fields and winds between grids over the sphere."""

import numpy as np
import pytest
import torch
import xarray as xr

from data_pipelines.derived.regridding import METHODS, Regridding, regridded
from emulators.grid import LatLonGrid, equiangular_grid, gaussian_grid, lobatto_grid
from emulators.grids.catalogue import named_grid
from emulators.sphere.calculus import SphericalCalculus
from emulators.sphere.transform import SphericalHarmonics

SOURCE = gaussian_grid(16)
DEGREES = 11
TARGETS = {
    "equiangular": equiangular_grid(32),
    "as_many_rows": equiangular_grid(16),
    "with_poles": equiangular_grid(37, 48, poles=True),
    "coarse": equiangular_grid(12, 30),
    "gaussian": gaussian_grid(24),
    "lobatto": lobatto_grid(12),
    "odd": equiangular_grid(12, 21),
}


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def mean(field: torch.Tensor, grid: LatLonGrid) -> torch.Tensor:
    return (field * torch.from_numpy(grid.weights / grid.weights.size)).sum(dim=(-2, -1))


@pytest.fixture(params=TARGETS)
def target(request) -> LatLonGrid:
    return TARGETS[request.param]


def test_conservative_keeps_means_and_bounds(target) -> None:
    field = noise(2, 3, *SOURCE.shape)
    found = Regridding(SOURCE, target, DEGREES).conservative(field)
    assert found.shape == (2, 3, *target.shape)
    torch.testing.assert_close(mean(found, target), mean(field, SOURCE), rtol=1e-12, atol=0.0)
    assert field.min() <= found.min() <= found.max() <= field.max()
    ones = torch.ones(SOURCE.shape, dtype=torch.float64)
    same = Regridding(SOURCE, target, DEGREES).conservative(ones)
    torch.testing.assert_close(same, torch.ones(target.shape, dtype=torch.float64), rtol=1e-13, atol=0.0)


def test_cells_within_a_cell_have_its_value() -> None:
    """Rows and columns halved; the columns lie half a fine one off, so that edges meet across the zero meridian."""
    coarse, fine = equiangular_grid(8), equiangular_grid(16)
    shifted = LatLonGrid(fine.latitude, fine.longitude + 0.5 * 360.0 / 32)
    field = noise(8, 16)
    found = Regridding(coarse, shifted, 5).conservative(field)
    rows, columns = np.arange(16) // 2, (np.arange(32) + 1) // 2 % 16
    torch.testing.assert_close(found, field[rows][:, columns], rtol=1e-12, atol=0.0)
    back = Regridding(shifted, coarse, 5).conservative(found)
    torch.testing.assert_close(back, field, rtol=1e-12, atol=0.0)


def band_limited(count: int) -> torch.Tensor:
    """Coefficients (2 * orders, degrees, n) without imaginary part at order 0."""
    coefficients = noise(2 * DEGREES, DEGREES, count) - 0.5
    orders = torch.arange(2 * DEGREES) // 2
    coefficients[orders[:, None] > torch.arange(DEGREES)] = 0.0
    coefficients[1] = 0.0
    return coefficients


def test_spectral_is_exact_for_band_limited_fields(target) -> None:
    coefficients = band_limited(4)
    field, expected = (
        SphericalHarmonics(grid, DEGREES, DEGREES, torch.float64).synthesis(coefficients).permute(2, 1, 0)
        for grid in (SOURCE, target)
    )
    found = Regridding(SOURCE, target, DEGREES).spectral(field.reshape(2, 2, *SOURCE.shape))
    torch.testing.assert_close(found.reshape(4, *target.shape), expected, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("source", [lobatto_grid(12), gaussian_grid(11, 21)], ids=["lobatto", "odd"])
def test_spectral_keeps_all_degrees_that_both_grids_resolve(source) -> None:
    field = SphericalHarmonics(source, dtype=torch.float64).synthesis(band_limited(2)).permute(2, 1, 0)
    there, back = Regridding(source, SOURCE), Regridding(SOURCE, source)
    torch.testing.assert_close(back.spectral(there.spectral(field)), field, rtol=0.0, atol=1e-12)


def test_winds_are_those_of_the_same_vorticity_and_divergence() -> None:
    curl, spread = (1e-5 * band_limited(6).chunk(2, dim=2)[i] for i in (0, 1))
    curl[:, 0], spread[:, 0] = 0.0, 0.0
    fine = gaussian_grid(24)
    (u, v), expected = (
        [
            wind.permute(2, 1, 0)
            for wind in SphericalCalculus(grid, DEGREES, DEGREES, torch.float64).winds(curl.clone(), spread.clone())
        ]
        for grid in (SOURCE, fine)
    )
    found = Regridding(SOURCE, fine, DEGREES).winds(u, v)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0.0, atol=1e-10)
    poles = equiangular_grid(37, 48, poles=True)
    u, v = Regridding(SOURCE, poles, DEGREES).winds(u, v)
    for row, sign in ((0, 1.0), (-1, -1.0)):  # one vector, seen along each meridian
        angle = torch.from_numpy(np.deg2rad(poles.longitude))
        east = u[:, row] * torch.cos(angle) - sign * v[:, row] * torch.sin(angle)
        assert float(u[:, row].abs().max()) > 1.0
        torch.testing.assert_close(east, east[:, :1].expand_as(east), rtol=0.0, atol=1e-10)


def test_solid_rotation_stays_solid_rotation(target) -> None:
    u = 30.0 * torch.cos(torch.deg2rad(torch.from_numpy(SOURCE.latitude)))[:, None].expand(SOURCE.shape).clone()
    east, north = Regridding(SOURCE, target, DEGREES).winds(u, torch.zeros_like(u))
    expected = 30.0 * np.cos(np.deg2rad(target.latitude))[:, None]
    np.testing.assert_allclose(east, np.broadcast_to(expected, target.shape), atol=1e-10)
    np.testing.assert_allclose(north, 0.0, atol=1e-10)


def test_the_same_grid_passes_fields_as_they_are() -> None:
    place, field = Regridding(SOURCE, gaussian_grid(16), DEGREES), noise(*SOURCE.shape)
    assert all(one is field for one in (place.conservative(field), place.spectral(field), *place.winds(field, field)))


def test_a_grid_too_coarse_is_refused() -> None:
    with pytest.raises(ValueError, match="resolves 8 degrees, the data 11"):
        Regridding(SOURCE, equiangular_grid(8), DEGREES)


@pytest.mark.parametrize("method", METHODS)
def test_datasets(method) -> None:
    """Winds, a field without time, attributes and order; nothing is read before it is asked for."""
    where = equiangular_grid(12)
    latitude = np.deg2rad(SOURCE.latitude)[:, None] + 0.0 * SOURCE.longitude
    ds = xr.Dataset(
        {
            "u_component_of_wind": (
                ("time", "level", "latitude", "longitude"),
                np.tile(np.cos(latitude), (2, 3, 1, 1)),
            ),
            "v_component_of_wind": (("time", "level", "latitude", "longitude"), np.zeros((2, 3, *SOURCE.shape))),
            "land_sea_mask": (("latitude", "longitude"), np.sin(latitude), {"units": "1"}),
        },
        {"time": [0, 1], "level": [1.0, 2.0, 3.0], "latitude": SOURCE.latitude, "longitude": SOURCE.longitude},
        {"origin": "a"},
    )
    found = regridded(ds, where, method)
    assert list(found) == list(ds)
    assert all(found[name].chunks for name in found)
    assert found["u_component_of_wind"].dims == ds["u_component_of_wind"].dims
    assert found.attrs == ds.attrs
    assert found["land_sea_mask"].attrs == {"units": "1"}
    tolerance = {"spectral": 1e-6, "bilinear": 0.02}.get(method, 0.12)
    at = np.deg2rad(where.latitude)[:, None] + 0.0 * where.longitude
    np.testing.assert_allclose(found["u_component_of_wind"][1, 2], np.cos(at), atol=tolerance)
    np.testing.assert_allclose(found["land_sea_mask"], np.sin(at), atol=tolerance)


@pytest.mark.parametrize("method", ["conservative", "bilinear", "nearest"])
def test_a_limited_area_is_missing_beyond_its_edge(method) -> None:
    area = LatLonGrid(np.linspace(60.0, 30.0, 16), np.arange(-20.0, 22.0, 2.0))
    ds = xr.Dataset(
        {"a": (("latitude", "longitude"), np.full(area.shape, 7.0))},
        {"latitude": area.latitude, "longitude": area.longitude},
    )
    found = regridded(ds, equiangular_grid(36), method)["a"]
    inside = found.sel(latitude=slice(58, 32)).isel(longitude=[0, 1, 2, 3, -1, -2, -3])
    np.testing.assert_allclose(inside, 7.0, rtol=1e-6)
    assert np.isnan(found.sel(latitude=slice(90, 64))).all()
    assert np.isnan(found.sel(longitude=slice(30, 330))).all()
    with pytest.raises(ValueError, match="between grids over the whole sphere"):
        regridded(ds, equiangular_grid(36), "spectral")
    with pytest.raises(ValueError, match="one of conservative, bilinear"):
        regridded(ds, equiangular_grid(36), "cubic")


@pytest.mark.parametrize(("name", "shape", "kind"), [
    ("64x32_equiangular", (32, 64), "equiangular"),
    ("64x32_equiangular_conservative", (32, 64), "equiangular"),
    ("240x121_equiangular_with_poles", (121, 240), "equiangular_with_poles"),
    ("128x64_gaussian", (64, 128), "gaussian"),
    ("64x33_lobatto", (33, 64), "lobatto"),
])  # fmt: skip
def test_names_of_grids(name, shape, kind) -> None:
    assert (named_grid(name).shape, named_grid(name).kind) == (shape, kind)
    with pytest.raises(ValueError, match="longitudes x latitudes"):
        named_grid(f"{name}s")
