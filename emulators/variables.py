"""Variables and ordered sets of them: names on one side, channels of a tensor on the other.

Names are those of WeatherBench 2 (`temperature`, `2m_temperature`, ...). A variable with levels takes one channel
a level, in the order of its levels; the channel's name is `temperature_850`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property


@dataclass(frozen=True)
class Variable:
    """One physical quantity. levels: values of the vertical coordinate, empty for a single-level field.

    positive: of a flux, which way it counts: `up`, `down`, or `in` and `out` of the column of air. cell: what its
    numbers are between two times: `sum`, `mean` or `point`, with the hours they cover where these are known (`sum 6h`).
    Both as the source of the data declares them, empty where it does not; they are no part of what a variable is.
    """

    name: str
    units: str = ""
    levels: tuple[float, ...] = ()
    positive: str = field(default="", compare=False)
    cell: str = field(default="", compare=False)

    @property
    def size(self) -> int:
        """Number of channels."""
        return len(self.levels) or 1

    @property
    def channels(self) -> tuple[str, ...]:
        """One name a channel."""
        return tuple(f"{self.name}_{level:g}" for level in self.levels) or (self.name,)


@dataclass(frozen=True)
class VariableSet:
    """An ordered set of variables; `len` counts variables, `size` counts channels."""

    variables: tuple[Variable, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "variables", tuple(self.variables))
        twice = {name for name in self.names if self.names.count(name) > 1}
        if twice:
            raise ValueError(f"A variable may appear once in a set; {sorted(twice)} appear more often.")

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(variable.name for variable in self.variables)

    @cached_property
    def size(self) -> int:
        """Number of channels of all variables."""
        return sum(variable.size for variable in self.variables)

    @cached_property
    def channels(self) -> tuple[str, ...]:
        """The name of every channel, in order."""
        return tuple(channel for variable in self.variables for channel in variable.channels)

    @cached_property
    def _slices(self) -> dict[str, slice]:
        slices, start = {}, 0
        for variable in self.variables:
            slices[variable.name] = slice(start, start + variable.size)
            start += variable.size
        return slices

    def slice(self, name: str) -> slice:
        """The channels of variable `name`; KeyError names what there is."""
        if name not in self._slices:
            raise KeyError(f"No variable '{name}' here; there are {', '.join(self.names) or 'none'}.")
        return self._slices[name]

    def variable(self, name: str) -> Variable:
        """The variable called `name`; KeyError names what there is."""
        self.slice(name)
        return self.variables[self.names.index(name)]

    def select(self, names: Iterable[str]) -> VariableSet:
        """The named variables, in the order asked for."""
        return VariableSet(tuple(self.variable(name) for name in names))

    def __add__(self, other: VariableSet) -> VariableSet:
        return VariableSet(self.variables + other.variables)

    def __contains__(self, name: object) -> bool:
        return name in self._slices

    def __iter__(self) -> Iterator[Variable]:
        return iter(self.variables)

    def __len__(self) -> int:
        return len(self.variables)

    def plain(self) -> list[dict]:
        """The set as lists and strings, for a checkpoint."""
        return [
            {"name": v.name, "units": v.units, "levels": list(v.levels), "positive": v.positive, "cell": v.cell}
            for v in self.variables
        ]

    @classmethod
    def from_plain(cls, plain: list[dict]) -> VariableSet:
        return cls(
            tuple(
                Variable(v["name"], v["units"], tuple(v["levels"]), v.get("positive", ""), v.get("cell", ""))
                for v in plain
            )
        )
