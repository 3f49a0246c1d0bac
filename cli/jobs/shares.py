"""Work that several processes share without a word between them: jobs that say `share=2/4`, and processes of one job.

What is to be done is numbered; number n falls to share 1 + n mod (all shares). Whoever is the last to be done puts the
whole together.
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
    """What the configuration says of the hardware; one process where it says nothing."""
    return build(config.hardware) if "_target_" in config.hardware else Hardware()


def process_count(hardware: Hardware) -> int:
    """The processes of this job: as many as were started, else as the hardware says."""
    return started_processes() if started_from_outside() else hardware.processes


def share_of_process(config: DictConfig) -> tuple[int, int]:
    """Which share is that of this process, and of how many; ValueError where nobody starts what is asked for."""
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
def worker_processes(config: DictConfig, words: Sequence[str], stands: str) -> Iterator[None]:
    """While this process works, so do the others that the hardware asks for, started here with the same words.

    They end within seconds after this one is gone; where one of them ends badly, ChildProcessError says so once all
    have ended. stands: what to do then.
    """
    count = process_count(hardware_of(config))
    if started_from_outside() or count == 1:
        yield
        return
    if rank():
        watch = Watch((), stands)
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
        raise ChildProcessError(f"{'; '.join(badly)}; {stands}")


def _started(words: Sequence[str], number: int, count: int) -> subprocess.Popen[bytes]:
    """The same command as process `number` of `count`, whose warnings and errors are heard."""
    told = {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(count)}
    command = [sys.executable, "-m", "emul.main", *words]
    return subprocess.Popen(command, env={**os.environ, **told}, stdout=subprocess.DEVNULL)


def parse_share(text: str | None) -> tuple[int, int]:
    """`2/4` as (2, 4): the second of four shares; all of it where nothing is said."""
    found = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", str(text)) if text is not None else re.match(r"(1)/(1)", "1/1")
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(f"share= is one of several, such as 1/4 to 4/4; got {text}.")
    return int(found[1]), int(found[2])
