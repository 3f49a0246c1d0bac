"""Noise levels and samplers against published numbers and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from emulators.layers.noise_levels import Process, ancestral_sample, rho_quantile
from emulators.samplers.ddpm import DDPM
from emulators.samplers.dpmpp_2s import DPMpp2S
from emulators.samplers.euler import Euler
from emulators.samplers.heun import Heun
from emulators.samplers.refinement import Refinement

GENCAST = """80 62.0813 47.719 36.3043 27.3149 20.3051 14.8974 10.7743 7.6708 5.3673 3.6842 2.4754 1.6238 1.0368 0.6419
0.3837 0.2201 0.1204 0.0622 0.03 0"""
ONE = torch.ones(1, dtype=torch.float64)


def test_levels_of_gencast():
    expected = [float(word) for word in GENCAST.split()]
    np.testing.assert_allclose(DPMpp2S(None).levels, expected, atol=5e-5)
    assert rho_quantile(0.5, 0.02, 88.0, 7.0) == pytest.approx(4.3525, abs=5e-5)


def test_churn_of_gencast_is_at_fourteen_levels():
    sampler, drawn = DPMpp2S(None), []

    def noise():
        drawn.append(1)
        return ONE

    sampler(Process("edm"), lambda x, level: x / (level**2 + 1), noise)
    assert len(drawn) == 1 + 14
    assert sampler.churn(ONE, 1.0, 20, lambda: ONE)[1] == pytest.approx(1.125)


def test_preconditioning():
    """Factors and weight at s = 1 with unit data (GenCast), and at s = 0.5 with data of 0.5 (LaDCast)."""

    def factors(process, level):
        seen = []
        x, s = torch.ones(1), torch.tensor([level])
        skip = process.restored(lambda scaled: seen.append(float(scaled)) or 0 * scaled, x, s)
        both = process.restored(lambda scaled: torch.ones(1), x, s)
        return float(skip), float(both - skip), seen[0], float(process.weight(s))

    np.testing.assert_allclose(factors(Process("edm"), 1.0), [0.5, 0.7071068, 0.7071068, 2.0], rtol=1e-6)
    np.testing.assert_allclose(factors(Process("edm", 0.5), 0.5), [0.5, 0.3535534, 1.4142136, 8.0], rtol=1e-6)


def test_gains_with_the_exact_network():
    """The solvers' factor on what they begin with, for normal data; the exact flow's would be 1 / sqrt(6401), 1, 1."""
    gain = DPMpp2S(None, churn=0.0)(Process("edm"), lambda x, s: x / (s**2 + 1), lambda: ONE) / 80
    assert float(gain) == pytest.approx(0.0123337798, rel=1e-8)
    assert float(gain) * math.sqrt(6401) == pytest.approx(0.986779, abs=1e-6)
    assert (80 * float(gain)) ** 2 == pytest.approx(0.973582, abs=1e-6)
    std = Heun(None)(Process("edm"), lambda x, s: x * 0.25 / (s**2 + 0.25), lambda: ONE)
    assert float(std) == pytest.approx(0.521824, abs=1e-6)
    for steps, expected in ((25, 0.949856), (50, 0.974616)):
        flow = Euler(None, levels=steps, largest=1.0, smallest=1 / steps, rho=1.0)
        end = flow(Process("flow"), lambda x, s: x * (1 - s) / (s**2 + (1 - s) ** 2), lambda: ONE)
        assert float(end) == pytest.approx(expected, abs=1e-6)


HO_ET_AL = np.linspace(1e-4, 0.02, 1000)  # beta_t, t = 1, ..., T


def test_an_ancestral_step_has_the_mean_and_variance_of_ho_et_al():
    """Their equations 6 and 7 in beta and abar, which the sampler does not have; at both ends and between."""
    abar, restored = np.cumprod(1.0 - HO_ET_AL), torch.tensor([-0.7, 0.0, 1.3], dtype=torch.float64)
    for t in (1, 400, 999):
        drawn, seen = iter(torch.tensor([[0.4, 1.0, -2.0], [1.5, -0.3, 0.8]], dtype=torch.float64)), []
        levels = [*np.sqrt(1.0 - abar[[t, t - 1]]).tolist(), 0.0]
        ancestral_sample(Process("vp"), levels, lambda x, _, s=seen: s.append(x) or restored, lambda d=drawn: next(d))
        x, after = seen
        mean = math.sqrt(abar[t - 1]) * HO_ET_AL[t] / (1 - abar[t]) * restored
        mean += math.sqrt(1 - HO_ET_AL[t]) * (1 - abar[t - 1]) / (1 - abar[t]) * x
        variance = (1 - abar[t - 1]) / (1 - abar[t]) * HO_ET_AL[t]
        expected = mean + math.sqrt(variance) * torch.tensor([1.5, -0.3, 0.8], dtype=torch.float64)
        torch.testing.assert_close(after, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["vp", "edm"])
def test_ancestral_samples_of_normal_data(kind):
    """Mean and variance of the samples of N(0.3, 0.5^2) are those of the chain, and nearly those of the data.

    The chain is linear where the network is exact: the mean is its answer to no noise, the variance the sum of the
    squares of its answers to each draw alone. By recursion: V' = (r b'^2 / b^2 + a' v g / b^2)^2 V + b'^2 v / b^2.
    """
    mean, std, process = 0.3, 0.5, Process(kind, 0.5)
    sampler = DDPM(None, levels=1000)
    if kind == "vp":  # the levels of Ho et al.
        sampler.levels = [*np.sqrt(1.0 - np.cumprod(1.0 - HO_ET_AL))[::-1].tolist(), 0.0]
    draws = iter(torch.eye(len(sampler.levels) - 1, len(sampler.levels), dtype=torch.float64))  # the last alone: none

    def gain(level):
        signal, noise = process.amplitudes(level)
        return signal, noise, signal * std**2 / ((signal * std) ** 2 + noise**2)

    def exact(x, level):
        signal, _, factor = gain(level)
        return mean + factor * (x - signal * mean)

    answers = sampler(process, exact, lambda: next(draws))
    found = float((answers[:-1] - answers[-1]).square().sum())
    expected = process.amplitudes(sampler.levels[0])[1] ** 2
    for level, after in zip(sampler.levels[:-2], sampler.levels[1:-1], strict=True):
        (a, b, g), (c, d, _) = gain(level), gain(after)
        added = b**2 - (a * d / c) ** 2
        expected = (a * d**2 / (c * b**2) + c * added * g / b**2) ** 2 * expected + d**2 * added / b**2
    expected *= gain(sampler.levels[-2])[2] ** 2
    assert found == pytest.approx(expected, rel=1e-9)
    assert 0.97 * std**2 < found < std**2
    assert float(answers[-1]) == pytest.approx(mean, abs=2e-3)
    assert next(draws, None) is None


def test_velocity_is_the_preconditioned_output_with_another_sign():
    """vp of level b is edm of sigma = b / sqrt(1 - b^2) with unit data, fields divided by sqrt(1 + sigma^2)."""
    x, b = torch.randn(4), torch.tensor(0.6)
    sigma = b / (1 - b**2).sqrt()
    vp = Process("vp").restored(lambda noisy: -noisy.sin(), x, b)
    edm = Process("edm").restored(lambda noisy: noisy.sin(), x * (1 + sigma**2).sqrt(), sigma)
    torch.testing.assert_close(vp, edm)


def test_levels_of_pde_refiner():
    """Of the published code, whose least noise is a variance: beta, cumulative products and noise."""
    levels = np.array(Refinement(None).levels[:-1])[::-1]
    products = 1.0 - levels**2
    np.testing.assert_allclose(products, [0.9999996, 0.99994531, 0.99257765, 0.0], atol=5e-9)
    np.testing.assert_allclose(levels, [6.3e-4, 7.4e-3, 0.086, 1.0], rtol=7e-3)
    betas = 1.0 - products / np.array([1.0, *products[:-1]])
    np.testing.assert_allclose(betas, [4e-7, 5.43e-5, 7.37e-3, 1.0], rtol=1e-3)
    paper = Refinement(None, smallest=1e-3, meaning="std").levels
    np.testing.assert_allclose(paper, [1.0, 0.1, 0.01, 0.001, 0.0], rtol=1e-12)


def test_the_clean_field_follows_from_velocity_and_noisy_field():
    """y = sqrt(abar) x - sqrt(1 - abar) v, exactly."""
    y, noise = torch.randn(2, 100, dtype=torch.float64)
    for level in Refinement(None).levels[:-1]:
        signal = math.sqrt(1.0 - level**2)
        velocity = signal * noise - level * y
        x = signal * y + level * noise
        got = Process("vp").restored(lambda _, v=velocity: v, x, torch.tensor(level, dtype=torch.float64))
        torch.testing.assert_close(got, y, rtol=0, atol=1e-12)


def test_levels_above_one_are_refused_where_levels_are_shares():
    with pytest.raises(ValueError, match="go from 1 down; the sampler begins at 80"):
        Euler(None)(Process("flow"), lambda x, s: x, lambda: ONE)
