"""`emul data`: dispatch to the module of the word that follows."""

from __future__ import annotations

import importlib

from data_pipelines.conventions.suggestions import nearest_name
from emul.terminal.verbs import DATA_WORDS

USAGE = f"Expected `emul data {'|'.join(DATA_WORDS)} [data=...]` or `emul data inspect path`"


def main(arguments: list[str]) -> int:
    """Run the word that `arguments` begin with; ValueError where there is no such word."""
    word, *rest = arguments or [""]
    if word not in DATA_WORDS:
        if best := nearest_name(word, DATA_WORDS) if word else None:
            raise ValueError(f"There is no `emul data {word}`; did you mean `emul data {best}`?")
        raise ValueError(f"{USAGE}; got `emul data {' '.join(arguments)}`.".replace(" `.", "`."))
    return importlib.import_module(f"emul.data.{word}").main(rest) or 0
