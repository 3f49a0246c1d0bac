"""Trainings on several processes: the same result however the batch is shared, and no waiting for the dead."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import warm_starts
from data_pipelines.files import checkpoints
from data_pipelines.jobs.processes import cores_of_process
from emul.config.compose import compose
from emul.train import train

SETTINGS = [
    "data=planet_tiny", "model=sfno", "model.embed=8", "model.layers=1", "hardware.threads=1", "training.steps=6",
    "training.batch_size=4", "training.validate_every=3", "training.validation_cases=2", "training.checkpoint_every=2",
]  # fmt: skip


def words(tmp_path, name, *more):
    return ["train", *SETTINGS, f"output={tmp_path}", f"name={name}", *more]


def training_of_two(tmp_path, name):
    """A training of two processes that would go on for long, and has written a checkpoint; its folder."""
    process = warm_starts.begin(*words(tmp_path, name, "hardware=ddp", "training.steps=100000"))
    folder = tmp_path / "train" / name
    warm_starts.wait_until((folder / "checkpoints" / "last.ckpt").exists, process, 250.0)
    return process, folder


def last(folder):
    return checkpoints.load(folder / "checkpoints" / "last.ckpt")


def assert_close(one, other, atol=1e-6):
    for name, value in (one["state_dict"] | one["objective"]).items():
        torch.testing.assert_close((other["state_dict"] | other["objective"])[name], value, rtol=1e-4, atol=atol)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The training as one process passes it."""
    folder = tmp_path_factory.mktemp("one")
    return last(train(compose("train", [*SETTINGS, f"output={folder}", "name=one"])))


def test_cores_are_shared_out():
    assert [cores_of_process([0, 1, 2, 3, 4], 2, n) for n in range(2)] == [[0, 1], [2, 3, 4]]
    assert [cores_of_process([3], 2, n) for n in range(2)] == [[3], [3]]


@pytest.mark.slow
def test_two_passes_are_as_one(tmp_path, one):
    folder = train(compose("train", [*SETTINGS, f"output={tmp_path}", "name=two", "training.accumulate=2"]))
    assert_close(one, last(folder))


