"""Write files and folders atomically, under locks: under their name there is always all of the content, old or new.

Content is first written to a neighbouring path, `.<name>.<unique>.partial`, which is then renamed. A folder that may be
completed by a later process is `.<name>.partial`, so that this process finds it.

The kernel drops the lock of a file or folder when the process that holds it ends, however it ends. `filelock` is not
used: it does not say which process holds a lock, nor does it work on file systems without locks.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import resource
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


@contextmanager
def atomic_file(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path to write to, which becomes `path` when the block ends and is removed if it raises.

    durable: flush the file to the disk before it is renamed, so that a power failure leaves the old or the new content.
    """
    unfinished = _temporary(path)
    try:
        yield unfinished
        if durable:
            flush_to_disk(unfinished)
        os.replace(unfinished, path)
    finally:  # also after renaming: where both names are links to the same file, that does nothing
        unfinished.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, *, resumable: bool = False) -> Iterator[Path]:
    """Yield the path of a folder to make, which becomes `path` when the block ends.

    Only one process at a time may make it. What a process left there is removed, before the block and if it raises;
    resumable: it stays, and the block has to decide whether it can be continued.
    """
    unfinished = unfinished_folder(path)
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    if not resumable:
        shutil.rmtree(unfinished, ignore_errors=True)
    try:
        yield unfinished
        remove_unfinished(unfinished)
        os.replace(unfinished, path)
    except BaseException as error:
        if not resumable:
            shutil.rmtree(unfinished, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in FULL:
            raise could_not_write(path, error) from error
        raise


def unfinished_folder(path: Path) -> Path:
    """Return the folder in which `atomic_folder` has `path` made."""
    return path.with_name(f".{path.name}.partial")


def flush_to_disk(path: Path) -> None:
    """Wait until the content of a file is on the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _temporary(path: Path) -> Path:
    owner = f"{socket.gethostname()}.{os.getpid()}"
    return path.with_name(f".{path.name}.{owner}.{uuid.uuid4().hex[:12]}.partial")


def remove_left(path: Path) -> None:
    """Remove the temporary files that processes of this machine which have ended left of `path`."""
    start = f".{path.name}.{socket.gethostname()}."
    for file in path.parent.iterdir():
        if file.name.startswith(start) and file.name.endswith(".partial"):
            number = file.name.removeprefix(start).partition(".")[0]
            if number != str(os.getpid()) and not _is_alive(f"{socket.gethostname()} {number}"):
                file.unlink(missing_ok=True)


def remove_unfinished(folder: Path, *, within: bool = True) -> None:
    """Remove the temporary files that killed processes left in `folder`, where no other process writes.

    Those of zarr, `<chunk>.<unique>.partial`, too. within: also in the folders below.
    """
    for path in folder.rglob("*.partial") if within else folder.glob("*.partial"):
        if path.is_file():
            path.unlink(missing_ok=True)


def write_file(path: Path, *content: bytes | memoryview, durable: bool = False) -> None:
    """Write pieces of content one after the other to `path` atomically. durable: flush them to the disk, too."""
    try:
        with atomic_file(path, durable=durable) as unfinished, open(unfinished, "wb") as file:
            for piece in content:
                file.write(piece)
            file.flush()
    except OSError as error:
        raise could_not_write(path, error, sum(memoryview(piece).nbytes for piece in content)) from error


@contextmanager
def atomic_text(path: Path) -> Iterator[IO[str]]:
    """Yield a text file (UTF-8, line ends as written) that becomes `path` when the block ends."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_left(path)
        with atomic_file(path) as unfinished, open(unfinished, "w", newline="", encoding="utf-8") as file:
            yield file
            file.flush()
    except OSError as error:
        raise could_not_write(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_left(path)
    write_file(path, text.encode())


def write_if_changed(path: Path, text: str) -> None:
    """Write a text file atomically, unless it holds this text already."""
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    write_text(path, text)


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM)


def could_not_write(
    path: Path, error: Exception, need: int | None = None, saved_work: str = "what is finished is kept"
) -> OSError:
    """Return the error for a file that could not be written, with its size, the room there is, and what to do.

    need: bytes of the file. saved_work: what an interruption does not lose.
    """
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, OSError) and number is not None and error.strerror is None:
        return error  # reported already, for a file within
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    size = "" if need is None else f"it needs {bytes_text(need)}, "
    remedy = f"make room and give the same command again: {saved_work}"
    if number in (errno.ENOTDIR, errno.EEXIST):
        remedy = "a file lies where a folder is needed: choose another place"
    if number in REFUSED:
        remedy = "allow writing there, or choose another folder"
    failure = OSError(f"Could not write {path} ({reason}; {size}{room_text(path)}); {remedy}.")
    failure.errno = number
    return failure


def bytes_text(count: float) -> str:
    """Return a number of bytes in words, such as `1.5 GB`."""
    steps = sum(abs(count) >= 1000**n for n in range(1, 5))
    return f"{count / 1000**steps:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB')[steps]}"


def room_text(path: Path) -> str:
    """Return a phrase on the room on the disk of `path`, and the limit on the size of a file where there is one."""
    # os.path.isdir: the method of Path raises where a folder above may not be entered
    folder = next((candidate for candidate in (path, *path.absolute().parents) if os.path.isdir(candidate)), Path("/"))
    try:
        text = f"{bytes_text(shutil.disk_usage(folder).free)} are free there"
    except OSError:
        return "the room there is not known"
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return text if limit == resource.RLIM_INFINITY else f"{text}, a file may have {bytes_text(limit)} (ulimit -f)"


def sha256(path: Path) -> str:
    """Compute the checksum of a file, reading a piece at a time."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    return int(number) != os.getpid() and not _is_zombie(number)


def _is_zombie(number: str) -> bool:
    """Return whether a process has ended and only its parent has not asked for its exit code, where Linux says so."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False
