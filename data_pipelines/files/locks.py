"""One at a time in a folder: locks that die with the process that holds them."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAME, TURN = ".lock", ".turn"
NOT_SUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def lock_or_refuse(folder: Path, name: str = NAME, work: str = "training") -> Iterator[None]:
    """Hold the lock of `folder`; ValueError where another process holds it. work: what is done there, for the message.

    The kernel drops the lock of a process that ends in whatever way, so a file left behind holds nobody up. Where a
    file system knows no locks, the process named in the file is looked for on this machine.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / name, "a+", encoding="utf-8") as file:
        file.seek(0)
        holder = file.read().strip()
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise refusal(folder, holder, work) from None
        except OSError as error:
            if error.errno not in NOT_SUPPORTED:
                raise
            if _is_alive(holder):
                raise refusal(folder, holder, work) from None
        file.truncate(0)
        file.write(f"{socket.gethostname()} {os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


@contextmanager
def turn(folder: Path) -> Iterator[None]:
    """Hold a lock of `folder` for a moment, once it is this process's turn; where locks are unknown, at once."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / TURN, "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NOT_SUPPORTED:
                raise
        yield


def is_locked(folder: Path) -> bool:
    """Whether a training is at work in `folder` now."""
    try:
        with open(folder / NAME, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def refusal(folder: Path, holder: str, work: str) -> ValueError:
    """What to say to the second of two."""
    host, _, number = holder.partition(" ")
    who = f"process {number} on {host}" if number else "another process"
    return ValueError(
        f"{who[0].upper()}{who[1:]} is {work} in {folder} now. Wait for it, stop it, or choose another name=... ."
    )


def _is_alive(holder: str) -> bool:
    """Whether the process named in a lock's file runs on this machine; one on another machine is taken to."""
    host, _, number = holder.partition(" ")
    if not number.isdigit():
        return False
    if host != socket.gethostname():
        return True
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return int(number) != os.getpid()


@contextmanager
def wait_for_lock(path: Path) -> Iterator[None]:
    """Hold `path` as a lock; a killed holder releases it."""
    with open(path, "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
