"""Locks of files and folders, which the kernel drops when the process that holds them ends, however it ends.

`filelock` is not used: it does not say which process holds a lock, nor does it work on file systems without locks.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

NAME, TURN = ".lock", ".turn"
NOT_SUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def lock_or_refuse(
    folder: Path, name: str = NAME, work: str = "training", other: str = "another name=..."
) -> Iterator[None]:
    """Hold the lock of `folder`; ValueError names the process that holds it already.

    work: what is done in the folder, and other: what may be chosen instead, for the message. On a file system without
    locks, the process that the lock's file names counts as the holder as long as it runs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / name, "a+", encoding="utf-8") as file:
        file.seek(0)
        holder = file.read().strip()
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _refusal(folder, holder, work, other) from None
        except OSError as error:
            if error.errno not in NOT_SUPPORTED:
                raise
            if _is_alive(holder):
                raise _refusal(folder, holder, work, other) from None
        file.truncate(0)
        file.write(f"{socket.gethostname()} {os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


@contextmanager
def lock_new_or_refuse(folder: Path, work: str = "training", other: str = "another name=...") -> Iterator[None]:
    """Hold the lock of `folder` as `lock_or_refuse` does; work that is refused leaves no folder that was not there."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        with lock_or_refuse(folder, work=work, other=other):
            yield
    except Exception:
        if missing and folder.is_dir() and {path.name for path in folder.iterdir()} <= {NAME}:
            (folder / NAME).unlink(missing_ok=True)
            with suppress(OSError):  # another process has begun beside it
                for path in missing:
                    path.rmdir()
        raise


@contextmanager
def wait_for_lock(path: Path, *, required: bool = True) -> Iterator[None]:
    """Wait until the lock `path` is free, and hold it. required: OSError on a file system without locks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if required or error.errno not in NOT_SUPPORTED:
                raise
        yield


@contextmanager
def sole_maker(path: Path) -> Iterator[None]:
    """Wait until no other process makes the file or store at `path`, and hold its lock, `.<name>.lock`, meanwhile.

    The lock's file is removed at the end, so that it does not lie beside a user's data. On a file system without locks,
    do not wait.
    """
    lock = path.with_name(f".{path.name}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with open(lock, "a", encoding="utf-8") as file:
            with _without_locks():
                fcntl.flock(file, fcntl.LOCK_EX)
            if not _lies_at(file, lock):  # its holder has removed it meanwhile
                continue
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


@contextmanager
def _without_locks() -> Iterator[None]:
    """Ignore that a file system has no locks."""
    try:
        yield
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise


def _lies_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def wait_for_turn(folder: Path) -> Iterator[None]:
    """Wait until no other process holds the turn in `folder`, and hold it for a moment.

    On a file system without locks, do not wait.
    """
    with wait_for_lock(folder / TURN, required=False):
        yield


def is_locked(folder: Path) -> bool:
    """Return whether a training runs in `folder` now."""
    try:
        with open(folder / NAME, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _refusal(folder: Path, holder: str, work: str, other: str) -> ValueError:
    """Return the error for the second process. holder: the content of the lock's file."""
    host, _, number = holder.partition(" ")
    who = f"process {number} on {host}" if number else "another process"
    return ValueError(f"{who[0].upper()}{who[1:]} is {work} in {folder} now. Wait for it, stop it, or choose {other} .")


def _is_alive(holder: str) -> bool:
    """Return whether the process named in a lock's file runs; one on another machine is assumed to."""
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
