"""One-dimensional worlds: Lorenz 1996 and Kuramoto-Sivashinsky, their equations, invariants and chaos."""

import numpy as np
import pytest
import torch

from data_pipelines.sources.kuramoto_sivashinsky import KuramotoSivashinskyEquation
from data_pipelines.sources.lorenz96 import Lorenz96Equations


def leading_exponent(model, state, step, blocks, generator, size=1e-6, block=5):
    """Growth rate of differences that are brought back to `size` after every `block` steps (Benettin et al. 1980)."""

    def norm(difference):
        return difference.abs().square().flatten(1).sum(1).sqrt()[:, None]

    other = model.disturbed(state, size, generator)
    rates = []
    for _ in range(blocks):
        before = norm(other - state)
        for _ in range(block):
            state, other = model.step(state), model.step(other)
        after = norm(other - state)
        rates.append(torch.log(after / before).mean())
        other = state + (other - state) * (size / after)
    return float(torch.stack(rates[blocks // 8 :]).mean()) / (block * step)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(3)


def test_lorenz_tendency_is_that_of_the_printed_sum(generator):
    x = torch.randn(2, 7, generator=generator, dtype=torch.float64)
    ours = Lorenz96Equations(0.01, sectors=7, forcing=5.0).tendency(x)
    for k in range(7):
        printed = (x[:, (k + 1) % 7] - x[:, k - 2]) * x[:, k - 1] - x[:, k] + 5.0
        torch.testing.assert_close(ours[:, k], printed)


def test_two_scale_tendency_is_that_of_the_printed_sum(generator):
    model = Lorenz96Equations(0.001, sectors=5, forcing=9.0, fast=3, coupling=0.7, time_ratio=8.0, amplitude_ratio=6.0)
    state = torch.randn(1, 5, 4, generator=generator, dtype=torch.float64)
    x, y = state[0, :, 0], state[0, :, 1:].reshape(-1)  # Y runs on from one sector to the next
    ours, h, c, b = model.tendency(state)[0], 0.7, 8.0, 6.0
    for k in range(5):
        slow = x[k - 1] * (x[(k + 1) % 5] - x[k - 2]) - x[k] + 9.0 - h * c / b * y[3 * k : 3 * k + 3].sum()
        torch.testing.assert_close(ours[k, 0], slow)
        for j in range(3 * k, 3 * k + 3):
            fast = c * b * y[(j + 1) % 15] * (y[j - 1] - y[(j + 2) % 15]) - c * y[j] + h * c / b * x[k]
            torch.testing.assert_close(ours[k, 1 + j % 3], fast)


def test_advection_and_exchange_between_scales_keep_the_energy(generator):
    model = Lorenz96Equations(0.001, sectors=6, forcing=8.0, fast=4)
    state = torch.randn(3, 6, 5, generator=generator, dtype=torch.float64)
    gained = (state * model.tendency(state)).sum((1, 2))
    x, y = state[..., 0], state[..., 1:]
    forced_and_damped = 8.0 * x.sum(1) - x.square().sum(1) - model.time_ratio * y.square().sum((1, 2))
    torch.testing.assert_close(gained, forced_and_damped)


def test_lorenz_errors_double_in_two_days(generator):
    """Leading exponent 1.67 a unit of time at F = 8, K = 40 (Lorenz 1996; Karimi & Paul, doi 10.1063/1.3496397)."""
    model = Lorenz96Equations(0.02)
    state = model.disturbed(model.rest(48), 0.01, generator)
    for _ in range(750):
        state = model.step(state)
    assert abs(float(state.mean()) - 2.35) < 0.1
    assert abs(float(state.std()) - 3.64) < 0.1
    assert abs(leading_exponent(model, state, 0.02, 240, generator) - 1.67) < 0.08


def test_small_scale_follows_the_large_one(generator):
    model = Lorenz96Equations(0.0025, sectors=36, forcing=10.0, fast=10)
    state = model.disturbed(model.rest(8), 0.01, generator)
    slow, subgrid = [], []
    for step in range(4000):
        state = model.step(state)
        if step > 2000 and step % 40 == 0:
            slow.append(state[..., 0].flatten())
            subgrid.append(model.subgrid_tendency(state).flatten())
    pair = torch.stack([torch.cat(slow), torch.cat(subgrid)])
    assert float(torch.corrcoef(pair)[0, 1]) < -0.6
    assert 0.1 < float(state[..., 1:].std()) < 0.8


def test_waves_grow_and_decay_at_the_linear_rate():
    model = KuramotoSivashinskyEquation(64, 22.0, 0.125)
    state = model.rest(1)
    waves = torch.arange(33, dtype=torch.float64) * 2.0 * torch.pi / 22.0
    state[0, 1:12] = 1e-9
    later = state
    for _ in range(8):
        later = model.step(later)
    expected = torch.exp(waves[1:12] ** 2 - waves[1:12] ** 4)
    torch.testing.assert_close((later / 1e-9)[0, 1:12].real, expected, rtol=1e-6, atol=1e-9)


def _developed(model, members, generator, units=150.0):
    state = model.disturbed(model.rest(members), 1.0, generator)
    for _ in range(int(units / model.timestep)):
        state = model.step(state)
    return state


def test_energy_comes_from_long_waves_and_goes_into_short_ones(generator):
    """d<u^2>/dt / 2 = <(du/dx)^2> - <(d2u/dx2)^2>: advection moves energy, and makes none."""
    model = KuramotoSivashinskyEquation(64, 22.0, 0.001)
    coarse = KuramotoSivashinskyEquation(64, 22.0, 0.125)
    before = _developed(coarse, 4, generator)
    middle = model.step(before)
    after = model.step(middle)

    def energy(state):
        return 0.5 * model.field(state).square().mean(1)

    wave = torch.arange(33, dtype=torch.float64) * 2.0 * torch.pi / 22.0
    slope, bend = (model.field((1j * wave) ** power * middle) for power in (1, 2))
    due = slope.square().mean(1) - bend.square().mean(1)
    torch.testing.assert_close((energy(after) - energy(before)) / 0.002, due, rtol=1e-4, atol=1e-4)
    assert float(model.field(after).mean(1).abs().max()) < 1e-14


def test_fronts_have_their_spectrum_and_do_not_feel_the_resolution(generator):
    model = KuramotoSivashinskyEquation(64, 22.0, 0.125)
    state = _developed(model, 16, generator)
    power = []
    for _ in range(400):
        state = model.step(state)
        power.append(state.abs().square().mean(0))
    power = torch.stack(power).mean(0)
    assert int(power.argmax()) in (2, 3)  # the most unstable wave, 22 / (2 pi sqrt 2) = 2.5
    assert (power[4:20].diff() < 0.0).all()
    assert float(power[20] / power.max()) < 1e-10
    fine, finer = KuramotoSivashinskyEquation(128, 22.0, 0.125), torch.zeros(16, 65, dtype=torch.complex128)
    finer[:, :22] = 2.0 * state[:, :22]
    for _ in range(80):
        state, finer = model.step(state), fine.step(finer)
    torch.testing.assert_close(fine.field(finer)[:, ::2], model.field(state), rtol=0.0, atol=1e-6)


def test_time_step_of_the_fronts_is_of_fourth_order(generator):
    start = _developed(KuramotoSivashinskyEquation(64, 22.0, 0.125), 2, generator)
    ends = []
    for steps in (64, 128, 256, 1024):
        model, state = KuramotoSivashinskyEquation(64, 22.0, 1.0 / steps), start
        for _ in range(steps):
            state = model.step(state)
        ends.append(model.field(state))
    errors = [float((end - ends[-1]).abs().max()) for end in ends[:-1]]
    orders = [np.log2(errors[0] / errors[1]), np.log2(errors[1] / errors[2])]
    assert 3.2 < orders[0] < orders[1]  # stiff waves reach the fourth order late
    assert orders[1] > 3.5


def test_fronts_are_weakly_chaotic(generator):
    """Leading exponent at length 22: 0.043 to 0.048 a unit of time in the literature named in the module."""
    model = KuramotoSivashinskyEquation(64, 22.0, 0.25)
    state = _developed(model, 96, generator)
    assert 0.038 < leading_exponent(model, state, 0.25, 500, generator) < 0.056


def test_sample_is_one_row_of_latitude(generator):
    waves = KuramotoSivashinskyEquation(32, 12.0, 0.1)
    assert waves.sample(waves.rest(2))["velocity"].shape == (2, 1, 32)
    model = Lorenz96Equations(0.01, sectors=6, fast=2)
    state = model.disturbed(model.rest(3), 1.0, generator)
    sample = model.sample(state)
    assert {name: field.shape for name, field in sample.items()} == {
        "slow_variable": (3, 1, 6),
        "fast_variable": (3, 2, 1, 6),
        "subgrid_tendency": (3, 1, 6),
    }
    assert sample["fast_variable"][1, 1, 0, 4] == np.float32(state[1, 4, 2])
