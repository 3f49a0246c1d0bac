"""Spherical CNN: spin-weighted harmonics, turning with the input about any axis, units of winds, options, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from emulators.grid import LatLonGrid, degrees_of, equiangular_grid, gaussian_grid, unit_vectors
from emulators.models.spherical_cnn import PhaseCollapse, SpectralNorm, SphericalCNN, SpinConvolution, SpinTransform
from emulators.sphere.legendre import legendre, legendre_derivative, legendre_over_cosine
from emulators.sphere.transform import SphericalHarmonics
from emulators.variables import Variable, VariableSet
from emulators.world import Scale, World

GRID = gaussian_grid(12)
GRIDS = [GRID, equiangular_grid(12), equiangular_grid(13, poles=True), LatLonGrid(GRID.latitude, GRID.longitude + 5.0)]
SMALL = {"channels": [4, 6], "blocks": 1}
TURN = Rotation.from_euler("zyx", [0.7, 1.1, -0.4])


def world(grid: LatLonGrid = GRID, **changes) -> World:
    levels = (500.0, 850.0)
    winds = [Variable(f"{component}_component_of_wind", "m s-1", levels) for component in "uv"]
    state = VariableSet((Variable("temperature", "K", levels), *winds))
    scales = {name: Scale(float(n), 2.0 + n, 1.0 + 0.3 * n) for n, name in enumerate(state.channels)}
    changes = {"forcing": VariableSet((Variable("solar"),)), "scales": scales, **changes}
    return World(grid, prognostic=state, timestep=np.timedelta64(6, "h"), **changes)


def network(where: World, **changes) -> SphericalCNN:
    """A network, none of whose paths is closed."""
    torch.manual_seed(0)
    net = SphericalCNN(where, **{**SMALL, **changes}).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


def outcome(net: torch.nn.Module, fields: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return net(fields, torch.zeros(len(fields), dtype=torch.int64))


def coefficients(degrees: int, channels: int) -> torch.Tensor:
    """Random ones of real fields; winds have no degree 0, and channels are thirds of scalars and both parts."""
    rows = torch.randn(2 * degrees, degrees, 1, channels, generator=torch.Generator().manual_seed(1)).double()
    for m in range(degrees):
        rows[2 * m : 2 * m + 2, :m] = 0.0
    rows[1] = 0.0
    rows[:, 0, :, channels // 3 :] = 0.0
    return rows


def evaluated(rows: torch.Tensor, latitude: np.ndarray, longitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scalars (point, channel) and winds in space (point, 3, channel) of coefficients, by sums over Y and slopes."""
    degrees = rows.shape[1]
    complex_rows = (rows[::2, :, 0] + 1j * rows[1::2, :, 0]).numpy()
    complex_rows[1:] *= 2.0
    a, s, t = np.split(complex_rows, 3, axis=-1)
    sine, order = np.sin(np.deg2rad(latitude)), np.arange(degrees)[:, None]
    wave = np.exp(1j * order * np.deg2rad(longitude))[:, None]
    values = legendre(degrees, degrees, sine) * wave
    north = legendre_derivative(degrees, degrees, sine) * wave
    east = 1j * order[:, None] * legendre_over_cosine(degrees, degrees, sine) * wave
    root = np.sqrt(np.maximum(np.arange(degrees) * (np.arange(degrees) + 1.0), 1.0))[None, :, None]

    def total(table: np.ndarray, by: np.ndarray) -> np.ndarray:
        return np.einsum("mlp,mlc->pc", table, by).real

    u = total(east / root, s) - total(north / root, t)
    v = total(north / root, s) + total(east / root, t)
    phi, angle = np.deg2rad(latitude)[:, None], np.deg2rad(longitude)[:, None]
    eastward = np.concatenate([-np.sin(angle), np.cos(angle), 0.0 * angle], 1)
    northward = np.concatenate([-np.sin(phi) * np.cos(angle), -np.sin(phi) * np.sin(angle), np.cos(phi)], 1)
    return total(values, a), eastward[:, :, None] * u[:, None] + northward[:, :, None] * v[:, None]


