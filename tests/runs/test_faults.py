"""What may go wrong in a training, and what it then costs: each fault is named, and nothing saved is lost."""

import csv
import errno
import math
import os
import signal
import socket
import subprocess
import sys
import time
import warnings

import pytest
import torch
from omegaconf import OmegaConf

from data_pipelines.files import checkpoints
from data_pipelines.files.atomic import is_locked, lock_or_refuse, wait_for_turn
from data_pipelines.files.identity import listed
from data_pipelines.files.tables import read_rows
from emul.config.compose import compose
from emul.train import train
from emul.training.continuation import changes
from emul.training.loggers import PATIENCE, InterruptibleCheckpoints
from emulators.losses.lp import Lp
from emulators.training.plan import Plan

SETTINGS = [
    "data=planet_tiny", "model=sfno", "model.embed=8", "model.layers=1", "hardware.threads=1", "training.steps=8",
    "training.batch_size=4", "training.validate_every=4", "training.validation_cases=2", "training.validation_lead=2",
    "training.checkpoint_every=2", "training.log_every=2", "logger=[csv]",
]  # fmt: skip


def overrides(tmp_path, name="a", *more):
    return [*SETTINGS, f"output={tmp_path}", f"name={name}", *more]


def last(folder):
    return checkpoints.load(folder / "checkpoints" / "last.ckpt")


def broken_at(call, until=None):
    """Losses that are not a number at the given call, or from it on until another."""
    calm, calls = Lp.forward, []

    def forward(self, prediction, target):
        calls.extend([1] if torch.is_grad_enabled() else [])  # the check before the training has none
        return calm(self, prediction, target) * (math.nan if call <= len(calls) <= (until or call) else 1.0)

    return forward


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """A training that broke at step 5: its checkpoints are of steps 2 and 4."""
    with monkeypatch.context() as patch:
        patch.setattr(Lp, "forward", broken_at(5))
        with pytest.raises(ValueError, match="At step 5"):
            train(compose("train", overrides(tmp_path)))
    return tmp_path / "train" / "a"


@pytest.mark.slow
def test_a_broken_loss_is_told_with_step_batch_and_place(tmp_path, monkeypatch):
    monkeypatch.setattr(Lp, "forward", broken_at(5, until=99))
    with pytest.raises(ValueError, match=r"At step 5 .* is nan \(batch of \d{4}-.*; the loss itself\)") as caught:
        train(compose("train", overrides(tmp_path)))
    assert "the last checkpoint is kept" in str(caught.value)
    card = last(tmp_path / "train" / "a")["emul"]
    assert card["step"] == 4
    assert all(value.isfinite().all() for value in card["weights"].values())


@pytest.mark.slow
def test_a_broken_layer_is_named(tmp_path, monkeypatch):
    from emulators.layers.spectral_layers import SpectralFilter

    calm, calls = SpectralFilter.forward, []

    def forward(self, *args, **kwargs):
        calls.append(1)
        made = calm(self, *args, **kwargs)
        return tuple(m * math.nan for m in made) if len(calls) > 3 else made

    monkeypatch.setattr(SpectralFilter, "forward", forward)
    with pytest.raises(ValueError, match=r"the layer network\.blocks\.0"):
        train(compose("train", overrides(tmp_path)))


@pytest.mark.slow
def test_a_broken_step_is_skipped_where_that_was_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(Lp, "forward", broken_at(5))
    with pytest.warns(UserWarning, match="Step 5 is skipped"):
        folder = train(compose("train", overrides(tmp_path, "a", "training.broken=skip")))
    card = last(folder)["emul"]
    assert card["finished"]
    assert card["step"] == 8
    assert all(value.isfinite().all() for value in card["weights"].values())


@pytest.mark.slow
def test_a_truncated_checkpoint_falls_back_to_the_one_before(stopped, tmp_path, capsys):
    path = stopped / "checkpoints" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:3000])
    whole = train(compose("train", overrides(tmp_path, "whole")))
    again = train(compose("train", overrides(tmp_path)))
    said = capsys.readouterr().err
    assert "truncated" in said
    assert "Going on from previous.ckpt, step 2" in said
    for name, value in last(whole)["state_dict"].items():
        assert torch.equal(value, last(again)["state_dict"][name]), name


@pytest.mark.slow
def test_two_truncated_checkpoints_are_refused(stopped, tmp_path):
    for name in ("last.ckpt", "previous.ckpt"):
        (stopped / "checkpoints" / name).write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"Remove .* to train anew"):
        train(compose("train", overrides(tmp_path)))


@pytest.mark.slow
def test_a_full_disk_leaves_the_old_checkpoint_and_the_training_goes_on(tmp_path, monkeypatch, capsys):
    whole, calls = os.fsync, []

    def full(file):
        calls.append(1)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        whole(file)

    monkeypatch.setattr(os, "fsync", full)
    folder = train(compose("train", overrides(tmp_path)))
    assert "No space left" in capsys.readouterr().err
    assert last(folder)["emul"]["finished"]
    assert not list((folder / "checkpoints").glob(".*.partial"))


