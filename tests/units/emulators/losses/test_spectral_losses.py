"""Spectral losses: published anchors, closed forms, an independent formula, finite differences, weights as of Lp."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from emulators.constants import EARTH_RADIUS
from emulators.grid import equiangular_grid, gaussian_grid
from emulators.losses.amse import AMSE, amse_terms
from emulators.losses.coherence import Coherence
from emulators.losses.log_spectral_distance import LogSpectralDistance
from emulators.losses.lp import Lp
from emulators.losses.power_spectrum import PowerSpectrum
from emulators.losses.sobolev import Sobolev
from emulators.losses.vorticity_divergence import VorticityDivergence
from emulators.scores.spectral_errors import SpectralSums, Sums, by_degree
from emulators.sphere.transform import SphericalHarmonics
from emulators.state import State
from emulators.variables import Variable, VariableSet
from emulators.world import Scale, World

SPECTRAL = (AMSE, PowerSpectrum, LogSpectralDistance, Coherence, Sobolev)
ON_WINDS = ("u_component_of_wind", "v_component_of_wind")


def world(nlat: int = 8, grid=None, names: tuple[str, ...] = ("temperature",)) -> World:
    variables = VariableSet(tuple(Variable(name) for name in names))
    scales = {name: Scale(1.0, 2.0, 0.5) for name in names}
    return World(grid or gaussian_grid(nlat), variables, np.timedelta64(6, "h"), scales=scales)


def states(planet: World, prediction, truth) -> tuple[State, State]:
    time = np.array("2000-01-01", "datetime64[s]")
    return State(prediction, planet.predicted, time), State(truth, planet.predicted, time)


def band_limited(planet: World, degrees: int, seed: int, channels: int = 1) -> torch.Tensor:
    """Random fields of total wavenumbers below `degrees`, (channel, lat, lon)."""
    generator = torch.Generator().manual_seed(seed)
    shape = (channels, degrees, degrees)
    waves = torch.complex(*(torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))).tril()
    waves[..., 0] = waves[..., 0].real.to(waves.dtype)
    return SphericalHarmonics(planet.grid, degrees, dtype=torch.float64).field(waves)


def coefficients(planet: World, degrees: int, *, l: int, m: int, value: complex) -> torch.Tensor:
    waves = torch.zeros(1, degrees, degrees, dtype=torch.complex128)
    waves[0, l, m] = value
    return SphericalHarmonics(planet.grid, degrees, dtype=torch.float64).field(waves)


# Prediction and truth of degree 1 as (m = 0, m = 1), their squared error and their adjusted squared error.
ANCHORS = [
    ((0.5, 0.0), (1.0, 0.0), 0.25, 0.25),
    ((0.5, 0.0), (0.0, 0.5**0.5), 1.25, 2.25),
    ((0.3, 0.1 + 0.2j), (1.0, 0.5 - 0.3j), 1.31, 2.434846),
]


@pytest.mark.parametrize(("prediction", "truth", "mse", "amse"), ANCHORS)
def test_anchors(prediction, truth, mse, amse):
    planet = world()
    a, b = (sum(coefficients(planet, 4, l=1, m=m, value=v) for m, v in enumerate(w)) for w in (prediction, truth))
    rows = SphericalHarmonics(planet.grid, 4, dtype=torch.float64).analysis
    sums = Sums.apply(*(rows(field.permute(2, 1, 0)) for field in (a - b, b)))
    spectra = by_degree(SpectralSums(*sums), 1e-12)
    assert spectra.error[1].item() == pytest.approx(mse, rel=1e-9)
    assert amse_terms(spectra)[1].item() == pytest.approx(amse, rel=1e-6)
    whole = AMSE(planet, scale="none", epsilon=1e-12)(*states(planet, a, b))
    assert 4 * math.pi * whole.item() == pytest.approx(amse, rel=1e-5)
    assert 4 * math.pi * Lp(planet, scale="none")(*states(planet, a, b)).item() == pytest.approx(mse, rel=1e-6)


@pytest.mark.parametrize("grid", [gaussian_grid(12), equiangular_grid(12), equiangular_grid(13, poles=True)])
def test_amse_against_its_formula_in_complex_coefficients(grid):
    planet = world(grid=grid)
    prediction, truth = (band_limited(planet, 10, seed) for seed in (1, 2))
    a, b = (SphericalHarmonics(grid, 12, dtype=torch.float64).coefficients(f).numpy()[0] for f in (prediction, truth))
    twice = np.where(np.arange(12) > 0, 2.0, 1.0)
    ours, theirs = (np.sum(twice * abs(waves) ** 2, axis=1)[:10] for waves in (a, b))
    shared = np.sum(twice * (a * b.conj()).real, axis=1)[:10] / np.sqrt(ours * theirs)
    expected = np.sum((np.sqrt(ours) - np.sqrt(theirs)) ** 2 + 2 * np.maximum(ours, theirs) * (1 - shared))
    value = AMSE(planet, scale="std", degrees=12, epsilon=1e-14)(*states(planet, prediction, truth))
    assert value.item() == pytest.approx(expected / (4 * np.pi) / 2.0**2, rel=1e-7)


def test_amse_is_the_mean_square_error_where_powers_agree_or_phases_do():
    planet = world()
    truth = band_limited(planet, 8, 1)
    amse, mse = AMSE(planet), Lp(planet)
    for prediction, same in ((truth.roll(3, -1), True), (0.7 * truth, True), (band_limited(planet, 8, 2), False)):
        pair = states(planet, prediction, truth)
        if same:
            torch.testing.assert_close(amse(*pair), mse(*pair), rtol=1e-6, atol=0)
        else:
            assert amse(*pair) > 1.05 * mse(*pair)


def test_the_best_amplitude_is_that_of_the_truth():
    """For a field whose coherence with the truth is 0.6, the mean square error is least at 0.6 of its amplitude."""
    planet = world()
    truth, other = (coefficients(planet, 8, l=3, m=m, value=1.0) for m in (2, 3))
    shape = 0.6 * truth + 0.8 * other
    sizes = torch.linspace(0.1, 1.5, 141, dtype=torch.float64)
    for loss, best in ((Lp(planet), 0.6), (Sobolev(planet, exponent=0.0), 0.6), (AMSE(planet), 1.0)):
        values = [loss(*states(planet, size * shape, truth)).item() for size in sizes]
        assert sizes[int(np.argmin(values))].item() == pytest.approx(best, abs=0.006)


def test_short_forecasts_are_seen_through_the_great_mean_of_a_field():
    """Errors of a ten-thousandth of the field keep three digits in single precision."""
    planet = world(16)
    truth = 280.0 + 5.0 * band_limited(planet, 12, 1)
    prediction = (truth + 1e-2 * band_limited(planet, 12, 2)).float()
    pair = states(planet, prediction, truth.float())
    exact = states(planet, *(state.values.double() for state in pair))
    for part in (AMSE, Coherence, PowerSpectrum, Sobolev):
        loss = part(planet, degrees=12)
        torch.testing.assert_close(loss(*pair).double(), loss(*exact), rtol=2e-3, atol=0)


@pytest.mark.parametrize(("ours", "theirs"), [(1.0, 1.0), (1e-2, 1.0), (1e-4, 1.0), (0.0, 1.0), (1.0, 0.0), (1e2, 0.0)])
def test_single_precision_holds_whichever_field_is_the_smaller(ours, theirs):
    """What is lost are the digits that the transforms of the greater field lack for the smaller, no more."""
    planet = world(12)
    truth, other = (band_limited(planet, 12, seed) for seed in (1, 2))
    fields = (ours * (0.8 * other + 0.6 * truth)).float(), (theirs * truth).float()
    tolerance = 1e-6 * max(1.0, min(theirs / ours, 1e4) if ours else 1.0)
    for part in (AMSE, Coherence, LogSpectralDistance, PowerSpectrum):
        found = []
        for dtype in (torch.float32, torch.float64):
            values = fields[0].to(dtype).requires_grad_()
            value = part(planet)(*states(planet, values, fields[1].to(dtype)))
            (slope,) = torch.autograd.grad(value, values)
            found.append((value.item(), slope.double()))
        (single, slope), (exact, expected) = found
        assert single == pytest.approx(exact, rel=tolerance), part
        assert (slope - expected).norm() <= 3 * tolerance * expected.norm(), part


@pytest.mark.parametrize("part", [Lp, *SPECTRAL, VorticityDivergence])
def test_members_are_compared_with_the_one_truth(part):
    planet = world(4, names=ON_WINDS)
    members = torch.stack([band_limited(planet, 4, seed, channels=6).view(3, 2, 4, 8) for seed in (1, 2)])
    truth = band_limited(planet, 4, 3, channels=6).view(3, 2, 4, 8)
    loss, values = part(planet), members.clone().requires_grad_()
    found = loss(*states(planet, values, truth))
    one_by_one = torch.stack([loss(*states(planet, member, truth)) for member in values])
    assert found.shape == (2, 3)
    torch.testing.assert_close(found, one_by_one, rtol=1e-12, atol=0)
    slopes = (torch.autograd.grad(value.square().sum(), values)[0] for value in (found, one_by_one))
    torch.testing.assert_close(*slopes, rtol=1e-10, atol=1e-12)


def test_gradients_reach_the_truth_of_members():
    planet = world(4)
    members = band_limited(planet, 4, 1, channels=2)[:, None]
    truth = band_limited(planet, 4, 2).requires_grad_()
    loss = AMSE(planet)
    assert torch.autograd.gradcheck(lambda values: loss(*states(planet, members, values)), truth)


def descent(function, dtype: torch.dtype | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """What `function` makes of two members and its gradient, with autocast to `dtype`."""
    planet = world(4, names=ON_WINDS)
    truth, *members = (band_limited(planet, 4, seed, channels=2).float() for seed in (1, 2, 3))
    values = torch.stack(members).requires_grad_()
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        value = function(*states(planet, values, truth))
    return value.detach(), torch.autograd.grad(value.sum(), values)[0]


@pytest.mark.parametrize("part", [*SPECTRAL, VorticityDivergence])
def test_autocast_changes_nothing_for_members(part):
    loss = part(world(4, names=ON_WINDS))
    torch.testing.assert_close(descent(loss, torch.bfloat16), descent(loss), rtol=1e-6, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("part", [*SPECTRAL, VorticityDivergence])
def test_losses_compile_in_one_graph(part):
    loss = part(world(4, names=ON_WINDS))
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(descent(compiled), descent(loss), rtol=1e-5, atol=1e-7)


def test_gradients_are_finite_where_a_field_has_no_power():
    planet = world()
    truth = coefficients(planet, 8, l=3, m=2, value=1.0).float()
    for part in SPECTRAL:
        for prediction, target in ((truth, truth), (0 * truth, truth), (truth, 0 * truth), (0 * truth, 0 * truth)):
            values = prediction.clone().requires_grad_()
            (slope,) = torch.autograd.grad(part(planet)(*states(planet, values, target)).sum(), values)
            assert slope.isfinite().all(), part


@pytest.mark.parametrize("part", [*SPECTRAL, VorticityDivergence])
def test_gradients_by_finite_differences(part):
    planet = world(4, names=ON_WINDS)
    prediction, truth = (band_limited(planet, 4, seed, channels=2) for seed in (1, 2))
    loss = part(planet)
    assert torch.autograd.gradcheck(lambda values: loss(*states(planet, values, truth)), prediction.requires_grad_())


def test_sobolev_is_the_mean_square_error_at_exponent_zero_and_adds_gradients_at_one():
    planet = world()
    pair = states(planet, *(band_limited(planet, 8, seed) for seed in (1, 2)))
    torch.testing.assert_close(Sobolev(planet, exponent=0.0)(*pair), Lp(planet)(*pair), rtol=1e-6, atol=0)
    zero = torch.zeros(1, *planet.grid.shape, dtype=torch.float64)
    for exponent in (-1.0, 1.0, 2.5):
        loss = Sobolev(planet, exponent=exponent)
        of = [loss(*states(planet, coefficients(planet, 8, l=l, m=0, value=1.0), zero)).item() for l in range(8)]
        np.testing.assert_allclose(np.array(of) / of[0], [(1 + l * (l + 1)) ** exponent for l in range(8)], rtol=1e-5)
        white = sum((2 * l + 1) * value for l, value in enumerate(of)) / 64  # the same power in every harmonic
        assert white == pytest.approx(1 / (4 * np.pi) / 0.5**2, rel=1e-5)
    assert (
        Sobolev(planet, degrees=3)(*states(planet, coefficients(planet, 8, l=4, m=1, value=1.0), zero)).item() < 1e-20
    )


@pytest.mark.parametrize("factor", [0.5, 3.0, -2.0])
def test_closed_forms_of_a_multiple_of_the_truth(factor):
    planet = world()
    truth = 1e3 * band_limited(planet, 8, 1)
    pair = states(planet, factor * truth, truth)
    assert LogSpectralDistance(planet)(*pair).item() == pytest.approx(2 * abs(math.log(abs(factor))), rel=1e-7)
    assert Coherence(planet)(*pair).item() == pytest.approx(0.0 if factor > 0 else 2.0, abs=1e-9)


def test_closed_forms_of_two_harmonics():
    planet = world()
    truth = coefficients(planet, 8, l=3, m=2, value=1.0)
    other = coefficients(planet, 8, l=3, m=1, value=2.0)
    pair = states(planet, other, truth)
    none = states(planet, 0 * truth, truth)
    assert Coherence(planet, scale="none")(*pair).item() == pytest.approx(1 / 7)  # of seven degrees one has power
    expected = ((2 * 4.0 - 2 * 1.0) / (4 * math.pi)) ** 2
    assert PowerSpectrum(planet, scale="none")(*pair).item() == pytest.approx(expected)
    assert PowerSpectrum(planet, scale="none", lowest=4)(*pair).item() < 1e-20
    expected = abs(math.log(1e-4 / (2.0 + 1e-4))) / math.sqrt(7)
    assert LogSpectralDistance(planet, scale="none", epsilon=1e-4)(*none).item() == pytest.approx(expected, rel=1e-6)


WINDS = ("u_component_of_wind", "v_component_of_wind", "temperature")


@pytest.mark.parametrize("grid", [gaussian_grid(8), equiangular_grid(8), equiangular_grid(9, poles=True)])
def test_vorticity_and_divergence_of_flows_known_by_heart(grid):
    planet = world(grid=grid, names=WINDS)
    latitude = torch.deg2rad(torch.from_numpy(planet.grid.latitude))[:, None].expand(planet.grid.shape)
    flow, still = 3.0 * latitude.cos(), torch.zeros(planet.grid.shape, dtype=torch.float64)
    truth = torch.zeros(3, *planet.grid.shape, dtype=torch.float64)
    rotation, outflow = torch.stack([flow, still, 9 + still]), torch.stack([still, flow, 9 + still])
    both = VorticityDivergence(planet, scale="none")
    expected = 4 * 3.0**2 / 3 / EARTH_RADIUS**2 * both.length**2  # area mean of (2 U sin(latitude) / a)^2
    for values, vorticity, divergence in ((rotation, 1.0, 0.0), (outflow, 0.0, 1.0)):
        pair = states(planet, values, truth)
        assert both(*pair).item() == pytest.approx(expected, rel=1e-6)
        other = VorticityDivergence(planet, scale="none", vorticity=divergence, divergence=vorticity)
        assert other(*pair).item() < 1e-12 * expected
    twice = VorticityDivergence(planet, scale="none", vorticity=2.0)
    assert twice(*states(planet, rotation, truth)).item() == pytest.approx(2 * expected, rel=1e-6)
    scaled = VorticityDivergence(planet, scale="std")
    assert scaled(*states(planet, rotation, truth)).item() == pytest.approx(expected / 4, rel=1e-6)


def test_winds_are_found_or_asked_for():
    with pytest.raises(ValueError, match="Expected winds"):
        VorticityDivergence(world())
    uneven = replace(
        world(),
        prognostic=VariableSet(
            (Variable("u_component_of_wind", levels=(500.0,)), Variable("v_component_of_wind", levels=(850.0,)))
        ),
    )
    with pytest.raises(ValueError, match="different levels"):
        VorticityDivergence(replace(uneven, scales={c: Scale(0.0, 1.0, 1.0) for c in uneven.predicted.channels}))


def test_weights_of_winds_are_those_of_pairs_beside_each_other():
    names = (*ON_WINDS, "temperature", "10m_u_component_of_wind", "10m_v_component_of_wind")
    planet = world(names=names)
    truth = band_limited(planet, 8, 1, channels=5)
    aloft, near = truth.clone(), truth.clone()
    aloft[:2], near[3:] = (band_limited(planet, 8, seed, channels=2) for seed in (2, 3))

    def shares(**weights) -> list[float]:
        """How much the errors aloft and near the ground count, in parts of what they do without weights."""
        losses = [VorticityDivergence(planet, **options) for options in ({"variable_weights": weights}, {})]
        return [
            (losses[0](*pair) / losses[1](*pair)).item() for pair in (states(planet, f, truth) for f in (aloft, near))
        ]

    assert shares(u_component_of_wind=3.0, v_component_of_wind=3.0) == pytest.approx([1.5, 0.5])
    assert shares(u_component_of_wind=3.0) == pytest.approx([4 / 3, 2 / 3])  # 3 + 1 to 1 + 1
    assert shares(u_component_of_wind=2.0, v_component_of_wind=2.0) == pytest.approx(shares(u_component_of_wind=3.0))
    assert shares(temperature=9.0) == pytest.approx([1.0, 1.0])
    assert shares(**dict.fromkeys((*ON_WINDS, *names[3:]), 7.0)) == pytest.approx([1.0, 1.0])
    with pytest.raises(ValueError, match="weights of all winds are zero"):
        shares(**dict.fromkeys((*ON_WINDS, *names[3:]), 0.0))


def test_weights_of_levels_are_those_of_their_winds():
    variables = VariableSet(tuple(Variable(name, levels=(500.0, 850.0)) for name in ON_WINDS))
    planet = replace(world(), prognostic=variables, scales={c: Scale(0.0, 2.0, 0.5) for c in variables.channels})
    truth = band_limited(planet, 8, 1, channels=4)
    for level, expected in ((0, 1.5), (1, 0.5)):
        values = truth.clone()
        values[level::2] = band_limited(planet, 8, 2, channels=2)
        pair = states(planet, values, truth)
        share = VorticityDivergence(planet, level_weights={500.0: 3.0})(*pair) / VorticityDivergence(planet)(*pair)
        assert share.item() == pytest.approx(expected)


@pytest.mark.parametrize("part", [Lp, *SPECTRAL])
def test_channels_count_as_in_the_mean_square_error(part):
    planet = world(names=("temperature", "geopotential", "specific_humidity"))
    truth = band_limited(planet, 8, 1, channels=3)
    of = []
    for channel in range(3):
        values = truth.clone()
        values[channel] = band_limited(planet, 8, 2)[0] + truth[channel] * 0.1
        loss = part(planet, variable_weights={"temperature": 3.0, "geopotential": 0.0})
        even = part(planet)
        pair = states(planet, values, truth)
        of.append((loss(*pair) / even(*pair)).item())
    np.testing.assert_allclose(of, np.array([3.0, 0.0, 1.0]) / np.mean([3.0, 0.0, 1.0]), rtol=1e-6)


def test_what_makes_no_sense_is_refused(small_world):
    planet = world()
    with pytest.raises(ValueError, match="whole sphere"):
        AMSE(small_world("limited_area"))
    other = world(names=("geopotential",))
    field = torch.zeros(1, *planet.grid.shape)
    with pytest.raises(ValueError, match="Expected States of temperature"):
        AMSE(planet)(*states(other, field, field))


REFUSED = [  # parts, options of which the first is named, and its name
    *((part, {"degrees": degrees}, "degrees") for part in SPECTRAL for degrees in (0, -1, 2.5)),
    *((VorticityDivergence, {"degrees": degrees}, "degrees") for degrees in (0, -1, 1)),
    *((part, {"epsilon": value}, "epsilon") for part in SPECTRAL[:4] for value in (0.0, -1.0, math.nan, math.inf)),
    *((part, {"lowest": value}, "lowest") for part in SPECTRAL[1:4] for value in (-1, 0.5, 8)),
    *((Sobolev, {"exponent": value}, "exponent") for value in (500.0, -500.0, math.nan, math.inf)),
    *((VorticityDivergence, {"vorticity": value}, "vorticity") for value in (-1.0, math.nan, math.inf)),
    (VorticityDivergence, {"vorticity": 0.0, "divergence": 0.0}, "vorticity"),
]


@pytest.mark.parametrize(("part", "options", "name"), REFUSED)
def test_options_that_make_no_sense_are_refused(part, options, name):
    with pytest.raises(ValueError, match=rf"Expected {name}.*; got .*{next(iter(options.values()))}"):
        part(world(names=ON_WINDS), **options)


def test_the_greatest_exponents_have_weights_of_every_degree():
    planet = world(names=ON_WINDS)
    pair = states(planet, torch.randn(2, *planet.grid.shape), torch.zeros(2, *planet.grid.shape))
    for exponent in (-19.0, 19.0):
        loss = Sobolev(planet, exponent=exponent)
        assert (loss.by_degree > torch.finfo(torch.float32).tiny).all()
        assert loss(*pair).isfinite()
