"""Processes that work together: rank, threads, device and memory of this one, a watch that ends it when one has died.

Shares of work are for processes that do not communicate: jobs with `share=2/4`, and the processes of one job. Pieces
of work are numbered; number n belongs to share 1 + n mod (number of shares). The last to finish merges the results.

A collective would wait for a dead process forever. So the first process watches those it started, they watch the first,
and SLURM and torchrun watch theirs; whoever notices a death names the cause and exits within seconds.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from data_pipelines.conventions.suggestions import system_bytes
from data_pipelines.reading.threads import processors
from emulators.training.hardware import Hardware

PERIOD = 1.0  # seconds between two checks
MERCY = 5.0  # seconds that this process gets to end by itself, once another has died
OWN_STEPS = 0xFFFFFFF0  # numbers of SLURM steps from here on are not of srun: a batch script, a shell of salloc
CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


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
            failure = first_failure(self.children)
            if not self.children and os.getppid() != self.parent:
                failure = "the process that started this one is gone"
            if failure is None:
                continue
            if not self.over.wait(MERCY):  # else the error of a collective came first, and has been reported
                self.tell(failure)
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
            failure = first_failure(self.children)
            if failure is not None:
                return failure
            time.sleep(0.05)
        return None


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
    allotted = cores_of_task()
    is_bound = allotted is not None and processors() <= allotted
    if affinity and processes > 1 and not is_bound and sys.platform == "linux":
        os.sched_setaffinity(0, cores_of_process(_cores_of_all(number), processes, number))
    if threads is None and allotted is not None:
        threads = min(allotted, processors())
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
    cores = sorted(os.sched_getaffinity(0))
    if not number:
        os.environ[CORES] = f"{os.getpid()}:{','.join(map(str, cores))}"
    return cores


def cores_of_process(those: list[int], processes: int, number: int) -> list[int]:
    """The share of one of several processes; with fewer cores than processes, several share a core."""
    if len(those) < processes:
        return [those[number % len(those)]]
    bounds = [round(n * len(those) / processes) for n in range(processes + 1)]
    return those[bounds[number] : bounds[number + 1]]


def process_count(hardware: Hardware) -> int:
    """The number of processes of this job: those that were started, else those that the hardware asks for."""
    return started_processes() if started_from_outside() else hardware.processes


def share_of_process(text: str | None, requested: Hardware | None) -> tuple[int, int]:
    """Return the share of this process, and their number; ValueError where not as many run as are requested.

    text: the share of the whole command, such as 2/4. requested: the hardware that the command asks for, if any.
    """
    hardware, (share, shares) = requested or Hardware(), parse_share(text)
    if started_from_outside():
        if requested and hardware.processes != started_processes():
            raise ValueError(
                f"Expected {hardware.processes} processes (hardware.nodes={hardware.nodes} x "
                f"hardware.devices={hardware.devices}), but {started_processes()} were started."
            )
    elif hardware.slurm is not None or hardware.nodes > 1:
        raise ValueError(
            "Forecasts on several nodes are started by srun or torchrun, one process each. Put `srun emul forecast "
            "...` into a job, or take share=1/4 to share=4/4 as jobs of an array."
        )
    processes = process_count(hardware)
    own_rank = rank() if processes > 1 else 0
    return share + shares * own_rank, shares * processes  # a share is the same work, however many processes have it


@contextmanager
def worker_processes(hardware: Hardware, words: Sequence[str], advice: str) -> Iterator[None]:
    """Run the other worker processes, with the same command line, while the body executes.

    They end within seconds after this one has died. Raises ChildProcessError once all have ended, where one of them
    failed. advice: what to do then.
    """
    count = process_count(hardware)
    if started_from_outside() or count == 1:
        yield
        return
    if rank():
        watch = Watch((), advice)
        watch.start()
        try:
            yield
        finally:
            watch.over.set()
        return
    children = [_started(words, number, count) for number in range(1, count)]
    try:
        yield
    except BaseException:
        for child in children:
            child.terminate()
        raise
    finally:
        codes = [child.wait() for child in children]
    failed = [f"process {n} of {count} {exit_in_words(code)}" for n, code in enumerate(codes, start=2) if code]
    if failed:
        raise ChildProcessError(f"{'; '.join(failed)}; {advice}")


def _started(words: Sequence[str], number: int, count: int) -> subprocess.Popen[bytes]:
    """Start the same command as process `number` of `count`; it writes to standard error alone."""
    ranks = {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(count)}
    command = [sys.executable, "-m", "emul.main", *words]
    return subprocess.Popen(command, env={**os.environ, **ranks}, stdout=subprocess.DEVNULL)


def parse_share(text: str | None) -> tuple[int, int]:
    """Read `2/4` as (2, 4), the second of four shares; default: all of the work."""
    if text is None:
        return 1, 1
    match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", str(text))
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(f"share= is one of several, such as 1/4 to 4/4; got {text}.")
    return int(match[1]), int(match[2])


def device_of(accelerator: str) -> str:
    """Return `cuda` where a GPU is wanted and there is one, else `cpu`."""
    return "cuda" if accelerator in ("gpu", "auto") and torch.cuda.is_available() else "cpu"


def device_of_process(name: str, requested: Hardware | None) -> str:
    """Return the device of this process, one of several on a node with several GPUs. ValueError where it has no GPU.

    name: such as cpu or cuda; `auto`: as the hardware `requested` says, else a GPU where there is one.
    """
    if requested and name == "auto":
        name = {"cpu": "cpu", "gpu": "cuda"}.get(requested.accelerator, "auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and torch.cuda.is_available() and process_count(requested or Hardware()) > 1:
        return f"cuda:{local_rank() % torch.cuda.device_count()}"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device={name} was asked for, but PyTorch finds no GPU; use device=auto or device=cpu.")
    return name


def runs_here(hardware: Hardware) -> bool:
    """Whether what runs on that hardware has a device as this machine has: not where a job of SLURM has GPUs alone."""
    return hardware.slurm is None or hardware.accelerator == "cpu" or torch.cuda.is_available()


def device_memory(hardware: Hardware) -> float:
    """Return the bytes that a process of a training may use; infinity where its device is none of this machine."""
    if not runs_here(hardware) and hardware.gigabytes is None:
        return float("inf")
    return available_memory(device_of(hardware.accelerator), hardware)


def available_memory(device: str, hardware: Hardware) -> float:
    """Return the bytes that one process may use: what hardware.gigabytes says, its GPU, or its share of the machine."""
    if hardware.gigabytes is not None:
        return 1e9 * hardware.gigabytes
    if device == "cuda":
        return float(torch.cuda.mem_get_info()[0])
    slurm = hardware.slurm
    if slurm is not None and slurm.memory:
        number, unit = re.fullmatch(r"(\d+)([KMGT]?)", str(slurm.memory)).groups()  # type: ignore[union-attr]
        return float(number) * {"K": 1e3, "": 1e6, "M": 1e6, "G": 1e9, "T": 1e12}[unit] / hardware.devices
    limits = [float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))]
    limits += [float(text) for text in map(_read, CGROUPS) if text.isdigit()]
    available = system_bytes("/proc/meminfo", "MemAvailable")
    return min([*limits, *([] if available is None else [available])]) / hardware.devices


def _read(name: str) -> str:
    return Path(name).read_text().strip() if Path(name).is_file() else ""
