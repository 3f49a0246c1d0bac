"""The processes of one piece of work: which one this is, and what becomes of the others when one is gone.

Nobody waits for a process that died: the first watches those it started, they watch the first, SLURM and torchrun watch
theirs; whoever notices names the cause and ends within seconds, whatever collective it hangs in.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

PERIOD = 1.0  # seconds between two looks
MERCY = 5.0  # seconds that this process gets to end by itself, once another is gone
OWN_STEPS = 0xFFFFFFF0  # from here on SLURM numbers steps that no srun has started: a batch script, a shell of salloc


def rank() -> int:
    """The number of this process among those that train together; 0 where it is alone or not yet known."""
    for name in ("RANK", "SLURM_PROCID" if within_slurm_step() else "", "LOCAL_RANK"):
        if name and os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


def local_rank() -> int:
    """The number of this process on its node."""
    for name in ("LOCAL_RANK", "SLURM_LOCALID" if within_slurm_step() else ""):
        if name and os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


def started_processes() -> int:
    """How many processes srun or torchrun has started together with this one; 1 where neither did."""
    for name in ("WORLD_SIZE", "SLURM_NTASKS") if started_from_outside() else ():
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 1


def within_slurm_step() -> bool:
    """True in a process that srun has started."""
    step = os.environ.get("SLURM_STEP_ID", "")
    return step.isdigit() and int(step) < OWN_STEPS and "SLURM_PROCID" in os.environ


def started_from_outside() -> bool:
    """True where srun or torchrun has started one process each already."""
    return within_slurm_step() or "TORCHELASTIC_RUN_ID" in os.environ


def cores_of_task() -> int | None:
    """The cores that SLURM was asked to give each process; None where it was not, or this is no process of srun."""
    told = os.environ.get("SLURM_CPUS_PER_TASK", "") if within_slurm_step() else ""
    return int(told) if told.isdigit() else None


def exit_in_words(code: int) -> str:
    """How a process ended, from the return code of subprocess: `was killed by SIGKILL`, `ended with code 2`."""
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def first_failure(children: Sequence[subprocess.Popen[bytes]]) -> str | None:
    """The first child that ended other than well, in words; None while there is none."""
    for number, child in enumerate(children, start=1):
        if child.poll():
            return f"process {number} of {len(children) + 1} {exit_in_words(child.returncode)}"
    return None


class Watch(threading.Thread):
    """Ends this process once one that it works with is gone, and says why.

    children: the processes that this one has started; none: it was started itself, and watches its parent.
    """

    def __init__(self, children: Sequence[subprocess.Popen[bytes]], stands: str) -> None:
        super().__init__(daemon=True, name="watch")
        self.children, self.stands = children, stands
        self.parent, self.over = os.getppid(), threading.Event()

    def run(self) -> None:
        while not self.over.wait(PERIOD):
            gone = first_failure(self.children)
            if not self.children and os.getppid() != self.parent:
                gone = "the process that started this one is gone"
            if gone is None:
                continue
            if not self.over.wait(MERCY):  # else the error of a collective was faster, and has told
                self.tell(gone)
                for child in self.children:
                    child.kill()
                os._exit(1)
            return

    def tell(self, gone: str) -> None:
        """Why this process ends, on standard error."""
        print(f"emul: stopped because {gone}; {self.stands}", file=sys.stderr, flush=True)

    def cause(self, patience: float = 2 * PERIOD) -> str | None:
        """Which of the children is gone, waited for a moment; None where all are well."""
        end = time.monotonic() + patience
        while self.children and time.monotonic() < end:
            gone = first_failure(self.children)
            if gone is not None:
                return gone
            time.sleep(0.05)
        return None
