"""Time schemes: their order, their coefficients, and what they keep."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from data_pipelines.simulators.time_schemes import ExponentialRungeKutta, runge_kutta


def _order(errors):
    """Powers of the step by which errors of ever halved steps fall."""
    return [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]


def _bernoulli(y):
    return y * y


def test_runge_kutta_is_of_fourth_order():
    errors = []
    for steps in (20, 40, 80):
        y = torch.tensor([1.0, 0.5], dtype=torch.float64)
        for _ in range(steps):
            y = runge_kutta(lambda y: y * (1.0 - y * y), y, 2.0 / steps)
        exact = torch.tensor([1.0, 1.0 / math.sqrt(1.0 + 3.0 * math.exp(-4.0))], dtype=torch.float64)
        errors.append(float((y - exact).abs().max()))
    assert min(_order(errors)) > 3.8


def test_exponential_scheme_is_of_fourth_order_at_any_stiffness():
    """dy/dt = L y + y^2 from y0: y = L y0 e / (L + y0 - y0 e), e = exp(L t)."""
    rates, start, end = np.array([-20.0, -1.0, -1e-9]), 0.4, 1.0
    exact = rates * start * np.exp(rates * end) / (rates - start * np.expm1(rates * end))
    errors = []
    for steps in (20, 40, 80):
        scheme = ExponentialRungeKutta(rates, end / steps)
        y = torch.full((3,), start, dtype=torch.float64)
        for _ in range(steps):
            y = scheme(_bernoulli, y)
        errors.append(np.abs(y.numpy() / exact - 1.0))
    for number in range(3):
        assert min(_order([float(error[number]) for error in errors])) > 3.7, rates[number]


def test_exponential_scheme_without_a_linear_term_is_runge_kuttas():
    y = torch.linspace(-1.0, 1.0, 7, dtype=torch.float64)
    ours = ExponentialRungeKutta(np.zeros(7), 0.3)(torch.cos, y)
    torch.testing.assert_close(ours, runge_kutta(torch.cos, y, 0.3), rtol=1e-13, atol=1e-13)


def test_coefficients_are_those_of_the_formulas_where_these_can_be_trusted():
    z, step = np.array([-0.5, -3.0, -40.0, 2.0]), 0.7
    scheme, e = ExponentialRungeKutta(z / step, step), np.exp(z)
    expected = {
        "_partial": step * np.expm1(z / 2) / z,
        "_first": step * (-4 - z + e * (4 - 3 * z + z**2)) / z**3,
        "_middle": step * 2 * (2 + z + e * (z - 2)) / z**3,
        "_last": step * (-4 - 3 * z - z**2 + e * (4 - z)) / z**3,
    }
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(scheme, name).numpy(), values, rtol=1e-11, err_msg=name)


def test_fixed_points_stay():
    rate = np.array([-3.0, -300.0])
    rest = torch.tensor([3.0, 300.0], dtype=torch.float64)
    after = ExponentialRungeKutta(rate, 0.1)(_bernoulli, rest)
    torch.testing.assert_close(after, rest, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_result_is_of_the_dtype_asked_for(dtype):
    scheme = ExponentialRungeKutta(np.array([-1.0]), 0.1, dtype)
    assert scheme(_bernoulli, torch.ones(1, dtype=dtype)).dtype == dtype
