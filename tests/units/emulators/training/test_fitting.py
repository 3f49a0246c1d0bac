"""A training is fitted from built objects, without a configuration: as a notebook does it."""

import itertools
import signal

import numpy as np
import pytest
import torch

from data_pipelines.files.checkpoints import FORMAT, CheckpointFolder, load
from emulators.losses.lp import Lp
from emulators.models.linear import Linear
from emulators.models.unet import UNet
from emulators.objectives.forecast import Forecast
from emulators.state import State, Window
from emulators.steps.step import Step
from emulators.training.checkpointing import Checkpoints, TrainingStopped
from emulators.training.fitting import fit, solve
from emulators.training.lightning_module import Training
from emulators.training.optimizers import AdamW, Constant
from emulators.training.plan import Plan

PLAN = {"steps": 8, "validate_every": 4, "validation_lead": 1, "checkpoint_minutes": None}


def windows(world, count=4, seed=0):
    """Windows whose prognostic fields decay by a tenth over a timestep."""
    random = torch.Generator().manual_seed(seed)
    time = np.array(["2000-01-01", "2000-02-01"], "datetime64[s]")

    def window():
        known = torch.randn(2, world.prognostic.size, *world.grid.shape, generator=random)
        target = torch.cat([0.9 * known, known[:, : world.diagnostic.size]], dim=1)
        forcing = torch.randn(2, world.forcing.size, *world.grid.shape, generator=random)
        return Window(
            (State(known, world.prognostic, time),),
            (State(target, world.predicted, world.after(time)),),
            (State(forcing, world.forcing, world.after(time)),),
        )

    return [window() for _ in range(count)]


def training(world, **plan):
    torch.manual_seed(0)
    step = Step(world, UNet(world, channels=[8]))
    losses = {"mse": Lp(world)}
    return Training(
        step, Forecast(world), losses, AdamW(lr=1e-2), Constant(), Plan(**{**PLAN, **plan}), metadata={"format": FORMAT}
    )


@pytest.fixture
def world(small_world):
    return small_world("gaussian")


def endless(world, start=0):
    return itertools.islice(itertools.cycle(windows(world)), start, None)


def test_parts_built_directly_are_trained_and_signals_left_alone(world):
    before, handler = training(world), signal.getsignal(signal.SIGTERM)
    known = windows(world, 2, seed=1)
    trained = fit(training(world, steps=40), endless(world), validation=known)
    assert trained.finished
    assert trained.validated == 40
    assert signal.getsignal(signal.SIGTERM) is handler
    losses = [float(Forecast(world)(t.forecaster, known[0], {"mse": Lp(world)})[0].detach()) for t in (before, trained)]
    assert losses[1] < losses[0]


def test_a_resumed_training_repeats_the_whole_one(world, tmp_path):
    def run(folder, stop=None):
        checkpoints = Checkpoints(CheckpointFolder(folder), every=2)
        batches = endless(world)
        if stop is not None:
            batches = stopping(batches, checkpoints, stop)
        return fit(training(world), batches, validation=windows(world, 1), callbacks=[checkpoints])

    def stopping(batches, checkpoints, stop):
        for number, window in enumerate(batches):
            checkpoints.is_asked_to_stop = number >= stop
            yield window

    run(tmp_path / "whole")
    with pytest.raises(TrainingStopped):
        run(tmp_path / "half", stop=2)
    path = tmp_path / "half" / "last.ckpt"
    reached = load(path)["emul"]["step"]
    assert 0 < reached < 8
    again = Checkpoints(CheckpointFolder(tmp_path / "half"), every=2)
    fit(training(world), endless(world, reached), validation=windows(world, 1), callbacks=[again], resume=path)
    whole, half = (load(tmp_path / name / "last.ckpt") for name in ("whole", "half"))
    assert whole["emul"]["step"] == half["emul"]["step"] == 8
    for name, value in whole["state_dict"].items():
        assert torch.equal(half["state_dict"][name], value), name


def test_a_closed_form_is_solved_and_validated(world):
    step = Step(world, Linear(world))
    one = Training(step, Forecast(world), {"mse": Lp(world)}, AdamW(), Constant(), Plan(**PLAN))
    solved = solve(one, windows(world), validation=windows(world, 2, seed=1))
    assert solved.finished
    assert solved.validation["score"] < 0.2
