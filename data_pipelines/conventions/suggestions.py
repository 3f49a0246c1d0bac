"""Suggest what to write instead: the nearest existing name, and options by the names that the verb in hand takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches
from typing import Any

_PREFIX: ContextVar[str] = ContextVar("prefix of the options that open data", default="data.")
_LACKING: ContextVar[tuple[str, ...]] = ContextVar("options that are not taken", default=())


@contextmanager
def options_under(prefix: str, lacking: tuple[str, ...] = ()) -> Iterator[None]:
    """Name the options that open data `<prefix><name>` in the advice of errors; without it data.<name>.

    lacking: names of options that are not taken here, and so not advised.
    """
    before, others = _PREFIX.set(prefix), _LACKING.set(lacking)
    try:
        yield
    finally:
        _PREFIX.reset(before)
        _LACKING.reset(others)


def takes_option(name: str) -> bool:
    """Return whether an option that opens data is taken here."""
    return name not in _LACKING.get()


def option(name: str) -> str:
    """Return the name of an option that opens data as the caller's user writes it: `select`, or `data.select`."""
    return _PREFIX.get() + name


def suggestion(name: str, names: Iterable[Any]) -> str:
    """End an error message: `did you mean '...'?`, or the names that exist."""
    known = [str(n) for n in names]
    best = nearest_name(name, known)
    if best:
        return f"did you mean '{best}'?"
    return listing(known)


def listing(names: Iterable[Any]) -> str:
    """End an error message with the names that exist."""
    known = [str(n) for n in names]
    more = f", and {len(known) - 40} more" if len(known) > 40 else ""
    return f"there {'are' if len(known) > 1 else 'is'} {', '.join(known[:40]) or 'none'}{more}."


def nearest_name(name: str, names: Iterable[str]) -> str | None:
    """Return the most similar of `names`, or None.

    Dotted keys are compared by their last word with the keys of the same parent first, then with all others. A key
    without a parent is first of all the last word of a longer one: steps is training.steps.
    """
    known = list(names)
    parent, _, last = name.rpartition(".")
    by_tail = {key.rpartition(".")[2]: key for key in known}
    beside = {key.rpartition(".")[2]: key for key in known if key.rpartition(".")[0] == parent}
    same = [key for key in known if key.rpartition(".")[2] == last]
    best = [] if same and not parent else get_close_matches(last, beside, 1, 0.67)
    if best:
        return beside[best[0]]
    if same:
        return (get_close_matches(name, same, 1, 0.0) or same)[0]
    elsewhere = [key for key in known if not parent or key.rpartition(".")[0] != parent]
    best = get_close_matches(name, elsewhere, 1, 0.8 if parent else 0.6)
    if best:
        return best[0]
    best = get_close_matches(last, by_tail, 1, 0.85)
    return by_tail[best[0]] if best else None
