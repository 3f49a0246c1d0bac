"""Training as a user runs it: exact continuation after a kill, clean stops, closed forms, refusals."""

import csv
import os
import signal
import time

import numpy as np
import pytest
import torch

import warm_starts
from data_pipelines.conventions.suggestions import ConfigErrors
from data_pipelines.files import checkpoints
from emul.checks.networks import template_world
from emul.config.compose import compose
from emul.main import main
from emul.train import train
from emul.training.assembly import build_training
from emul.training.runs import open_run
from emulators.training.lightning_module import Training

TINY = ["data=planet_tiny", "model=sfno", "model.embed=8", "model.layers=1", "hardware.threads=1"]
SHORT = ["training.steps=12", "training.batch_size=4", "training.validate_every=5", "training.validation_cases=4"]


def overrides(tmp_path, name, *more):
    return [*TINY, *SHORT, f"output={tmp_path}", f"name={name}", *more]


def weights(folder, checkpoint="last"):
    return checkpoints.load(folder / "checkpoints" / f"{checkpoint}.ckpt")


def assert_same(one, two):
    assert one["emul"]["step"] == two["emul"]["step"]
    for name in one["state_dict"]:
        assert torch.equal(one["state_dict"][name], two["state_dict"][name]), name
    assert one["objective"].keys() == two["objective"].keys()
    assert all(torch.equal(value, two["objective"][name]) for name, value in one["objective"].items())
    moments = [c["optimizer_states"][0]["state"] for c in (one, two)]
    for index, values in moments[0].items():
        for name, value in values.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(moments[1][index][name]))


def test_a_run_folder_holds_all_that_is_needed(tmp_path):
    folder = train(compose("train", overrides(tmp_path, "a")))
    card = weights(folder)["emul"]
    assert card["finished"]
    assert card["step"] == 12
    assert (folder / "config.yaml").read_text() == card["config"]
    rows = list(csv.DictReader(open(folder / "metrics.csv")))
    steps = [int(row["step"]) for row in rows]
    assert steps == sorted(steps)
    scores = [float(row["score"]) for row in rows if row.get("score")]
    assert len(scores) == 3  # at 5, 10 and the last step
    assert card["best"] == min(scores)
    assert any((folder / "tensorboard").iterdir())
    run = open_run(folder)
    assert run.world.scales.keys() >= set(run.world.prognostic.channels)
    assert not run.step.training


