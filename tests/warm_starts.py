"""Start commands in processes forked from one that has imported them: in milliseconds, where Python needs seconds.

The process that is forked has only imported modules; it is started once for each process of tests.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([f"emul.{name}" for name in ("train", "forecast", "eval", "sweep", "run")])


class Warm:
    """Hold a started `emul`, with what subprocess.Popen has of it; its output is that of both streams."""

    def __init__(self, words: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path) -> None:
        given = (list(words), str(folder), dict(environment), str(log))
        self.log, self.process = log, FORKS.Process(target=_command, args=given)
        self.process.start()
        self.pid = self.process.pid or 0

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.kill()
            raise subprocess.TimeoutExpired("emul", timeout or 0.0, self.said())
        return self.process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        self.wait(timeout)
        return self.said(), None

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _command(words: list[str], folder: str, environment: dict[str, str], log: str) -> None:
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = [path for path in sys.path if path != ""]
    code = 1
    try:
        import torch

        from emul.main import main

        torch.set_num_threads(1)
        sys.argv = ["emul", *words]
        sys.modules["__main__"].__spec__ = importlib.util.find_spec("emul.main")  # by which further ones are started
        code = main(words)
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def begin(*words: str, folder: Path | None = None, **more: str) -> Warm:
    """Start `emul <words>` in `folder`, with `more` in its environment."""
    handle, log = tempfile.mkstemp(suffix=".log")
    os.close(handle)
    return Warm(words, folder or Path.cwd(), {**os.environ, "CI": "true", **more}, Path(log))


def run(
    *words: str, folder: Path | None = None, timeout: float = 300.0, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run `emul <words>` in `folder`; what it says, of both streams, is `stdout` and `stderr`. more: environment."""
    process = begin(*words, folder=folder, **more)
    said, _ = process.communicate(timeout)
    return subprocess.CompletedProcess(list(words), process.returncode or 0, said, said)


def together(*words: str, count: int = 2, timeout: float = 300.0) -> subprocess.CompletedProcess[str]:
    """Run `emul <words>` in so many processes that work together, as torchrun starts them; what the first says."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(count)}
    told |= {"TORCHELASTIC_RUN_ID": "tests", "OMP_NUM_THREADS": "1"}
    every = [begin(*words, RANK=str(rank), LOCAL_RANK=str(rank), **told) for rank in range(count)]
    said = [process.communicate(timeout)[0] for process in every]
    failed = [text for process, text in zip(every, said, strict=True) if process.returncode]
    return subprocess.CompletedProcess(list(words), bool(failed), said[0], "\n".join(failed))


def wait_until(happened: Callable[[], bool], process: Warm, seconds: float = 120.0) -> None:
    """Wait for something that a process does; AssertionError where it ends or takes too long."""
    end = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None, process.said()
        assert time.monotonic() < end, process.said()
        time.sleep(0.005)


def trial(command: Sequence[str], stdout: Any, env: Mapping[str, str], **_: Any) -> Warm:
    """A trial of a sweep, in the place of subprocess.Popen."""
    assert list(command[:3]) == [sys.executable, "-m", "emul.main"]
    return Warm(command[3:], Path.cwd(), env, Path(stdout.name))
