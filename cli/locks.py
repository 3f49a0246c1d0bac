"""One training at a time in a run folder: a lock that dies with the process that holds it."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAME = ".lock"
NOT_SUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def sole(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`; ValueError where another process holds it.

    The kernel drops the lock of a process that ends in whatever way, so a file left behind holds nobody up. Where a
    file system knows no locks, the process named in the file is looked for on this machine.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / NAME, "a+", encoding="utf-8") as file:
        file.seek(0)
        holder = file.read().strip()
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise refusal(folder, holder) from None
        except OSError as error:
            if error.errno not in NOT_SUPPORTED:
                raise
            if _is_alive(holder):
                raise refusal(folder, holder) from None
        file.truncate(0)
        file.write(f"{socket.gethostname()} {os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def is_held(folder: Path) -> bool:
    """Whether a training is at work in `folder` now."""
    try:
        with open(folder / NAME, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def refusal(folder: Path, holder: str) -> ValueError:
    """What to say to the second of two."""
    host, _, number = holder.partition(" ")
    who = f"process {number} on {host}" if number else "another process"
    return ValueError(
        f"{who[0].upper()}{who[1:]} is training in {folder} now. Wait for it, stop it, or choose another name=... ."
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