@pytest.mark.slow
@pytest.mark.parametrize(
    "extra",
    [
        [],
        [
            "training.accumulate=2",
            "objective.rollout=[[0, 1], [6, 2]]",
            "objective.replay=0.6",
            "objective.replay_steps=2",
        ],
    ],
    ids=["plain", "replayed"],
)
def test_killed_and_run_again_is_bit_identical(tmp_path, extra):
    more = ["training.checkpoint_every=4", *extra]
    whole = train(compose("train", overrides(tmp_path, "whole", *more)))
    arguments = overrides(tmp_path, "killed", "training.steps=12", *more)
    killed = tmp_path / "train" / "killed"
    process = warm_starts.begin("train", *arguments)
    warm_starts.wait_until((killed / "checkpoints" / "last.ckpt").exists, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    reached = weights(killed)["emul"]["step"]
    assert 0 < reached
    train(compose("train", arguments))
    assert_same(weights(whole), weights(killed))
    best = [weights(folder, "best")["emul"]["weights"] for folder in (whole, killed)]
    assert all(torch.equal(best[0][name], best[1][name]) for name in best[0])
    steps = [int(row["step"]) for row in csv.DictReader(open(killed / "metrics.csv"))]
    assert steps == sorted(steps)


SWITCH = ["loss=[mse,amse]", "loss.mse.end=0.5", "loss.amse.start=0.5", "loss.amse.weight=0.5", "training.log_every=1"]


@pytest.mark.slow
def test_losses_switch_at_their_step_and_an_interrupted_training_switches_alike(tmp_path, monkeypatch):
    from emulators.losses.amse import AMSE

    more = ["training.checkpoint_every=4", *SWITCH]
    whole = train(compose("train", overrides(tmp_path, "whole", *more)))
    rows = [row for row in csv.DictReader(open(whole / "metrics.csv")) if row.get("loss")]
    assert [bool(row["mse_1"]) for row in rows] == [True] * 6 + [False] * 6
    assert [bool(row["amse_1"]) for row in rows] == [False] * 6 + [True] * 6
    assert all(float(row["loss"]) == float(row["mse_1"] or row["amse_1"]) for row in rows)

    forward = AMSE.forward

    def broken(self, prediction, target):
        if torch.is_grad_enabled():  # not in the check before the training
            raise RuntimeError("the power went out")
        return forward(self, prediction, target)

    arguments = overrides(tmp_path, "halted", *more)
    with monkeypatch.context() as patch:
        patch.setattr(AMSE, "forward", broken)
        with pytest.raises(RuntimeError, match="power"):
            train(compose("train", arguments))
    assert weights(tmp_path / "train" / "halted")["emul"]["step"] == 4
    assert_same(weights(whole), weights(train(compose("train", arguments))))


@pytest.mark.slow
def test_an_interrupted_training_in_two_stages_goes_on_with_the_translator_at_rest(tmp_path, monkeypatch):
    from emulators.objectives.two_stage import TwoStage

    network = ["model=met2net_small", "history=2", "model.embed=16", "model.depth=1", "objective=two_stage"]
    more = ["training.steps=6", "training.checkpoint_every=3", *network]
    arguments = [text for text in overrides(tmp_path, "whole", *more) if text not in TINY[1:4]]
    whole = weights(train(compose("train", arguments)))

    seen, forward = [], TwoStage.forward

    def broken(*given):
        seen.append(given)
        if len(seen) > 4:
            raise RuntimeError("the power went out")
        return forward(*given)

    arguments = [text.replace("name=whole", "name=halted") for text in arguments]
    with monkeypatch.context() as patch:
        patch.setattr(TwoStage, "forward", broken)
        with pytest.raises(RuntimeError, match="power"):
            train(compose("train", arguments))
    assert weights(tmp_path / "train" / "halted")["emul"]["step"] == 3
    assert_same(whole, weights(train(compose("train", arguments))))
    parts = ("objective.at_rest", "step.network.translator")
    assert not torch.equal(*(whole["state_dict"][f"{part}.into.weight"] for part in parts))


def test_losses_that_leave_a_gap_are_refused(tmp_path):
    with pytest.raises(ConfigErrors, match="No loss counts at step 6 of 12"):
        train(compose("train", overrides(tmp_path, "a", "loss.mse.end=0.5")))


def test_an_error_of_torch_is_told_as_it_is(tmp_path, monkeypatch, capsys):
    def fit(*args, **kwargs):
        raise RuntimeError("an error of a peer's network")

    monkeypatch.setattr("emul.train.fit", fit)
    assert main(["train", *overrides(tmp_path, "x")]) == 1
    told = capsys.readouterr().err
    assert "RuntimeError: an error of a peer's network" in told
    assert "RecursionError" not in told


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_leaves(tmp_path, number, code):
    arguments = overrides(tmp_path, "stopped", "training.steps=100000", "training.checkpoint_every=3")
    folder = tmp_path / "train" / "stopped"
    process = warm_starts.begin("train", *arguments)
    warm_starts.wait_until((folder / "checkpoints" / "last.ckpt").exists, process)
    time.sleep(0.5)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    step = weights(folder)["emul"]["step"]
    assert f"Stopped at step {step}" in said
    assert process.returncode == code
    assert "Traceback" not in said


@pytest.mark.slow
def test_same_seed_same_weights_other_seed_other(tmp_path):
    one, two, other = (
        weights(train(compose("train", overrides(tmp_path, name, f"seed={seed}"))))["emul"]["weights"]
        for name, seed in (("one", 1), ("two", 1), ("other", 2))
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("model", ["persistence", "climatology", "linear"])
def test_closed_forms_are_solved_at_once(tmp_path, model):
    settings = ["data=planet_tiny", f"model={model}", f"output={tmp_path}", *SHORT]
    folder = train(compose("train", settings))
    run = open_run(folder)
    assert run.card["finished"]
    assert np.isfinite(run.card["validation"]["score"])


def test_linear_beats_persistence_at_one_step(tmp_path):
    first = {}
    for model in ("persistence", "linear"):
        settings = ["data=planet_tiny", f"model={model}", f"output={tmp_path}", *SHORT]
        first[model] = open_run(train(compose("train", settings))).card["validation"]["score_1"]
    assert first["linear"] < 0.9 * first["persistence"]


@pytest.mark.slow
def test_stopped_before_the_last_validation(tmp_path, monkeypatch):
    """A checkpoint of the last step is no finished training as long as its validation is missing."""
    more = ["training.checkpoint_every=4"]
    whole = train(compose("train", overrides(tmp_path, "whole", *more)))
    with monkeypatch.context() as patch:
        patch.setattr("pytorch_lightning.Trainer.validate", cut)
        with pytest.raises(OSError, match="power cut"):
            train(compose("train", overrides(tmp_path, "cut", *more)))
    assert weights(tmp_path / "train" / "cut")["emul"]["step"] == 12
    assert not weights(tmp_path / "train" / "cut")["emul"]["finished"]
    again = train(compose("train", overrides(tmp_path, "cut", *more)))
    assert weights(again)["emul"]["finished"]
    assert weights(again)["emul"]["validation"] == weights(whole)["emul"]["validation"]
    assert weights(again)["emul"]["best"] == weights(whole)["emul"]["best"]
    assert_same(weights(whole), weights(again))


def cut(*args, **kwargs):
    raise OSError("power cut")


def told_to_stop(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGTERM)


def validations(folder):
    return [(row["step"], row["score"]) for row in csv.DictReader(open(folder / "metrics.csv")) if row["score"]]


@pytest.mark.slow
@pytest.mark.parametrize("end", [cut, told_to_stop])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_validation_that_was_broken_off_is_made_in_the_end(tmp_path, monkeypatch, end, accumulate):
    more = ["training.checkpoint_every=5", f"training.accumulate={accumulate}"]
    whole = train(compose("train", overrides(tmp_path, "whole", *more)))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    calm = Training.on_validation_epoch_start
    with monkeypatch.context() as patch:
        patch.setattr(Training, "on_validation_epoch_start", lambda self: (calm(self), end()))
        with pytest.raises((OSError, SystemExit)):
            train(compose("train", overrides(tmp_path, "broken", *more)))
    assert weights(tmp_path / "train" / "broken")["emul"]["step"] == 5
    assert not validations(tmp_path / "train" / "broken")
    again = train(compose("train", overrides(tmp_path, "broken", *more)))
    for number, handler in handlers.items():
        signal.signal(number, handler)
    assert validations(again) == validations(whole)
    assert_same(weights(whole), weights(again))


def test_mixed_precision_clips_and_trains(tmp_path):
    folder = train(compose("train", overrides(tmp_path, "a", "hardware.precision=bf16-mixed")))
    assert np.isfinite(weights(folder)["emul"]["validation"]["score"])


@pytest.mark.slow
def test_what_follows_reads_the_config_of_the_latest_command(tmp_path):
    train(compose("train", overrides(tmp_path, "a")))
    folder = train(compose("train", overrides(tmp_path, "a", "forecast.lead=3d")))
    assert "lead: 3d" in (folder / "config.yaml").read_text()


def test_losses_go_where_the_network_goes():
    config = compose("train", TINY)
    module = build_training(config, template_world(config))
    buffers = {id(buffer) for buffer in module.buffers()}
    assert all(id(buffer) in buffers for loss in module.losses.values() for buffer in loss.buffers())
    assert "loss_modules" not in " ".join(module.state_dict())


def test_another_config_in_the_same_folder_is_refused(tmp_path):
    train(compose("train", overrides(tmp_path, "a")))
    with pytest.raises(ValueError, match=r"optimizer\.lr was 0\.001"):
        train(compose("train", overrides(tmp_path, "a", "optimizer.lr=0.5")))


def test_a_failing_logger_does_not_stop_a_training(tmp_path, monkeypatch):
    from emul.training.loggers import MetricsFile

    def fail(*args, **kwargs):
        raise OSError("disk of the logger is gone")

    monkeypatch.setattr(MetricsFile, "log_metrics", fail)
    with pytest.warns(UserWarning, match="could not log"):
        folder = train(compose("train", overrides(tmp_path, "a")))
    assert weights(folder)["emul"]["finished"]


def test_a_batch_that_does_not_divide_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"training\.batch_size must divide"):
        train(compose("train", overrides(tmp_path, "a", "training.accumulate=3")))


def test_a_loss_that_breaks_ends_the_training_and_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    from emulators.losses.lp import Lp

    calm = Lp.forward
    calls = []

    def breaks(self, prediction, target):
        calls.extend([1] if torch.is_grad_enabled() else [])  # the check before the training has none
        return calm(self, prediction, target) * (float("nan") if len(calls) > 6 else 1.0)

    monkeypatch.setattr(Lp, "forward", breaks)
    with pytest.raises(ValueError, match="At step 7 the gradient's norm is nan"):
        train(compose("train", overrides(tmp_path, "a", "training.checkpoint_every=4", "training.log_every=4")))
    card = weights(tmp_path / "train" / "a")["emul"]
    assert card["step"] == 4
    assert all(value.isfinite().all() for value in card["weights"].values())