def test_several_signals_are_one_request_but_for_the_impatient(tmp_path, monkeypatch):
    sent = []
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    monkeypatch.setattr(os, "kill", lambda process, number: sent.append(number))
    keeper = InterruptibleCheckpoints(tmp_path, Plan())
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGUSR1):
        keeper.ask(number, None)
    assert (keeper.signalled, sent) == (signal.SIGTERM, [])
    keeper.ask(signal.SIGINT, None)
    keeper.asked_at -= 2 * PATIENCE
    keeper.ask(signal.SIGTERM, None)
    assert sent == [signal.SIGINT, signal.SIGTERM]


@pytest.mark.slow
def test_what_follows_a_training_hears_signals_as_before(tmp_path):
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    train(compose("train", overrides(tmp_path)))
    assert [signal.getsignal(number) for number in numbers] == before


@pytest.mark.slow
@pytest.mark.parametrize("minutes", ["1e-9", "null"])
def test_checkpoints_are_kept_by_the_clock(tmp_path, minutes):
    clock = ["training.checkpoint_every=null", f"training.checkpoint_minutes={minutes}"]
    folder = train(compose("train", overrides(tmp_path, "a", *clock)))
    assert last(folder)["emul"]["finished"]
    previous = folder / "checkpoints" / "previous.ckpt"  # of the last step, before the last validation
    assert previous.exists() == (minutes != "null")
    if previous.exists():
        assert checkpoints.load(previous)["emul"]["step"] == 8


@pytest.mark.slow
def test_what_a_killed_writer_left_is_removed(tmp_path):
    left = tmp_path / "train" / "a" / "checkpoints" / ".last.ckpt.1.partial"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    train(compose("train", overrides(tmp_path)))
    assert not left.exists()


@pytest.mark.slow
def test_an_exploding_forecast_is_logged_and_the_training_goes_on(tmp_path, monkeypatch):
    from emulators.steps.step import Step

    calm, calls = Step.forward, []

    def forward(self, history, forcing):
        state = calm(self, history, forcing)
        if self.training:
            return state
        calls.append(1)
        return state.with_(temperature=state["temperature"] * math.inf) if len(calls) == 1 else state

    monkeypatch.setattr(Step, "forward", forward)
    with pytest.warns(UserWarning, match=r"step 4 explodes: temperature_\d+ is not finite at lead 1"):
        folder = train(compose("train", overrides(tmp_path)))
    scores = [row["score"] for row in read_rows(folder / "metrics.csv") if "score" in row]
    assert math.isinf(scores[0])
    assert math.isfinite(scores[1])
    assert last(folder)["emul"]["best"] == scores[1]


@pytest.mark.slow
def test_loggers_that_fail_do_not_stop_a_training(tmp_path, monkeypatch):
    import pytorch_lightning.loggers

    import data_pipelines.pictures.curves
    import emul.checks.examination

    def fail(*args, **kwargs):
        raise OSError("the disk of the logger is gone")

    monkeypatch.setattr(data_pipelines.pictures.curves, "draw_training", fail)
    monkeypatch.setattr(emul.checks.examination, "find_spec", lambda package: package)
    monkeypatch.setattr(pytorch_lightning.loggers, "MLFlowLogger", fail)
    monkeypatch.setattr(pytorch_lightning.loggers, "WandbLogger", fail)
    obstacle = tmp_path / "train" / "a" / "tensorboard"
    obstacle.parent.mkdir(parents=True)
    obstacle.write_text("a file where a folder should be")
    names = ["tensorboard", "curves", "mlflow", "wandb"]
    with pytest.warns(UserWarning, match=r"logger\.(tensorboard|curves) failed") as warned:
        folder = train(compose("train", overrides(tmp_path, "a", f"logger=[csv,{','.join(names)}]")))
    told = [str(one.message).split()[0] for one in warned if "failed and is left out" in str(one.message)]
    assert sorted(told) == sorted(f"logger.{name}" for name in names)  # each once
    assert last(folder)["emul"]["finished"]
    assert len(read_rows(folder / "metrics.csv")) > 3


@pytest.mark.slow
@pytest.mark.parametrize("package", ["mlflow", "wandb"])
def test_a_training_that_goes_on_logs_to_the_same_run(tmp_path, monkeypatch, package):
    pytest.importorskip(package, reason=f"needs {package}, which is optional")
    words = overrides(tmp_path, "a", f"logger=[csv,{package}]")
    with monkeypatch.context() as patch:
        patch.setattr(Lp, "forward", broken_at(5))
        with pytest.raises(ValueError, match="At step 5"):
            train(compose("train", words))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "logger")
        folder = train(compose("train", words))
    if package == "wandb":
        runs = {run.name.rpartition("-")[2] for run in (folder / "wandb").glob("offline-run-*")}
        assert len(runs) == 1  # the name by which `wandb sync` joins them
        return
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("emul").experiment_id])
    history = {one.step: one.value for one in client.get_metric_history(run.info.run_id, "score")}
    assert history == {row["step"]: row["score"] for row in read_rows(folder / "metrics.csv") if "score" in row}


