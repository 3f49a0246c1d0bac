"""Parse the axes of a sweep: values, intervals and their grid."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from emul.config.folders import options_of
from emul.config.overrides import key_of


@dataclass(frozen=True)
class SweepSettings:
    """Settings of a sweep, each written `sweep.<key>=`.

    verb: `train`, or `run`, which makes and scores the forecasts of every trial too, and compares them in the end.
    name: of the folder. jobs: trials at a time, null for one here and all on SLURM. search: `grid` tries every
    combination, `random` and `tpe` (which learns; needs Optuna) draw `trials` of them. metric: of the validation, the
    smaller the better. prune: stop trials that lag behind the best third of the others at the same step. seed: of the
    draws.
    """

    name: str | None = None
    verb: Literal["train", "run"] = "train"
    jobs: int | None = None
    search: Literal["grid", "random", "tpe"] = "grid"
    trials: int = 20
    metric: str = "score"
    prune: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Axis:
    """Hold the values of one key: a list, or an interval to draw from, evenly or evenly in the logarithm."""

    values: tuple[str, ...] = ()
    low: float = math.nan
    high: float = math.nan
    logarithmic: bool = False

    @property
    def first(self) -> str:
        """A value to try the configuration with."""
        return self.values[0] if self.values else f"{self.low:g}"

    def random_value(self, chance: random.Random) -> str:
        """A value at random."""
        if self.values:
            return chance.choice(self.values)
        if self.logarithmic:
            return f"{math.exp(chance.uniform(math.log(self.low), math.log(self.high))):.4g}"
        return f"{chance.uniform(self.low, self.high):.4g}"


def split_axes(words: Sequence[str]) -> tuple[dict[str, Axis], list[str]]:
    """Split arguments into the keys that vary, with their values, and the arguments that are fixed."""
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


def combinations(axes: Mapping[str, Axis]) -> Iterator[dict[str, str]]:
    """Every combination of the values."""
    for values in itertools.product(*(axis.values for axis in axes.values())):
        yield dict(zip(axes, values, strict=True))
