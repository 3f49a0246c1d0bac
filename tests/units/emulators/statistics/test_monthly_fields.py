"""Monthly means: variances by scale of known parts, and the leading patterns of a field made of two."""

import numpy as np
import pytest

from emulators.grid import equiangular_grid
from emulators.statistics.monthly_fields import SCALES, MonthlyFields, departures
from emulators.statistics.patterns import Patterns, is_separate, overlap, sampling_error

GRID = equiangular_grid(12, 18)
WEIGHTS = GRID.weights.ravel() / GRID.weights.sum()
YEARS = np.arange(2001, 2021)


def two_modes(seed, sizes=(3.0, 1.0), turned=0.0):
    """Monthly means (series, year, month, point) of two patterns of unit variance at right angles; and these."""
    latitude, longitude = np.meshgrid(np.deg2rad(GRID.latitude), np.deg2rad(GRID.longitude), indexing="ij")
    first, second = (2 * np.sin(latitude)).ravel(), (2 * np.cos(latitude) * np.cos(longitude)).ravel()
    patterns = np.stack([part / np.sqrt(WEIGHTS @ part**2) for part in (first, second)])
    patterns = np.array([[np.cos(turned), np.sin(turned)], [-np.sin(turned), np.cos(turned)]]) @ patterns
    series = np.random.default_rng(seed).normal(size=(1, len(YEARS) * 12, 2))
    series = departures(series[0].reshape(1, len(YEARS), 12, 2))[0]
    series = np.linalg.qr(series)[0] * np.sqrt(len(series))  # uncorrelated, of variance 1
    return ((series * sizes) @ patterns).reshape(1, len(YEARS), 12, -1), patterns


def test_the_two_patterns_of_a_field_are_found():
    truth, patterns = two_modes(0)
    other, _ = two_modes(1, sizes=(2.0, 1.5))
    season = 5.0 * np.cos(2 * np.pi * np.arange(12) / 12)[:, None] + 0.3 * (YEARS - 2010.0)[:, None, None]
    modes = MonthlyFields.modes(np.concatenate([truth, other]) + season, WEIGHTS)
    np.testing.assert_allclose(modes.shares[1, :2], [0.9, 0.1], atol=1e-3)
    np.testing.assert_allclose(modes.shares[0, :2], [0.64, 0.36], atol=1e-3)
    for mode, size in enumerate((3.0, 1.0)):
        sign = np.sign(modes.maps[1, mode] @ patterns[mode])
        np.testing.assert_allclose(sign * modes.maps[1, mode], size * patterns[mode], atol=1e-2)
    np.testing.assert_allclose(modes.likeness[:2], 1.0, atol=1e-3)
    np.testing.assert_allclose(modes.along[:2], [4 / 9, 2.25], rtol=1e-2)
    assert modes.overlap == pytest.approx(1.0, abs=1e-3)
    assert modes.separate[:, :2].all()
    signs = (modes.maps[0, :2] * modes.maps[1, :2]).sum(axis=-1)
    assert (signs > 0).all()
    half = np.where(np.arange(WEIGHTS.size) < WEIGHTS.size // 2, WEIGHTS, 0.0)
    assert np.isnan(MonthlyFields.modes(np.concatenate([truth, other]), half).maps[:, :2, WEIGHTS.size // 2 :]).all()


def test_modes_that_mix_are_told_and_share_a_subspace():
    """Of nearly equal size, two modes turn into each other: one by one unlike, together the same."""
    truth, _ = two_modes(0, sizes=(1.01, 1.0))
    turned, _ = two_modes(1, sizes=(1.01, 1.0), turned=np.pi / 3)
    modes = MonthlyFields.modes(np.concatenate([truth, turned]), WEIGHTS)
    assert not modes.separate[:, 0].any()
    assert modes.likeness[0] == pytest.approx(np.cos(np.pi / 3), abs=0.02)
    assert modes.overlap == pytest.approx(1.0, abs=1e-3)


def test_the_rule_of_thumb_of_north():
    white = np.random.default_rng(0).normal(size=(1, 4000, 1))
    assert sampling_error(np.array([0.4]), white)[0] == pytest.approx(0.4 * np.sqrt(2 / 4000), rel=0.01)
    slow = np.zeros_like(white)
    for step in range(1, 4000):
        slow[:, step] = 0.8 * slow[:, step - 1] + 0.6 * white[:, step]
    want = 0.4 * np.sqrt(2 / (4000 * (1 - 0.64) / (1 + 0.64)))
    assert sampling_error(np.array([0.4]), slow)[0] == pytest.approx(want, rel=0.06)
    assert is_separate(np.array([0.5, 0.2, 0.19]), np.array([0.05, 0.05, 0.05])).tolist() == [True, False, False]


def test_overlap_of_subspaces():
    axes = np.eye(4)
    assert overlap(axes[:2], axes[:2]) == 1.0
    assert overlap(axes[:2], axes[2:]) == 0.0
    assert overlap(axes[:2], axes[1:3]) == 0.5


def test_shares_of_patterns_are_of_all_the_variance():
    maps = np.random.default_rng(0).normal(size=(30, *GRID.shape))
    shares = Patterns(maps, GRID.weights, 3).shares
    rows = (maps - maps.mean(0)).reshape(30, -1) * np.sqrt(GRID.weights.ravel())
    np.testing.assert_allclose(shares, np.linalg.eigvalsh(rows @ rows.T)[:-4:-1] / np.square(rows).sum())


def test_variances_add_up_to_that_of_all_times():
    """Equal months of ten times: the parts that were put in, and their sum is the variance of all."""
    random = np.random.default_rng(0)
    months, points = 12 * len(YEARS), 5
    year = np.repeat(random.normal(size=len(YEARS)), 12)[:, None]
    season = np.tile(3.0 * np.cos(2 * np.pi * np.arange(12) / 12), len(YEARS))[:, None]
    rest = random.normal(size=(months, 1))
    days = random.normal(size=(months, 10, points))
    days -= days.mean(axis=1, keepdims=True)
    fields = (300.0 + year + season + rest)[:, None] + 2.0 * days
    series = np.stack([fields, 300.0 + 2.0 * (fields - 300.0)]).reshape(2, -1, 1, points)
    at = np.repeat(12 * (YEARS[0] - 1970) + np.arange(months), 10)
    whole, parts = MonthlyFields(), [MonthlyFields(), MonthlyFields()]
    whole.add(at, series)
    order = random.permutation(len(at))
    for part, rows in zip(parts, np.array_split(order, 2), strict=True):
        part.add(at[rows], series[:, rows])
    parts[0].add_partial(parts[1].partial())
    parts[0].add_partial(MonthlyFields().partial())
    found = whole.variances(whole.whole(YEARS))
    np.testing.assert_allclose(found, parts[0].variances(parts[0].whole(YEARS)), rtol=1e-9)
    assert found.shape == (2, len(SCALES), 1, points)
    np.testing.assert_allclose(found[0], 4.0 * found[1], rtol=1e-9)
    np.testing.assert_allclose(found[1].sum(axis=0), series[0].var(axis=0), rtol=1e-9)
    np.testing.assert_allclose(found[1, 0, 0], np.square(2.0 * days).mean(axis=(0, 1)), rtol=1e-9)
    line = (year + rest)[:, 0].reshape(len(YEARS), 12)
    np.testing.assert_allclose(found[1, 3, 0], line.mean(axis=1).var(), rtol=1e-9)
    np.testing.assert_allclose(found[1, 1, 0], 4.5, rtol=0.2)  # and what the mean of twenty years leaves of the rest
    assert whole.whole(np.array([1999])).shape[1] == 0