ROUNDING = 3e-4  # of weights that move by up to 1e-2
RATE = [  # weights move by their gradients: Adam with a small eps makes much of the rounding of small ones
    "optimizer.lr=0.1", "optimizer.eps=1.0", "optimizer.weight_decay=0", "schedule.warmup=0",
    "training.validate_every=6",
]  # fmt: skip
OBJECTIVES = {
    "noise": ["model=sfno_ace2_noise", "model.embed=8", "model.layers=1", "objective.members=2", "loss=[crps]"],
    "intervals": ["model=stormer_small", "model.embed=16", "model.depth=1", "objective=random_intervals"],
    "pairs": ["model=stormer_small", "model.embed=16", "model.depth=1", "objective=all_to_all", "objective.pairs=3"],
    "masks": ["model=prithvi_small", "objective=masked_forecast"],
    "dropout": ["model=climax_small", "model.dropout=0.2", "model.drop_path=0.2"],
    "replay": ["model=sfno", "model.embed=8", "model.layers=1", "objective.replay=0.8", "objective.replay_steps=1"],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("words", OBJECTIVES.values(), ids=OBJECTIVES.keys())
def test_draws_belong_to_the_step_and_the_sample(tmp_path, words):
    """Weights after a few steps of 1 x 4, 2 x 2 and 4 x 1 samples, and of two processes, are the same to rounding."""
    plain = [w for w in SETTINGS if not w.startswith("model")]
    settings = [*plain, *words, *RATE, f"output={tmp_path}"]
    whole, halves, ones = (
        last(train(compose("train", [*settings, f"name=x{passes}", f"training.accumulate={passes}"])))
        for passes in (1, 2, 4)
    )
    assert_close(whole, halves, atol=ROUNDING)
    assert_close(whole, ones, atol=ROUNDING)
    done = warm_starts.together("train", *settings, "name=two", "hardware=ddp")
    assert done.returncode == 0, done.stderr
    assert_close(whole, last(tmp_path / "train" / "two"), atol=ROUNDING)


SFNO = ["model=sfno", "model.embed=8", "model.layers=1"]
DENOISING = [*SFNO, "step=denoising", "objective=diffusion"]
DRAWING = {
    "input": [*SFNO, "noise=length", "objective.members=2", "loss=[crps]"],
    "diffusion": [*DENOISING, "sampler=dpmpp_2s", "sampler.levels=2", "step.noise=degree"],
    "flow": [*DENOISING, "sampler=flow_euler", "step.process=flow", "objective.distribution=logitnormal"],
    "refiner": [*DENOISING, "sampler=refinement", "step.process=vp", "objective.distribution=sampler"],
    "variational": [*SFNO, "step=latent", "objective=variational", "loss=[crps]"],
    "dyffusion": [
        *SFNO, "history=6", "step=dyffusion", "noise=dropout", "objective=dyffusion", "objective.interpolation_steps=3",
    ],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("words", DRAWING.values(), ids=DRAWING.keys())
def test_generative_networks_draw_for_the_step_and_the_sample(tmp_path, words):
    """Weights after six steps of 1 x 4, 2 x 2 and 4 x 1 samples are the same to rounding."""
    plain = [w for w in SETTINGS if not w.startswith("model")]
    settings = [*plain, *words, *RATE, f"output={tmp_path}"]
    whole, *split = (
        last(train(compose("train", [*settings, f"name=x{passes}", f"training.accumulate={passes}"])))["state_dict"]
        for passes in (1, 2, 4)
    )
    for other in split:
        for name, value in whole.items():
            torch.testing.assert_close(other[name], value, rtol=1e-4, atol=ROUNDING)


@pytest.mark.slow
def test_recomputed_activations_change_nothing(tmp_path, one):
    more = ["hardware.activation_checkpointing=true"]
    folder = train(compose("train", [*SETTINGS, f"output={tmp_path}", "name=x", *more]))
    for name, value in one["state_dict"].items():
        assert torch.equal(last(folder)["state_dict"][name], value), name


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_compiled_network_learns_the_same(tmp_path):
    words = [*SETTINGS[:1], *SETTINGS[4:], "model=unet", "model.channels=[8]", f"output={tmp_path}"]
    plain, compiled = (
        last(train(compose("train", [*words, f"name=x{name}", f"hardware.compile={name}"])))
        for name in ("false", "true")
    )
    assert_close(plain, compiled)


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        ["hardware=ddp", "training.accumulate=2"],
        ["hardware=fsdp", "hardware.accelerator=cpu", "hardware.devices=2", "hardware.precision=32"],
    ],
    ids=["ddp and two passes", "fsdp"],
)
def test_two_processes_are_as_one(tmp_path, one, more):
    done = warm_starts.together(*words(tmp_path, "two", *more))
    assert done.returncode == 0, done.stderr
    assert "0.001, never scaled" in done.stdout
    assert re.search(r"effective batch +4 = 2 processes x \d passes x \d samples", done.stdout)
    assert_close(one, last(tmp_path / "train" / "two"))


@pytest.mark.slow
@pytest.mark.parametrize("launch", [[], ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]], ids=str)
def test_the_command_and_torchrun_start_the_processes(tmp_path, one, launch):
    command = [sys.executable, *launch, "-m", "emul.main", *words(tmp_path, "two", "hardware=ddp")]
    done = subprocess.run(command, env={**os.environ, "CI": "true"}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_close(one, last(tmp_path / "train" / "two"))
    assert last(tmp_path / "train" / "two")["emul"]["validation"]["score"] == pytest.approx(
        one["emul"]["validation"]["score"], rel=1e-5
    )
    with (tmp_path / "train" / "two" / "metrics.csv").open() as file:
        assert sum(bool(row["score"]) for row in csv.DictReader(file)) == 2


def children_of(process):
    return [int(n) for n in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def is_alive(number):
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
@pytest.mark.parametrize("victim", ["the first", "another"])
def test_a_killed_process_ends_the_others_within_a_minute(tmp_path, victim):
    process, folder = training_of_two(tmp_path, "killed")
    children = children_of(process)
    begun = time.monotonic()
    if victim == "the first":
        process.send_signal(signal.SIGKILL)
    else:
        os.kill(children[0], signal.SIGKILL)
    while process.poll() is None or any(map(is_alive, children)):
        assert time.monotonic() - begun < 60, "somebody hangs"
        time.sleep(0.1)
    said = process.said()
    named = "connection to another process is lost|started this one is gone" if victim == "the first" else "SIGKILL"
    assert re.search(named, said), said
    assert "the last checkpoint is in" in said
    assert last(folder)["emul"]["step"] > 0


@pytest.mark.slow
def test_a_signal_stops_two_processes_and_they_go_on(tmp_path):
    process, folder = training_of_two(tmp_path, "stopped")
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 143, said
    assert f"Stopped at step {last(folder)['emul']['step']} as asked" in said
    assert "Traceback" not in said
