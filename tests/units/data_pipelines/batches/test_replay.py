"""Replay: samples go on from predictions, in windows that follow these, however a step is split or interrupted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from data_pipelines.batches.archive import Archive
from data_pipelines.batches.rehearsal import ReplayedBatches
from data_pipelines.batches.windows import Windows
from data_pipelines.batches.world import VariableRoles, world_from_dataset
from emulators.grid import gaussian_grid
from emulators.interfaces import Replay
from emulators.layers.sample_draws import begin_samples
from emulators.objectives.forecast import Forecast
from emulators.state import State

GRID, SAMPLES, STEPS, LEADS = gaussian_grid(4), 4, 40, 5
KNOWN = {"replay": 0.7, "replay_steps": 3, "replay_leads": LEADS}


def windows_of(rollout: int, history: int = 1, stride: int = 1) -> Windows:
    """Windows of data whose value is the number of the time; there is a gap after the 30th."""
    numbers = np.delete(np.arange(60), 30)
    dataset = xr.Dataset(
        {"temperature": (("time", "latitude", "longitude"), numbers[:, None, None] * np.ones(GRID.shape))},
        {
            "time": np.datetime64("2001-01-01", "s") + numbers * np.timedelta64(6, "h"),
            "latitude": GRID.latitude,
            "longitude": GRID.longitude,
        },
    )
    world = world_from_dataset(dataset, VariableRoles(["temperature"]), history=history)
    return Windows(Archive(dataset, world), ["2001", "2001"], rollout=rollout, stride=stride)


class Counting(torch.nn.Module):
    """A step that adds 1, as the data do, and an error; it keeps what it was given first."""

    def __init__(self, error: float) -> None:
        super().__init__()
        self.error, self.given = error, list[torch.Tensor]()

    def forward(self, history, forcing):
        values = history[-1].values + 1 + self.error
        self.given.append(torch.stack([state.values[..., 0, 0, 0] for state in history], -1))
        return State(values, history[-1].variables, forcing.time)

    def comparable(self, state, target):
        return state


def squares(state: State, target: State) -> torch.Tensor:
    return (state.values - target.values).square().mean((-3, -2, -1))


def trained(error: float, *, passes=1, interrupted=None, history=1, stride=1, **options):
    """What each row of each step starts from, and the truth, (step, row, history), without the first error twice."""
    forecast = Forecast(windows_of(4, history).world, **{**KNOWN, **options})
    windows, portion = windows_of(forecast.longest, history, stride), SAMPLES // passes
    batches = ReplayedBatches(
        windows, portion, replay=Replay(*KNOWN.values()), samples=SAMPLES, length=forecast.length, seed=3,
        rollout=lambda number: forecast.length(number // passes),
    )  # fmt: skip
    starts, truths = [], []
    for number in range(STEPS):
        if number == interrupted:
            tensors, forecast = forecast.state(), Forecast(windows.world, **{**KNOWN, **options})
            forecast.restore(tensors)
        step = Counting(error)
        for part in range(passes):
            forecast.at(number)
            begin_samples(range(part * portion, (part + 1) * portion))
            window = batches.batch(number * passes + part)
            first = len(step.given)
            forecast(step, window, {"mse": squares})
            starts.append(step.given[first])
            truths.append(torch.stack([state.values[:, 0, 0, 0] for state in window.history], -1))
        forecast.follow(step)
    begin_samples(())
    return (torch.cat(side).reshape(STEPS, SAMPLES, history) for side in (starts, truths))


VARIANTS = [{}, {"rollout": [[0, 1], [15, 2]]}, {"history": 2}, {"stride": 3}]


@pytest.mark.parametrize("variant", VARIANTS)
def test_predictions_of_a_perfect_model_are_the_truth(variant):
    starts, truth = trained(0.0, **variant)
    assert torch.equal(starts, truth)


@pytest.mark.parametrize("variant", VARIANTS)
def test_samples_go_on_from_predictions_up_to_the_farthest_lead(variant):
    starts, truth = trained(0.25, **variant)
    leads = ((starts - truth) / 0.25)[..., -1]
    assert set(leads.unique().tolist()) >= {0.0, 1.0, 2.0, 3.0}
    assert leads.max() == LEADS
    assert (leads[: KNOWN["replay_steps"]] == 0).all()
    assert 0.3 < float((leads[3:] > 0).float().mean()) < KNOWN["replay"]  # some chains end with the data or at LEADS


@pytest.mark.parametrize("how", [{"passes": 2}, {"passes": 4}, {"interrupted": 20}])
@pytest.mark.parametrize("variant", VARIANTS[1:3])
def test_a_step_starts_alike_however_it_is_split_and_after_an_interruption(how, variant):
    for one, other in zip(trained(0.25, **variant), trained(0.25, **how, **variant), strict=True):
        assert torch.equal(one, other)


def test_of_an_ensemble_the_first_member_goes_on_and_broken_predictions_do_not():
    windows = windows_of(1)
    forecast = Forecast(windows.world, members=2, **{**KNOWN, "replay_steps": 1})
    following = windows.window(np.array([1, 5]))

    class Spread(Counting):
        def forward(self, history, forcing):
            values = history[-1].values + torch.tensor([2.0, 7.0]).reshape(2, 1, 1, 1, 1)
            values[:, 1] = torch.inf
            return State(values, history[-1].variables, forcing.time)

    spread = Spread(0.0)
    begin_samples(range(2))
    forecast.at(0)
    forecast(spread, windows.window(np.array([0, 4])), {"mse": squares})
    forecast.follow(None)
    forecast.at(1)
    (start,) = forecast.buffer.starts(following.history, (0, 1))
    assert start.values[:, 0, 0, 0].tolist() == [2.0, 5.0]  # the truth is 1 and 5
    assert forecast.buffer.starts(following.history, (1, 0))[0] is following.history[0]  # of other rows: other times
    begin_samples(())
    forecast.at(2)
    forecast(spread, following, {"mse": squares})  # outside of a training nothing is kept
    assert not forecast.buffer.pending
    begin_samples(range(2))
    without = Forecast(windows.world)
    without(spread, following, {"mse": squares})
    without.follow(None)
    assert without.state() == {}
    begin_samples(())


@pytest.mark.parametrize("options", [{"replay": 1.0}, {"replay": -0.1}, {"replay_steps": 0}, {"replay_leads": 0}])
def test_what_cannot_be_replayed_is_refused(options):
    with pytest.raises(ValueError, match=r"objective\.replay"):
        Forecast(windows_of(1).world, **{**KNOWN, **options})
