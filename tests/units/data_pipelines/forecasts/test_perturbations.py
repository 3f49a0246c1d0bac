"""Perturbed starts: their size and spectrum, reproducible one by one, and where they come from."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data_pipelines.forecasts.perturbations import (
    BredPerturbation,
    GaussianPerturbation,
    IsotropicFields,
    LaggedPerturbation,
    channel_std,
    error_times,
    one_step_errors,
)
from emulators.grid import gaussian_grid
from emulators.sphere.transform import SphericalHarmonics
from emulators.state import State
from emulators.variables import Variable, VariableSet
from emulators.world import World

GRID = gaussian_grid(8)
VARIABLES = VariableSet((Variable("a"), Variable("b")))
DAY = np.timedelta64(86_400, "s")
WORLD = World(GRID, VARIABLES, DAY)
START = np.datetime64("2001-01-01", "s")
INITS = START + np.arange(10, 14) * DAY
SPLITS = {"train": ["2001-01-01", "2001-01-05"], "validation": ["2001-01-06", "2001-01-09"]}


class Records:
    """An archive of 14 days of smooth noise."""

    world, origin, times = WORLD, "records", START + np.arange(14) * DAY

    def __init__(self):
        harmonics = SphericalHarmonics(GRID)
        noise = torch.randn(14, 2, *GRID.shape, generator=torch.Generator().manual_seed(0))
        coefficients = harmonics.coefficients(noise)
        degrees = torch.arange(harmonics.degrees)[:, None]
        self.values = harmonics.field(coefficients / (1 + degrees)).float() * torch.tensor([1.0, 5.0])[:, None, None]

    def has(self, times):
        number = (np.asarray(times) - START) / DAY
        return (number >= 0) & (number < 14)

    def states(self, times, variables=None):
        rows = ((np.asarray(times, "datetime64[s]") - START) / DAY).astype(int)
        assert (rows >= 0).all()
        return State(self.values[rows], VARIABLES, np.asarray(times, "datetime64[s]"))

    def history(self, times):
        return (self.states(times),)

    def forcing(self, times):
        return State(torch.zeros(len(times), 0, *GRID.shape), VariableSet(), np.asarray(times, "datetime64[s]"))


def doubling(history, forcing, **_):
    """A step that doubles every departure from 1, twice as fast in the second channel's northern row."""
    last = history[-1]
    return State(1 + (last.values - 1) * 2, VARIABLES, forcing.time, last.rank)


def starts(part, members, inits=INITS, seed=0):
    records = Records()
    make = part.prepare(doubling, records, SPLITS, inits, seed, "cpu")
    return make(inits, records.history(inits), members)[-1].values, records.states(inits).values


PARTS = [
    GaussianPerturbation(WORLD),
    BredPerturbation(WORLD, cycle="1d", cycles=3),
    LaggedPerturbation(WORLD, lag="1d"),
]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: type(part).__name__)
def test_a_member_starts_the_same_whatever_members_and_initial_times_the_job_has(part):
    everyone, known = starts(part, range(6))
    assert everyone.shape == (6, 4, 2, *GRID.shape)
    torch.testing.assert_close(everyone[0], known, rtol=0, atol=0)  # the control
    assert (everyone[1:] != known).any(dim=(1, 2, 3, 4)).all()
    for member in range(6):
        alone, _ = starts(part, range(member, member + 1), INITS[2:3])
        torch.testing.assert_close(alone[0, 0], everyone[member, 2], rtol=0, atol=0)


@pytest.mark.parametrize("part", PARTS[:2], ids=lambda part: type(part).__name__)
def test_pairs_are_centred_and_another_seed_gives_others(part):
    found, known = starts(part, range(3))
    torch.testing.assert_close(found[1] + found[2], 2 * known, rtol=1e-5, atol=1e-5)
    assert not torch.equal(found, starts(part, range(3), seed=1)[0])


