"""Train, forecast and verify machine-learning emulators of weather and climate, by command line or from Python.

The functions for Python are imported when they are first used; `emul.train` is the module of the verb, which can be
called.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

FUNCTIONS = {
    "compose": "api",
    "evaluate": "api",
    "open_data": "api",
    "open_run": "training.runs",
    "report": "api",
    "response": "api",
}
__all__ = ["compose", "evaluate", "open_data", "open_run", "report", "response", "train"]


def __getattr__(name: str) -> Any:
    if name == "train":
        return import_module("emul.train")
    if name in FUNCTIONS:
        return getattr(import_module(f"emul.{FUNCTIONS[name]}"), name)
    raise AttributeError(f"module 'emul' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
