"""Words for messages: findings, each with what was expected and what to write instead; errors in a sentence.

The nearest existing name, options as the verb in hand names them, addresses without secrets.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches
from itertools import takewhile
from pathlib import Path
from typing import Any

_PREFIX: ContextVar[str] = ContextVar("prefix of the options that open data", default="data.")
_LACKING: ContextVar[tuple[str, ...]] = ContextVar("options that are not taken", default=())


@contextmanager
def options_under(prefix: str, lacking: tuple[str, ...] = ()) -> Iterator[None]:
    """Name the options that open data `<prefix><name>` in the advice of errors; without it data.<name>.

    lacking: names of options that are not taken here, and so not advised.
    """
    prefix_token, lacking_token = _PREFIX.set(prefix), _LACKING.set(lacking)
    try:
        yield
    finally:
        _PREFIX.reset(prefix_token)
        _LACKING.reset(lacking_token)


def takes_option(name: str) -> bool:
    """Return whether an option that opens data is taken here."""
    return name not in _LACKING.get()


def option(name: str) -> str:
    """Return the name of an option that opens data as the caller's user writes it: `select`, or `data.select`."""
    return _PREFIX.get() + name


def suggestion(name: str, names: Iterable[Any]) -> str:
    """End an error message: `did you mean '...'?`, or the names that exist."""
    existing = [str(n) for n in names]
    best = nearest_name(name, existing)
    if best:
        return f"did you mean '{best}'?"
    return listing(existing)


def listing(names: Iterable[Any]) -> str:
    """End an error message with the names that exist."""
    existing = [str(n) for n in names]
    more = f", and {len(existing) - 40} more" if len(existing) > 40 else ""
    return f"there {'are' if len(existing) > 1 else 'is'} {', '.join(existing[:40]) or 'none'}{more}."


def nearest_name(name: str, names: Iterable[str]) -> str | None:
    """Return the most similar of `names`, or None.

    Dotted keys are compared by their last word with the keys of the same parent first, then with all others. A key
    without a parent is first of all the last word of a longer one: steps is training.steps.
    """
    candidates = list(names)
    if name not in candidates and (longer := [key for key in candidates if name and key.startswith(f"{name}_")]):
        return longer[0]
    parent, _, last = name.rpartition(".")
    by_tail = {key.rpartition(".")[2]: key for key in candidates}
    siblings = {key.rpartition(".")[2]: key for key in candidates if key.rpartition(".")[0] == parent}
    same = [key for key in candidates if key.rpartition(".")[2] == last]
    best = None if same and not parent else _closest(last, siblings, 0.67)
    if best:
        return siblings[best]
    if same:
        return _closest(name, same, 0.0) or same[0]
    elsewhere = [key for key in candidates if not parent or key.rpartition(".")[0] != parent]
    if best := _closest(name, elsewhere, 0.8 if parent else 0.6):
        return best
    best = _closest(last, by_tail, 0.85)
    return by_tail[best] if best else None


def _closest(word: str, words: Iterable[str], cutoff: float) -> str | None:
    """Return the most similar word; of those that share as much, the one that begins alike longest.

    A word that is whole at the beginning goes before one that begins otherwise: sfno_tiny is sfno, not afno_tiny.
    """

    def similarity(other: str) -> tuple[bool, float, int]:
        alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(word, other, strict=False)))
        return other.startswith(beginning), SequenceMatcher(None, other, word).ratio(), alike

    existing = list(words)
    beginning = max((other for other in existing if other and word.startswith(f"{other}_")), key=len, default="")
    close = get_close_matches(word, existing, 3, cutoff)
    return max([*close, *([beginning] if beginning and close else [])], key=similarity, default=None)


HIDDEN = "***"
_USER = re.compile(r"(?<=://)[^/@\s]+@")
_QUERY = re.compile(
    r"([?&](?:[\w-]*(?:token|key|sig|signature|secret|password|passwd|credential|auth)[\w-]*)=)[^&\s'\"]+", re.I
)


