"""Shares of work for processes that do not communicate: jobs with `share=2/4`, and the processes of one job.

Pieces of work are numbered; number n belongs to share 1 + n mod (number of shares). The last process to finish merges
the results.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from omegaconf import DictConfig

from emul.config.build import build
from emul.jobs.processes import Watch, exit_in_words, rank, started_from_outside, started_processes
from emulators.training.hardware import Hardware


def hardware_of(config: DictConfig) -> Hardware:
    """The hardware of a configuration; default: one process."""
    return build(config.hardware) if "_target_" in config.hardware else Hardware()


def process_count(hardware: Hardware) -> int:
    """The number of processes of this job: those that were started, else those that the hardware asks for."""
    return started_processes() if started_from_outside() else hardware.processes


def share_of_process(config: DictConfig) -> tuple[int, int]:
    """The share of this process, and their number; ValueError where other processes are asked for than started."""
    hardware, (share, shares) = hardware_of(config), parse_share(config.share)
    if started_from_outside():
        if config.hardware and hardware.processes != started_processes():
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
    own = rank() if processes > 1 else 0
    return share + shares * own, shares * processes  # a share is the same work, however many processes have it


@contextmanager
def worker_processes(config: DictConfig, words: Sequence[str], advice: str) -> Iterator[None]:
    """Run the other worker processes, with the same command line, while the body executes.

    They end within seconds after this one has died. Raises ChildProcessError once all have ended, where one of them
    failed. advice: what to do then.
    """
    count = process_count(hardware_of(config))
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
    badly = [f"process {n} of {count} {exit_in_words(code)}" for n, code in enumerate(codes, start=2) if code]
    if badly:
        raise ChildProcessError(f"{'; '.join(badly)}; {advice}")


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
