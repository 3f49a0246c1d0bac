"""Train, forecast and verify machine-learning emulators of weather and climate, by command line or from Python.

The functions for Python are those of `emul.api`, imported when they are first used: compose, open_data, train,
open_run and evaluate.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["compose", "evaluate", "open_data", "open_run", "train"]


def __getattr__(name: str) -> Any:
    if name == "train":  # the module of the verb, which can be called
        return import_module("emul.train")
    if name in __all__:
        return getattr(import_module("emul.api"), name)
    raise AttributeError(f"module 'emul' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
