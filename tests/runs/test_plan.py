"""`emul plan`: what is counted is right, what does not fit is refused."""

import pytest

from data_pipelines.files.atomic import bytes_text
from emul.check import plan
from emul.config.compose import compose
from emulators.training.flop_counter import Requirements
from emulators.training.hardware import Slurm, seconds_of

TINY = ["data=planet_tiny", "model=sfno", "model.embed=8", "model.layers=1", "hardware.threads=1"]


def test_numbers_of_a_plan(capsys):
    assert plan(compose("train", [*TINY, "training.steps=10", "objective.replay=0.5", "objective.replay_steps=3"])) == 0
    said = capsys.readouterr().out
    kept = bytes_text(4 * 3 * 8 * 17 * 512)  # float32, three batches of 8, 17 channels
    for word in (
        f"{kept} of the processor's memory",
        "parameters",
        "7,200",
        "GFLOP a sample",
        "largest batch",
        "samples a second",
        "CPU-hours",
    ):
        assert word in said


def test_what_does_not_fit_is_refused():
    job = ["hardware=slurm", "hardware.accelerator=cpu", "hardware.precision=32", "hardware.slurm.memory=100K"]
    with pytest.raises(ValueError, match=r"fits into 100 kB of memory, got 7,200 parameters, which take 144 kB"):
        plan(compose("train", [*TINY, *job]))


@pytest.mark.parametrize("asked", [{"time": "half a day"}, {"memory": "64GB"}])
def test_what_slurm_would_not_read_is_refused(asked):
    with pytest.raises(ValueError, match=r"hardware\.slurm\.(time|memory) is written as in"):
        Slurm(**asked)


def test_the_largest_batch_is_the_inverse_of_the_memory():
    needs = Requirements(10, 40, 40, 80, 40, activations=1000.0, operations=1.0, seconds=1.0, samples=2)
    most = needs.largest(10_300)
    assert needs.fixed + 1000.0 * most <= 10_300 < needs.fixed + 1000.0 * (most + 1)
    assert needs.largest(100) == 0


@pytest.mark.parametrize(
    ("text", "seconds"), [("12:00:00", 43200), ("2-00:00:00", 172800), ("1-12", 129600), ("90", 5400), ("05:30", 330)]
)
def test_time_limits_of_slurm(text, seconds):
    assert seconds_of(text) == seconds
