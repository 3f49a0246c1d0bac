"""What a process takes of its machine: threads, and memory it keeps."""

from __future__ import annotations

import ctypes
import os

import torch

from data_pipelines.reading.threads import processors
from emul.jobs.processes import cores_of_task, started_processes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
LARGEST = 2**31 - 1
CORES = "EMUL_CORES"  # of the process that starts the others: its number, and the cores it had


def set_threads(threads: int | None, processes: int = 1, number: int = 0, affinity: bool = False) -> None:
    """Use `threads` CPU threads (None: a share of the cores), and keep freed memory for the next step.

    processes, number: how many share this machine, and which of them this one is. affinity: keep to one's share.
    Where SLURM was told the cores of a process, these are its share; and where it has bound the process, it stays so.
    glibc hands large freed blocks back to the kernel, and each step of a training then faults its activations in anew:
    a third of the time of a small SFNO on two cores. Where the C library has no mallopt, nothing changes.
    """
    told = cores_of_task()
    is_bound = told is not None and processors() <= told
    if affinity and processes > 1 and not is_bound and hasattr(os, "sched_setaffinity"):
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
    """The cores that the processes of this machine have together: those of the first before it kept to its share.

    It starts the others, which therefore begin on its share, and is told apart by its number in what it leaves them.
    """
    starter, _, listed = os.environ.get(CORES, "").partition(":")
    if starter == str(os.getppid() if number else os.getpid()):
        return [int(core) for core in listed.split(",")]
    own = sorted(os.sched_getaffinity(0))
    if not number:
        os.environ[CORES] = f"{os.getpid()}:{','.join(map(str, own))}"
    return own


def cores_of_process(those: list[int], processes: int, number: int) -> list[int]:
    """The cores of one of several processes; where there are fewer cores than processes, they take turns."""
    if len(those) < processes:
        return [those[number % len(those)]]
    bounds = [round(n * len(those) / processes) for n in range(processes + 1)]
    return those[bounds[number] : bounds[number + 1]]
