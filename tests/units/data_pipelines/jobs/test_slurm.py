"""Jobs that SLURM tells of their time limit before the training listens."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from data_pipelines.jobs import slurm
from data_pipelines.jobs.slurm import script
from emulators.training.hardware import Hardware, Slurm


@pytest.mark.parametrize("in_a_job", [True, False])
def test_the_notice_of_a_limit_sends_the_job_back(monkeypatch, capsys, in_a_job):
    before = signal.getsignal(signal.SIGUSR1)
    monkeypatch.setattr(slurm, "requeue", lambda: in_a_job)
    try:
        slurm.requeue_on_notice(Slurm())
        with pytest.raises(SystemExit) as ended:
            signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert ended.value.code == 128 + signal.SIGUSR1
    assert ("back in the queue" in capsys.readouterr().out) == in_a_job


def test_the_notice_is_not_heard_where_no_job_is_to_go_back(monkeypatch):
    before = signal.getsignal(signal.SIGUSR1)
    slurm.requeue_on_notice(None)
    slurm.requeue_on_notice(Slurm(requeue=False))
    monkeypatch.setenv("RANK", "1")
    slurm.requeue_on_notice(Slurm())
    assert signal.getsignal(signal.SIGUSR1) is before


def test_a_process_outside_of_slurm_is_in_no_queue(monkeypatch):
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    assert not slurm.requeue()


def test_every_word_of_a_script_is_quoted(monkeypatch, tmp_path):
    (tmp_path / "a folder; touch x").mkdir()
    monkeypatch.chdir(tmp_path / "a folder; touch x")
    slurm = Slurm(account="a b", options={"comment": "$(touch x)"})
    lines = script(Hardware(slurm=slurm), "run `touch x`", Path("log of $x"), ["true"]).splitlines()
    assert "#SBATCH --job-name='run `touch x`'" in lines
    assert "#SBATCH --account='a b'" in lines
    assert "#SBATCH --comment='$(touch x)'" in lines
    assert f"cd '{tmp_path}/a folder; touch x'" in lines


@pytest.mark.parametrize("options", [{"comment": "x\ntouch y"}, {"comment=1\ntouch y": 1}, {"a b": 1}])
def test_an_option_is_one_line(options):
    with pytest.raises(ValueError, match=r"hardware\.slurm"):
        script(Hardware(slurm=Slurm(options=options)), "name", Path("log"), [])
