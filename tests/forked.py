"""Run commands of `emul` as processes forked from one that has imported everything, and compare what they leave."""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

AT_END: list[Callable[[], None]] = []  # what a started command calls last


def noting_modules(file: Path) -> Callable[[], None]:
    """What has a process write the names of its modules where it ends."""

    def note() -> None:
        specs = ((name, getattr(module, "__spec__", None)) for name, module in sys.modules.items())
        file.write_text(" ".join(name for name, spec in specs if spec is not None and spec.name == name))

    return lambda: AT_END.append(note)


class Forked:
    """A trial of a sweep as a process forked from this one, where `emul` starts another Python."""

    def __init__(self, words: list[str], stdout: Any, **_: Any) -> None:
        self.pid, self.code = start(words[3:], Path(stdout.name), without_locks, os.O_APPEND), None

    def poll(self) -> int | None:
        if self.code is None and os.waitpid(self.pid, os.WNOHANG)[0]:
            self.code = 0
        return self.code

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def without_locks() -> None:
    """Close the lock files that a process was forked with, as another Python would not have them open."""
    for number in map(int, os.listdir("/proc/self/fd")):
        try:
            if os.readlink(f"/proc/self/fd/{number}").endswith(("lock", ".turn")):
                os.close(number)
        except OSError:
            continue  # that of the list itself


def start(words: list[str], log: Path, before: Callable[[], None] | None = None, mode: int = os.O_TRUNC) -> int:
    """Start a command in a forked process and session; its number. before: called there first."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        sink = os.open(log, os.O_WRONLY | os.O_CREAT | mode, 0o644)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        if before is not None:
            before()
        from emul.main import main

        code = main(words)
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        for call in AT_END:
            call()
        os._exit(code)


def finished(child: int, log: Path, seconds: float = 600.0) -> tuple[int, str]:
    """Wait for a process; (exit code, what it said). One that does not end is killed: code -1."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), log.read_text(errors="replace")
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -1, f"it did not end within {seconds:.0f} s"


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a forked process, so that this one starts no threads; its result."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        try:
            content = pickle.dumps((True, function(*arguments)))
        except BaseException:
            content = pickle.dumps((False, traceback.format_exc()))
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(content)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        content = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    good, value = pickle.loads(content) if content else (False, f"the process ended with code {code}")
    if not good:
        raise RuntimeError(value)
    return value


def result(verb: str, out: Path) -> dict[str, Any]:
    """What a verb leaves, as values that must be the same each time."""
    from data_pipelines.files import checkpoints
    from data_pipelines.files.netcdf import read_groups
    from data_pipelines.inspection.quality import verified

    found: dict[str, Any] = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        name = str(path.relative_to(out))
        if path.suffix == ".nc":
            groups = read_groups(path)
            found |= {f"{name}{group}": {n: v.values.tobytes() for n, v in data.variables.items()}
                      for group, data in groups.items()}  # fmt: skip
        elif "/c/" in name or "/c." in name:
            found[name] = path.read_bytes()
        elif path.suffix == ".ckpt" and path.name != "previous.ckpt":
            weights = checkpoints.load(path)["emul"]["weights"]
            found[name] = {key: value.numpy().tobytes() for key, value in weights.items()}
    left = [str(path) for path in out.rglob("*.partial")]
    faults = [fault for one in verified(out) for fault in one.faults]
    assert found, f"{verb} left nothing in {out}"
    return {**found, "left behind": left, "faults": faults}


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return [key for key in {**one, **other} if one.get(key) != other.get(key)]


def children_of(number: int) -> list[int]:
    try:
        text = Path(f"/proc/{number}/task/{number}/children").read_text()
    except OSError:
        return []
    return [below for child in map(int, text.split()) for below in (child, *children_of(child))]


def end_session(number: int) -> None:
    """Kill the processes that a killed command has left, and wait until they are gone."""
    for child in [number, *children_of(number)]:
        try:
            os.kill(child, signal.SIGKILL)
        except ProcessLookupError:
            continue


def without_rights_of_root() -> None:
    """Drop all capabilities, so that root is refused what the permissions of its own files refuse it."""
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None).capset(header, none) == 0
