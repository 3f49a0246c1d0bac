"""Parse the axes of a sweep: values, intervals and their grid."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from data_pipelines.conventions.suggestions import nearest_name
from emul.config.folders import options_of
from emul.config.overrides import key_of
from emul.terminal.findings import ConfigErrors, Finding


@dataclass(frozen=True)
class Settings:
    """What the sweep's own keys say, each written `sweep.<key>=`.

    verb: `train`, or `run`, which makes and scores the forecasts of every trial too, and compares them in the end.
    name: of the folder. jobs: trials at a time, null for one here and all on SLURM. search: `grid` tries every
    combination, `random` and `tpe` (which learns; needs Optuna) draw `trials` of them. metric: of the validation, the
    smaller the better. prune: stop trials that lag behind the best third of the others at the same step. seed: of the
    draws.
    """

    name: str | None = None
    verb: str = "train"
    jobs: int | None = None
    search: str = "grid"
    trials: int = 20
    metric: str = "score"
    prune: bool = False
    seed: int = 0


def parted(arguments: Sequence[str]) -> tuple[Settings, list[str]]:
    """The sweep's own keys, and all other words; ValueError for a key it lacks or a value of another kind."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    known = {one.name: str(one.type) for one in fields(Settings)}
    given: dict[str, Any] = {}
    words = []
    for word in arguments:
        if not word.startswith("sweep."):
            words.append(word)
            continue
        key = key_of(word).removeprefix("sweep.")
        if key not in known:
            raise ConfigErrors(
                [Finding(f"sweep.{key}", f"one of {', '.join(known)}", key, f"write sweep.{nearest_name(key, known)}")]
            )
        value = OverridesParser.create().parse_override(word).value()
        kind = known[key].partition(" ")[0]
        if not (value is None and "None" in known[key]) and type(value).__name__ != kind:
            raise ConfigErrors([Finding(f"sweep.{key}", known[key], repr(value))])
        given[key] = value
    settings = Settings(**given)
    if settings.search not in ("grid", "random", "tpe"):
        raise ConfigErrors([Finding("sweep.search", "grid, random or tpe", settings.search)])
    if settings.verb not in ("train", "run"):
        raise ConfigErrors([Finding("sweep.verb", "train or run", settings.verb)])
    return settings, words


@dataclass(frozen=True)
class Axis:
    """The values of one key: a list, or an interval from which is drawn, evenly or evenly in the logarithm."""

    values: tuple[str, ...] = ()
    low: float = math.nan
    high: float = math.nan
    logarithmic: bool = False

    @property
    def first(self) -> str:
        """A value to try the configuration with."""
        return self.values[0] if self.values else f"{self.low:g}"

    def drawn(self, chance: random.Random) -> str:
        """A value at random."""
        if self.values:
            return chance.choice(self.values)
        if self.logarithmic:
            return f"{math.exp(chance.uniform(math.log(self.low), math.log(self.high))):.4g}"
        return f"{chance.uniform(self.low, self.high):.4g}"


def axes_of(words: Sequence[str]) -> tuple[dict[str, Axis], list[str]]:
    """The keys that vary with their values, and the words that stay."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Glob, IntervalSweep

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


def grid(axes: Mapping[str, Axis]) -> Iterator[dict[str, str]]:
    """Every combination of the values."""
    for values in itertools.product(*(axis.values for axis in axes.values())):
        yield dict(zip(axes, values, strict=True))