@pytest.mark.slow
def test_curves_are_drawn(tmp_path):
    folder = train(compose("train", overrides(tmp_path, "a", "logger=[csv,curves]")))
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_jump_of_the_clock_changes_nothing(tmp_path, monkeypatch):
    whole = train(compose("train", overrides(tmp_path, "whole")))
    calm, hours = time.time, iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: calm() + 3600.0 * (-1) ** next(hours) * next(hours))
    jumped = train(compose("train", overrides(tmp_path, "jumped")))
    for name, value in last(whole)["state_dict"].items():
        assert torch.equal(value, last(jumped)["state_dict"][name]), name


def test_two_runs_in_one_folder_are_refused(tmp_path):
    target = tmp_path / "train" / "a"
    holder = "import sys, time; from pathlib import Path; from data_pipelines.files.atomic import lock_or_refuse\n"
    holder += "with lock_or_refuse(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", holder, str(target)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    try:
        assert is_locked(target)
        with pytest.raises(ValueError, match=f"Process {process.pid} on .* is training in"):
            train(compose("train", overrides(tmp_path)))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not is_locked(target)  # what a killed process leaves holds nobody up
    with lock_or_refuse(target):
        pass


@pytest.mark.slow
def test_another_config_is_shown_as_a_difference_and_taken_only_when_said(stopped, tmp_path, capsys):
    with pytest.raises(ValueError, match=r"training\.clip was 1\.0, is 0\.5.*resume=changed"):
        train(compose("train", overrides(tmp_path, "a", "training.clip=0.5")))
    with pytest.raises(ValueError, match=r"hardware\.precision was 32, is bf16-mixed"):
        train(compose("train", overrides(tmp_path, "a", "hardware.precision=bf16-mixed")))
    folder = train(compose("train", overrides(tmp_path, "a", "training.clip=0.5", "resume=changed")))
    assert "goes on with another config, as asked: training.clip was 1.0, is 0.5" in capsys.readouterr().err
    assert last(folder)["emul"]["finished"]


def test_of_many_differences_the_first_are_told_without_what_their_parts_tell(tmp_path):
    before, now = {"clip": 1.0, "constraint": {}}, {"constraint": {"a": {"x": 1}, "b": {f"y{n}": n for n in range(5)}}}
    free = {"resume": None}
    said = listed(changes(OmegaConf.create(before | free), OmegaConf.create(now | free), tmp_path, None, {}))
    assert "clip was 1.0, is gone; constraint.a.x was not there, is 1; constraint.b.y0 was not there, is 0;" in said
    assert "constraint.b.y2 was not there, is 2; and 2 more" in said


def test_an_option_that_came_later_is_no_difference_where_it_has_its_default(tmp_path):
    def config(**options):
        return OmegaConf.create(
            {"resume": None, "loader": {"_target_": "data_pipelines.batches.loader.LoaderSettings", **options}}
        )

    def found(before, now):
        return changes(before, now, tmp_path, None, {})

    assert found(config(gigabytes=4.0), config(gigabytes=4.0, stride=1)) == []
    assert found(config(gigabytes=4.0), config(gigabytes=4.0, stride=4)) == ["loader.stride was 1, is 4"]
    assert "loader._target_ was not there" in listed(found(OmegaConf.create({"resume": None}), config()))


@pytest.mark.slow
def test_another_number_of_threads_is_told(stopped, tmp_path, capsys):
    train(compose("train", overrides(tmp_path, "a", "hardware.threads=2")))
    torch.set_num_threads(1)
    assert "hardware.threads was 1, is 2" in capsys.readouterr().err


@pytest.mark.parametrize("fault", [errno.ENOLCK, errno.ENOSYS])
def test_where_locks_are_unknown_the_named_process_is_looked_for(tmp_path, monkeypatch, fault):
    def unknown(*args):
        raise OSError(fault, "no locks here")

    monkeypatch.setattr("data_pipelines.files.atomic.fcntl.flock", unknown)
    host = socket.gethostname()
    for holder, is_stale in ((f"{host} {2**22 + 1}", True), (f"{host} 1", False), ("elsewhere 7", False), ("", True)):
        (tmp_path / ".lock").write_text(holder)
        if is_stale:
            with lock_or_refuse(tmp_path):
                assert (tmp_path / ".lock").read_text() == f"{host} {os.getpid()}\n"
        else:
            with pytest.raises(ValueError, match="is training in"), lock_or_refuse(tmp_path):
                pass
    with wait_for_turn(tmp_path):
        pass


def test_a_line_cut_short_is_passed_over(tmp_path):
    path = tmp_path / "metrics.csv"
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([["step", "loss"], ["1", "0.5"], ["2", "0."], ["x", ""]])
    assert read_rows(path) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.0}]


def test_mixed_precision_of_16_bit_is_refused_on_the_processor():
    from emulators.training.hardware import Hardware

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="needs a GPU"):
            Hardware(precision="16-mixed")
