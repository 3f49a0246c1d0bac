"""Names that are not there: the likeliest one that is."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


def suggestion(name: str, names: Iterable[Any]) -> str:
    """A clause that names the likeliest spelling of `name`, or what there is."""
    names = [str(n) for n in names]
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"there {'are' if len(names) > 1 else 'is'} {', '.join(names[:40]) or 'none'}."