def test_gaussian_fields_have_the_size_and_the_spectrum_of_the_one_step_error():
    records = Records()
    errors = one_step_errors(doubling, records, INITS, "cpu")
    expected = 1 + (records.values[9:13] - 1) * 2 - records.values[10:14]
    torch.testing.assert_close(errors, expected)
    fields = IsotropicFields(GRID, errors)
    drawn = torch.stack([fields.draw(torch.Generator().manual_seed(100 + n)) for n in range(400)])
    torch.testing.assert_close(channel_std(drawn, GRID), channel_std(errors, GRID), rtol=0.15, atol=0)
    harmonics = SphericalHarmonics(GRID)
    power = [harmonics.coefficients(some).abs().square().sum(-1).mean(0)[:, 1:] for some in (drawn, errors)]
    shares = [one / one.sum(-1, keepdim=True) for one in power]
    assert (shares[0] - shares[1]).abs().max() < 0.12


def test_bred_vectors_have_the_asked_size():
    part = BredPerturbation(WORLD, amplitude=0.3, cycle="1d", cycles=2)
    found, known = starts(part, range(2))
    times = error_times(Records(), SPLITS, "validation", 16)
    scale = channel_std(one_step_errors(doubling, Records(), times, "cpu"), GRID)
    weights = torch.as_tensor(GRID.weights, dtype=torch.float32)
    size = (((found[1] - known) / scale).square() * weights).mean(dim=(-3, -2, -1)).sqrt()
    torch.testing.assert_close(size, torch.full((4,), 0.3), rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("splits", "split", "cases", "days"),
    [
        (SPLITS, "validation", 16, [5, 6, 7, 8]),
        (SPLITS, "validation", 2, [5, 8]),
        (SPLITS, "train", 16, [1, 2, 3, 4]),  # nothing lies before the first time
        (SPLITS, "test", 16, [1, 2, 3, 4]),
        ({**SPLITS, "validation": ["1999", "1999"]}, "validation", 16, [1, 2, 3, 4]),
        ({}, "validation", 3, [1, 7, 13]),
    ],
)
def test_errors_are_measured_on_a_split_or_where_there_is_none_on_what_there_is(splits, split, cases, days):
    found = error_times(Records(), splits, split, cases)
    np.testing.assert_array_equal(found, START + np.array(days) * DAY)


def test_lagged_members_are_forecasts_from_earlier_analyses():
    found, _ = starts(LaggedPerturbation(WORLD, lag="1d"), range(3))
    expected = 1 + (Records().values[8:12] - 1) * 4
    torch.testing.assert_close(found[2], expected)


def test_data_that_do_not_reach_back_are_refused():
    for part in (BredPerturbation(WORLD, cycle="5d", cycles=3), LaggedPerturbation(WORLD, lag="11d")):
        with pytest.raises(ValueError, match=r"records has nothing at .*; start later, or lower perturbation\."):
            part.prepare(doubling, Records(), SPLITS, INITS, 0, "cpu")
    with pytest.raises(ValueError, match=r"perturbation.lag: expected whole timesteps"):
        LaggedPerturbation(WORLD, lag="6h")
    sparse = Records()
    sparse.times, sparse.has = sparse.times[:1], lambda times: np.asarray(times) == START
    with pytest.raises(ValueError, match="The error of one timestep is not known: records holds no two times 1d"):
        GaussianPerturbation(WORLD).prepare(doubling, sparse, SPLITS, INITS, 0, "cpu")


def test_on_a_circle_power_is_by_wavenumber():
    grid = SimpleNamespace(shape=(1, 32), weights=np.ones((1, 32)))
    waves = torch.cos(2 * torch.pi * 3 * torch.arange(32) / 32).expand(4, 1, 1, 32)
    drawn = IsotropicFields(grid, waves).draw(torch.Generator().manual_seed(0))
    power = torch.fft.rfft(drawn).abs().square()[0, 0]
    assert power[3] > 0.999 * power.sum()