def turned(transform: SpinTransform, rows: torch.Tensor) -> torch.Tensor:
    """Coefficients of the fields turned by TURN: read where each point came from, winds turned with the points."""
    latitude, longitude = transform.calculus.grid.points
    scalars, winds = evaluated(rows, *degrees_of(TURN.inv().apply(unit_vectors(latitude, longitude))))
    winds = np.einsum("ij,pjc->pic", TURN.as_matrix(), winds)
    phi, angle = np.deg2rad(latitude), np.deg2rad(longitude)
    u = -np.sin(angle)[:, None] * winds[:, 0] + np.cos(angle)[:, None] * winds[:, 1]
    v = np.cos(phi)[:, None] * winds[:, 2] - np.sin(phi)[:, None] * (
        np.cos(angle)[:, None] * winds[:, 0] + np.sin(angle)[:, None] * winds[:, 1]
    )
    nlat, nlon = transform.calculus.grid.shape
    fields = [torch.as_tensor(x).unflatten(0, (nlat, nlon)).transpose(0, 1).unsqueeze(2) for x in (scalars, u, v)]
    return transform.analysis(*fields)


@pytest.mark.parametrize("grid", GRIDS, ids=["gaussian", "equiangular", "poles", "other meridian"])
def test_transforms_come_back(grid):
    rows = coefficients(12, 6)
    transform = SpinTransform(grid, 12).double()
    fields = transform.synthesis(rows, 2)
    torch.testing.assert_close(transform.analysis(*fields), rows, rtol=1e-11, atol=1e-11)
    again = transform.synthesis(transform.analysis(*fields), 2)
    torch.testing.assert_close(again, fields, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("part", "unit"), [(1, 1.0), (2, 1j)], ids=["spheroidal", "toroidal"])
def test_harmonics_of_spin_one(part, unit):
    """The functions of single coefficients are those in the tables of Goldberg et al. 1967, without their phase."""
    transform = SpinTransform(GRID, 4).double()
    theta, wave = np.deg2rad(90.0 - GRID.latitude)[None, :], np.exp(1j * np.deg2rad(GRID.longitude))[:, None]
    closed = {
        (1, 0): np.sqrt(3 / (8 * np.pi)) * np.sin(theta),
        (1, 1): np.sqrt(3 / (16 * np.pi)) * (1 - np.cos(theta)),
        (2, 0): np.sqrt(15 / (8 * np.pi)) * np.sin(theta) * np.cos(theta),
        (2, 2): np.sqrt(5 / (16 * np.pi)) * (1 - np.cos(theta)) * np.sin(theta),
    }
    for (l, m), expected in closed.items():
        rows = torch.zeros(8, 4, 1, 3, dtype=torch.float64)
        rows[2 * m, l, 0, part] = 1.0
        _, u, v = (field[..., 0, 0].numpy() for field in transform.synthesis(rows, 1))
        np.testing.assert_allclose(((v - 1j * u) / wave**m).mean(0), unit * expected[0], atol=1e-13)


def test_scalars_alone_are_those_of_scalar_harmonics():
    transform, harmonics = SpinTransform(GRID, 12).double(), SphericalHarmonics(GRID, 12, 12).double()
    field = torch.randn(24, 12, 1, 3).double()
    none = field[..., :0]
    torch.testing.assert_close(transform.analysis(field, none, none), harmonics.analysis(field[:, :, 0])[:, :, None])
    rows = transform.analysis(field, field, field)
    convolution = SpinConvolution(12, 9, 3).double()
    with torch.no_grad():
        convolution.weight[:, 3:] = 0.0  # scalars read scalars
        expected = torch.einsum("mlbi,lio->mlbo", rows[..., :3], convolution.weight[:, :3])
        torch.testing.assert_close(convolution(rows), expected)


@pytest.mark.parametrize("points", [None, 1, 3])
def test_convolution_and_norm_turn_with_their_input(points):
    """About a slanted axis, for fields that the transform resolves."""
    transform, rows = SpinTransform(GRID, 8).double(), coefficients(8, 6)
    torch.manual_seed(0)
    layers = torch.nn.Sequential(SpinConvolution(8, 6, 9, points), SpectralNorm(8, 3)).double()
    with torch.no_grad():
        for parameter in layers[1].parameters():
            parameter.copy_(torch.randn(parameter.shape))
        there = turned(transform, rows)
        assert (there - rows).abs().max() > 0.5
        torch.testing.assert_close(layers(there), turned(transform, layers(rows)), rtol=1e-10, atol=1e-10)
        assert not torch.allclose(layers(there), layers(rows), atol=0.1)


def test_collapse_leaves_directions_out():
    collapse, fields = PhaseCollapse(3), torch.randn(3, 5, 4, 2, 3)
    scalars, u, v = fields
    c, s = np.cos(0.7), np.sin(0.7)
    with torch.no_grad():
        plain, other = collapse(scalars, u, v), collapse(scalars, c * u - s * v, s * u + c * v)
    torch.testing.assert_close(other[0], plain[0])
    assert torch.equal(plain[1], u)
    assert torch.equal(plain[2], v)
    assert not torch.allclose(collapse(scalars, 2 * u, v)[0], plain[0])


