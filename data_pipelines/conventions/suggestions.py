"""Suggest the nearest existing name for one that was misspelled."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


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