def masked_address(text: str) -> str:
    """Replace user and password, and secrets of a query, by `***` in an address, or in a text with addresses."""
    return _QUERY.sub(rf"\1{HIDDEN}", _USER.sub(f"{HIDDEN}@", text))


@dataclass(frozen=True)
class Finding:
    """Describe one fault. key: dotted. expected, got: in words. fix: what to write instead.

    said: True where `got` is the message of the part that refused, which includes what it expected.
    """

    key: str
    expected: str
    got: str
    fix: str = ""
    said: bool = False

    def __str__(self) -> str:
        text = self.got if self.said else f"expected {self.expected}, got {self.got}"
        text = f"{text}; {self.fix}" if self.fix else text
        return f"{self.key}: {text}" + ("" if text.endswith(("?", "!", ".")) else ".")


class ConfigErrors(ValueError):
    """Report all findings of one configuration. rest: the configuration without what could not be composed."""

    def __init__(self, findings: Iterable[Finding], rest: Any = None) -> None:
        self.findings, self.rest = list(findings), rest
        count = len(self.findings)
        title = "1 fault in the configuration:" if count == 1 else f"{count} faults in the configuration:"
        super().__init__("\n  ".join([title, *map(str, self.findings)]))


def refusal(key: str, expected: str, error: Exception, fix: str = "") -> Finding:
    """A finding in the words of the part that raised `error`."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    if not isinstance(error, ValueError | KeyError | OSError | ImportError):  # not written for a reader
        text = f"{type(error).__name__}: {error}"
    return Finding(key, expected, " ".join(str(text).split()).rstrip("."), fix, said=True)


def offer(name: str, names: Iterable[str], verb: str = "write") -> str:
    """A fix in words: the nearest name, or the list of what there is."""
    names = list(names)
    best = nearest_name(name, names)
    if best:
        return f"{verb} {best}"
    return f"there is {', '.join(sorted(names)[:12])}" if names else ""


MEMORY = re.compile(
    r"allocate memory|unable to allocate|out of memory|bad_alloc|not enough memory|failed to map segment|"
    r"can't start new thread",
    re.IGNORECASE,
)

REQUEST = re.compile(r"unable to allocate ([\d.]+ \w+)|tried to allocate ([\d.]+ \w+)", re.IGNORECASE)

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.ENOTDIR, errno.EEXIST)


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
    """Return how much memory was requested, what there is, and what takes less."""
    try:
        from data_pipelines.files.atomic import bytes_text
    except MemoryError:  # not even for this
        return "Memory was refused. Take less at a time, or raise the limit (ulimit -v); what is finished is kept."
    request = REQUEST.search(str(error))
    need = f" ({request[1] or request[2]} asked for{' on the GPU' * ('CUDA' in str(error))})" if request else ""
    resident = system_bytes("/proc/self/status", "VmRSS")
    phrases = [] if resident is None else [f"this process holds {bytes_text(resident)}"]
    free = None if "CUDA" in str(error) else system_bytes("/proc/meminfo", "MemAvailable")
    phrases += [] if free is None else [f"{bytes_text(free)} are free"]
    limit = _limit()
    phrases += [] if limit is None else [f"a process may have {bytes_text(limit)} of addresses (ulimit -v)"]
    return (
        f"Memory was refused{need}: {', '.join(phrases) or 'there is too little'}. Take less at a time "
        "(training.batch_size, loader.gigabytes, batch_size of a forecast, megabytes of eval or climatology), or raise "
        "the limit; what is finished is kept."
    )


def system_bytes(path: str, name: str) -> int | None:
    """Return a size that the system lists in kB, such as MemAvailable of /proc/meminfo; None where it does not."""
    try:
        match = re.search(rf"^{name}:\s+(\d+) kB", Path(path).read_text(), re.M)
    except OSError:
        return None
    return 1024 * int(match[1]) if match else None


def _limit() -> int | None:
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit
