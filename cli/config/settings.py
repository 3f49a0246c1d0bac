"""Read `key=value` arguments into a dataclass: the one grammar of every verb that composes no configuration.

Values are written as on any other command line of `emul`: numbers, true, null, quoted text, lists [6h,24h] and mappings
{a: b}. The brackets of a list may be left out: 6h,24h.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from data_pipelines.conventions.suggestions import ConfigErrors, Finding, nearest_name
from data_pipelines.options.folders import groups, key_of, options_of
from data_pipelines.options.source_text import accepts, in_words, value_in_words

if TYPE_CHECKING:
    from data_pipelines.studies.trials import Axis

Schema = TypeVar("Schema")
NAMES = ("name", "output")  # top keys of a configuration that no setting's misspelling is taken for


def read_settings(schema: type[Schema], arguments: Sequence[str], prefix: str = "") -> tuple[Schema, list[str]]:
    """Return the dataclass with the values that the arguments give its fields, and the other arguments.

    prefix: before each key, such as `sweep.`. Raises ConfigErrors for values of another type, for unknown keys with the
    prefix, and for keys that are nearly one of the fields.
    """
    declared = {field.name: str(field.type) for field in fields(schema)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    rest, faults = [], []
    for argument in arguments:
        key, equals, text = argument.partition("=")
        name = key.removeprefix(prefix)
        if not equals or not key.startswith(prefix) or (name not in declared and not prefix):
            best = None if prefix else _misspelled(argument, declared)
            faults += [Finding(key, "a setting that exists", key, f"did you mean {best}=?")] if best else []
            rest.append(argument)
        elif name not in declared:
            best = nearest_name(name, declared)
            fix = f"write {prefix}{best}" if best else ""
            faults.append(Finding(key, f"one of {', '.join(declared)}", name, fix))
        else:
            try:
                values[name] = typed(text, declared[name], schema.__module__)
            except TypeError as error:
                expected, got = error.args
                faults.append(Finding(key, expected, got))
    if faults:
        raise ConfigErrors(faults)
    return schema(**values), rest


def refuse_others(arguments: Sequence[str], schema: type, verb: str) -> None:
    """Raise ConfigErrors for arguments that are settings, but none of the schema."""
    names = [field.name for field in fields(schema)]
    faults = []
    for argument in arguments:
        key, equals, _ = argument.partition("=")
        if equals:
            best = nearest_name(key, names)
            fix = f"did you mean {best}=?" if best else f"there is {', '.join(names)}"
            faults.append(Finding(key, f"a setting of `{verb}`", key, fix))
    if faults:
        raise ConfigErrors(faults)


def _misspelled(argument: str, declared: dict[str, str]) -> str | None:
    """The field that an argument nearly names; None for overrides of a configuration, paths and addresses."""
    key, equals, _ = argument.partition("=")
    if not equals or not key.isidentifier() or key in {*NAMES, *groups()} or Path(argument).exists():
        return None
    best = nearest_name(key, declared)
    return best if best and abs(len(best) - len(key)) < 3 else None


def typed(text: str, annotation: str, module: str) -> Any:
    """Return the value of a text for a field of that type. Raises TypeError(expected, got) where it is of another."""
    expression = ast.parse(annotation, mode="eval").body
    value = _parsed(text)
    if type(value) is int and annotation.split(" | ")[0] == "float":
        return float(value)
    for candidate in (value, [value], text):
        if accepts(expression, candidate, module):
            return candidate
    raise TypeError(in_words(expression, module), value_in_words(value))


def _parsed(text: str) -> Any:
    """The value that a text stands for in the grammar of Hydra; the text itself where it has no such form."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import ChoiceSweep, QuotedString, Sweep
    from hydra.errors import HydraException

    def plain(value: Any) -> Any:
        if isinstance(value, QuotedString):
            return value.text
        if isinstance(value, dict):
            return {plain(key): plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list) else value

    try:
        value = OverridesParser.create().parse_override(f"value={text}").value()
    except HydraException:
        return text
    if isinstance(value, ChoiceSweep):
        return plain(list(value.list))
    return text if isinstance(value, Sweep) else plain(value)


def split_axes(words: Sequence[str]) -> tuple[dict[str, Axis], list[str]]:
    """Split arguments into the keys that vary, with their values, and the arguments that are fixed."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Glob, IntervalSweep

    from data_pipelines.studies.trials import Axis

    axes: dict[str, Axis] = {}
    fixed = []
    for word in words:
        if word.startswith("-"):
            raise ValueError(f"emul sweep takes key=value only; got {word}.")
        override = OverridesParser.create().parse_override(word)
        if not override.is_sweep_override():
            fixed.append(word)
            continue
        values = override.value()
        if isinstance(values, IntervalSweep):
            low, high = float(values.start), float(values.end)  # type: ignore[arg-type]
            logarithmic = "log" in values.tags or (low > 0 and high / low >= 100)
            axes[key_of(word)] = Axis((), low, high, logarithmic)
        elif isinstance(values, Glob):
            axes[key_of(word)] = Axis(tuple(values.filter(options_of(key_of(word)))))
        else:
            axes[key_of(word)] = Axis(tuple(override.sweep_string_iterator()))
    return axes, fixed
