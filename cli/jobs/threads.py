"""Set the CPU threads, the cores and the memory allocator of a process."""

from __future__ import annotations

import ctypes
import os
import sys

import torch

from data_pipelines.reading.threads import processors
from emul.jobs.processes import cores_of_task, started_processes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
LARGEST = 2**31 - 1
CORES = "EMUL_CORES"  # the process that starts the others, and the cores it had: "pid:core,core"


def set_threads(threads: int | None, processes: int = 1, number: int = 0, affinity: bool = False) -> None:
    """Use `threads` CPU threads (None: a share of the cores), and keep freed memory for the next step.

    processes, number: how many share this machine, and which of them this one is. affinity: bind the process to its
    share of the cores. Cores given by SLURM are the share, and a binding by SLURM is kept. glibc returns large freed
    blocks to the kernel, and each step of a training then page-faults its activations again: a third of the time of a
    small SFNO on two cores. Without mallopt in the C library, memory is left as it is.
    """
    told = cores_of_task()
    is_bound = told is not None and processors() <= told
    if affinity and processes > 1 and not is_bound and sys.platform == "linux":
        os.sched_setaffinity(0, cores_of_process(_cores_of_all(number), processes, number))
    if threads is None and told is not None:
        threads = min(told, processors())
    elif threads is None and processes > 1:
        threads = max(1, processors() // (1 if affinity else processes))
    if threads:
        torch.set_num_threads(threads)
        if processes > 1 or started_processes() > 1:
            os.environ["OMP_NUM_THREADS"] = str(threads)  # else Lightning has its own idea of a share
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    if mallopt(M_MMAP_THRESHOLD, 2**30) or mallopt(M_MMAP_THRESHOLD, 2**25):  # older versions allow no more
        mallopt(M_TRIM_THRESHOLD, LARGEST)


def _cores_of_all(number: int) -> list[int]:
    """All cores that the processes of this machine share: those of the first process before it was bound.

    The others are started by it, bound to its share, and so read its cores from the environment.
    """
    starter, _, listed = os.environ.get(CORES, "").partition(":")
    if starter == str(os.getppid() if number else os.getpid()):
        return [int(core) for core in listed.split(",")]
    own = sorted(os.sched_getaffinity(0))
    if not number:
        os.environ[CORES] = f"{os.getpid()}:{','.join(map(str, own))}"
    return own


def cores_of_process(those: list[int], processes: int, number: int) -> list[int]:
    """The share of one of several processes; with fewer cores than processes, several share a core."""
    if len(those) < processes:
        return [those[number % len(those)]]
    bounds = [round(n * len(those) / processes) for n in range(processes + 1)]
    return those[bounds[number] : bounds[number + 1]]
