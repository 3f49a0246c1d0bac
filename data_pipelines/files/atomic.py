"""Write files and folders atomically: under their name there is always all of the content, old or new, never a part.

Content is first written to a neighbouring path, `.<name>.<unique>.partial`, which is then renamed. A folder that may be
completed by a later process is `.<name>.partial`, so that this process finds it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
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
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files that killed processes left anywhere below `folder`, where no other process writes."""
    for path in folder.rglob(".*.partial"):
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
        with atomic_file(path) as unfinished, open(unfinished, "w", newline="", encoding="utf-8") as file:
            yield file
            file.flush()
    except OSError as error:
        raise could_not_write(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, text.encode())


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM)


def could_not_write(
    path: Path, error: Exception, need: int | None = None, kept: str = "what is finished is kept"
) -> OSError:
    """Return the error for a file that could not be written, with its size, the room there is, and what to do.

    need: bytes of the file. kept: what an interruption does not lose.
    """
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, OSError) and number is not None and error.strerror is None:
        return error  # told already, of a file within
    said = (error.strerror if isinstance(error, OSError) else None) or str(error)
    size = "" if need is None else f"it needs {bytes_text(need)}, "
    do = f"make room and give the same command again: {kept}"
    if number in REFUSED:
        do = "allow writing there, or choose another folder"
    found = OSError(f"Could not write {path} ({said}; {size}{room_text(path)}); {do}.")
    found.errno = number
    return found


def bytes_text(count: float) -> str:
    """Return a number of bytes in words, such as `1.5 GB`."""
    steps = sum(abs(count) >= 1000**n for n in range(1, 5))
    return f"{count / 1000**steps:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB')[steps]}"


def room_text(path: Path) -> str:
    """Return a phrase on the room on the disk of `path`, and the limit on the size of a file where there is one."""
    folder = next((one for one in (path, *path.absolute().parents) if one.is_dir()), Path("/"))
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
