"""Processes that work together: the rank of this one, and a watch that ends it when another has died.

A collective would wait for a dead process forever. So the first process watches those it started, they watch the first,
and SLURM and torchrun watch theirs; whoever notices a death names the cause and exits within seconds.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

PERIOD = 1.0  # seconds between two checks
MERCY = 5.0  # seconds that this process gets to end by itself, once another has died
OWN_STEPS = 0xFFFFFFF0  # numbers of SLURM steps from here on are not of srun: a batch script, a shell of salloc


def rank() -> int:
    """The rank of this process; 0 where it is alone, or the ranks are not yet assigned."""
    for name in ("RANK", "SLURM_PROCID" if within_slurm_step() else "", "LOCAL_RANK"):
        if name and os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


def local_rank() -> int:
    """The rank of this process on its node."""
    for name in ("LOCAL_RANK", "SLURM_LOCALID" if within_slurm_step() else ""):
        if name and os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


def started_processes() -> int:
    """The number of processes that srun or torchrun has started; 1 where neither did."""
    for name in ("WORLD_SIZE", "SLURM_NTASKS") if started_from_outside() else ():
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 1


def within_slurm_step() -> bool:
    """True in a process that srun has started."""
    step = os.environ.get("SLURM_STEP_ID", "")
    return step.isdigit() and int(step) < OWN_STEPS and "SLURM_PROCID" in os.environ


def started_from_outside() -> bool:
    """True where srun or torchrun has started one process for each device already."""
    return within_slurm_step() or "TORCHELASTIC_RUN_ID" in os.environ


def cores_of_task() -> int | None:
    """The cores that SLURM gives each process of srun; None where that was not requested, or srun is not used."""
    count = os.environ.get("SLURM_CPUS_PER_TASK", "") if within_slurm_step() else ""
    return int(count) if count.isdigit() else None


def exit_in_words(code: int) -> str:
    """Describe a return code of subprocess: `was killed by SIGKILL`, `ended with code 2`."""
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def first_failure(children: Sequence[subprocess.Popen[bytes]]) -> str | None:
    """Describe the first child that has failed; None while none has."""
    for number, child in enumerate(children, start=1):
        if child.poll():
            return f"process {number} of {len(children) + 1} {exit_in_words(child.returncode)}"
    return None


class Watch(threading.Thread):
    """End this process when one that it works with has died, and say why.

    children: the processes that this one has started; without any, it watches its parent. advice: what to do next.
    """

    def __init__(self, children: Sequence[subprocess.Popen[bytes]], advice: str) -> None:
        super().__init__(daemon=True, name="watch")
        self.children, self.advice = children, advice
        self.parent, self.over = os.getppid(), threading.Event()

    def run(self) -> None:
        while not self.over.wait(PERIOD):
            gone = first_failure(self.children)
            if not self.children and os.getppid() != self.parent:
                gone = "the process that started this one is gone"
            if gone is None:
                continue
            if not self.over.wait(MERCY):  # else the error of a collective came first, and has been reported
                self.tell(gone)
                for child in self.children:
                    child.kill()
                os._exit(1)
            return

    def tell(self, gone: str) -> None:
        """Say on standard error why this process ends."""
        print(f"emul: stopped because {gone}; {self.advice}", file=sys.stderr, flush=True)

    def cause(self, patience: float = 2 * PERIOD) -> str | None:
        """Describe the child that failed, waiting for it for `patience` seconds; None where none did."""
        end = time.monotonic() + patience
        while self.children and time.monotonic() < end:
            gone = first_failure(self.children)
            if gone is not None:
                return gone
            time.sleep(0.05)
        return None
