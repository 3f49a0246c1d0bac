"""Jobs that SLURM tells of their time limit before the training listens."""

from __future__ import annotations

import signal

import pytest

from emul.jobs import slurm
from emulators.training.hardware import Slurm


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