def test_norm_brings_variance_to_one():
    transform, norm = SpinTransform(GRID, 12).double(), SpectralNorm(12, 2).double()
    with torch.no_grad():
        scalars, u, v = transform.synthesis(norm(30.0 * coefficients(12, 6)), 2)
    area = torch.as_tensor(GRID.weights.T)[:, :, None, None]
    for field in (scalars.square(), u.square() + v.square()):
        torch.testing.assert_close((field * area).mean((0, 1)), torch.ones(1, 2).double(), rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("grid", GRIDS[:3], ids=lambda grid: grid.kind)
@pytest.mark.parametrize("change", [{}, {"filter_points": 3, "blocks": 2}], ids=str)
def test_the_network_turns_with_the_planet(grid, change):
    """By steps of the coarsest level."""
    net = network(world(grid), **change).double()
    x = torch.randn(2, 7, *grid.shape, generator=torch.Generator().manual_seed(2)).double()
    torch.testing.assert_close(outcome(net, x.roll(6, 3)), outcome(net, x).roll(6, 3), rtol=1e-9, atol=1e-9)


def test_the_network_turns_about_any_axis():
    """To what moduli alias, which falls with the number of rows of the same fields; with the latitude it does not."""
    errors = []
    for latitude, rows in ((True, 12), (False, 12), (False, 30)):
        grid = gaussian_grid(rows)
        net = network(world(grid, forcing=VariableSet(), scales={}), channels=[4], latitude=latitude).double()
        transform, few = SpinTransform(grid, rows).double(), coefficients(5, 6)
        x, there = (
            net.written.joined(*transform.synthesis(each, 2)).permute(2, 3, 1, 0)
            for each in (transform.resized(few), turned(transform, few))
        )
        whole = transform.analysis(*net.written.parted(outcome(net, x).permute(3, 2, 0, 1)))
        got = transform.analysis(*net.written.parted(outcome(net, there).permute(3, 2, 0, 1)))
        errors.append(float((got - turned(transform, whole)).norm() / got.norm()))
    assert errors[2] < 0.4 * errors[1]
    assert errors[2] < 0.01
    assert errors[0] > 3 * errors[1]


def test_components_have_one_unit():
    """The wind that is read is one vector, whatever the means and deviations of its components."""
    where = world()
    scales = [where.scales[f"{component}_component_of_wind_850"] for component in "uv"]
    x = torch.randn(24, 12, 2, 7)
    _, u, v = network(where).read.parted(x)
    metres = [x[..., number] * scale.std + scale.mean for number, scale in zip((3, 5), scales, strict=True)]
    unit = np.sqrt(np.square([scale.std for scale in scales]).mean())
    torch.testing.assert_close([u[..., 1] * unit, v[..., 1] * unit], metres)
    changes = network(where).written.joined(x[..., :2], u, v)
    ratio = (changes[..., 3] * scales[0].tendency_std) / (changes[..., 5] * scales[1].tendency_std)
    torch.testing.assert_close(ratio, u[..., 1] / v[..., 1])


@pytest.mark.parametrize("history", [1, 2])
def test_channels_come_back(history):
    net = network(world(history=history, scales={}))
    x = torch.randn(24, 12, 2, net.read.order.numel())
    torch.testing.assert_close(net.read.joined(*net.read.parted(x)), x)
    assert (net.read.scalars, net.read.winds) == (2 * history + 1, 2 * history)
    assert torch.equal(net.read.parted(x)[1][..., :2], x[..., 2:4])
    assert torch.equal(net.read.parted(x)[2][..., :2], x[..., 4:6])


@pytest.mark.parametrize(
    "change", [{"channels": [4]}, {"blocks": 2}, {"filter_points": 2}, {"latitude": False}], ids=str
)
def test_every_option_matters(change):
    x = torch.randn(1, 7, *GRID.shape, generator=torch.Generator().manual_seed(3))
    plain, other = outcome(network(world()), x), outcome(network(world(), **change), x)
    assert (plain - other).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("grid", "change", "message"),
    [
        (GRID, {"channels": []}, "channels of at least one level"),
        (GRID, {"blocks": 0}, "blocks=0"),
        (GRID, {"filter_points": 0}, "filter_points=0"),
        (GRID, {"channels": [4] * 4}, "at least 2 degrees; 4 levels leave 1 of the grid's 12"),
        (LatLonGrid(np.linspace(70.0, 30.0, 9), np.linspace(-30.0, 30.0, 13)), {}, "limited_area"),
    ],
)
def test_refusals(grid, change, message):
    with pytest.raises(ValueError, match=message):
        network(world(grid), **change)
