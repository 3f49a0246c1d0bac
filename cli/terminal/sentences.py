"""Errors in a sentence for the user: faults of the input, full disks and refused memory."""

from __future__ import annotations

import errno
import re
from pathlib import Path

MEMORY = re.compile(
    r"allocate memory|unable to allocate|out of memory|bad_alloc|not enough memory|failed to map segment|"
    r"can't start new thread",
    re.IGNORECASE,
)
REQUEST = re.compile(r"unable to allocate ([\d.]+ \w+)|tried to allocate ([\d.]+ \w+)", re.IGNORECASE)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)


def sentence(error: BaseException) -> str | None:
    """Return what to tell the user of an error of theirs, or of their machine; None for an error of ours."""
    if is_of_memory(error):
        return memory_sentence(error)
    if isinstance(error, OSError) and error.errno in FULL and error.filename and error.strerror:
        from data_pipelines.files.atomic import could_not_write

        return str(could_not_write(Path(str(error.filename2 or error.filename)), error))
    if isinstance(error, ValueError | OSError) or type(error).__module__.startswith(("hydra.", "omegaconf.")):
        return str(error) or type(error).__name__
    if isinstance(error, KeyError) and error.args and " " in str(error.args[0]):
        return str(error.args[0])
    return None


def is_of_memory(error: BaseException) -> bool:
    """Return whether an error, or one that caused it, is that memory was refused."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    if isinstance(error, RuntimeError | ImportError) and MEMORY.search(str(error)):
        return True
    return error.__cause__ is not None and is_of_memory(error.__cause__)


def memory_sentence(error: BaseException) -> str:
    """Return how much memory was asked for, what there is, and what takes less."""
    try:
        from data_pipelines.files.atomic import bytes_text
    except MemoryError:  # not even for this
        return "Memory was refused. Take less at a time, or raise the limit (ulimit -v); what is finished is kept."
    asked = REQUEST.search(str(error))
    need = f" ({asked[1] or asked[2]} asked for{' on the GPU' * ('CUDA' in str(error))})" if asked else ""
    held = system_bytes("/proc/self/status", "VmRSS")
    parts = [] if held is None else [f"this process holds {bytes_text(held)}"]
    free = None if "CUDA" in str(error) else system_bytes("/proc/meminfo", "MemAvailable")
    parts += [] if free is None else [f"{bytes_text(free)} are free"]
    limit = _limit()
    parts += [] if limit is None else [f"a process may have {bytes_text(limit)} of addresses (ulimit -v)"]
    return (
        f"Memory was refused{need}: {', '.join(parts) or 'there is too little'}. Take less at a time "
        "(training.batch_size, loader.gigabytes, batch_size of a forecast, megabytes of eval or climatology), or raise "
        "the limit; what is finished is kept."
    )


def system_bytes(path: str, name: str) -> int | None:
    """Return a size that the system lists in kB, such as MemAvailable of /proc/meminfo; None where it does not."""
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB", Path(path).read_text(), re.M)
    except OSError:
        return None
    return 1024 * int(found[1]) if found else None


def _limit() -> int | None:
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit
