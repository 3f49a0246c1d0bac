"""Variables and ordered sets of them: map names to channels of a tensor.

Names are those of WeatherBench 2 (`temperature`, `2m_temperature`, ...). A variable with levels takes one channel for
each level, in the order of its levels; the channel's name is `temperature_850`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property


@dataclass(frozen=True)
class Variable:
    """Describe one physical quantity.

    levels: values of the vertical coordinate, empty for a single-level field.
    positive: the direction in which a flux counts as positive: `up`, `down`, or `in` and `out` of the column of air.
    cell: what the values are over the time before them, `sum`, `mean` or `point`, with the hours covered if known (`sum
    6h`). Both as the data declare them, empty if they do not.
    truncation: largest total wavenumber of the fields, as the data declare it; None: not known to be limited.
    Variables that differ in these three alone are equal.
    """

    name: str
    units: str = ""
    levels: tuple[float, ...] = ()
    positive: str = field(default="", compare=False)
    cell: str = field(default="", compare=False)
    truncation: int | None = field(default=None, compare=False)

    @property
    def size(self) -> int:
        """The number of channels."""
        return len(self.levels) or 1

    @property
    def channels(self) -> tuple[str, ...]:
        """The names of the channels, one for each level."""
        return tuple(f"{self.name}_{level:g}" for level in self.levels) or (self.name,)


@dataclass(frozen=True)
class VariableSet:
    """Hold variables in order; `len` counts variables, `size` counts channels."""

    variables: tuple[Variable, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "variables", tuple(self.variables))
        twice = {name for name in self.names if self.names.count(name) > 1}
        if twice:
            raise ValueError(f"Expected each variable once; got {', '.join(sorted(twice))} twice or more.")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the variables, in order."""
        return tuple(variable.name for variable in self.variables)

    @cached_property
    def size(self) -> int:
        """The number of channels of all variables."""
        return sum(variable.size for variable in self.variables)

    @cached_property
    def channels(self) -> tuple[str, ...]:
        """The names of all channels, in order."""
        return tuple(channel for variable in self.variables for channel in variable.channels)

    @cached_property
    def _slices(self) -> dict[str, slice]:
        slices, start = {}, 0
        for variable in self.variables:
            slices[variable.name] = slice(start, start + variable.size)
            start += variable.size
        return slices

    def slice(self, name: str) -> slice:
        """Return the channels of variable `name`. Raises KeyError, with the names that exist."""
        if name not in self._slices:
            raise KeyError(f"No variable '{name}' here; there are {', '.join(self.names) or 'none'}.")
        return self._slices[name]

    def variable(self, name: str) -> Variable:
        """Return the variable called `name`. Raises KeyError, with the names that exist."""
        self.slice(name)
        return self.variables[self.names.index(name)]

    def select(self, names: Iterable[str]) -> VariableSet:
        """Return the named variables, in the order of `names`."""
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
        """Return the set as lists, numbers and strings, for a checkpoint."""
        return [{**asdict(variable), "levels": list(variable.levels)} for variable in self.variables]

    @classmethod
    def from_plain(cls, plain: list[dict]) -> VariableSet:
        """Return the set that `plain` described."""
        return cls(tuple(Variable(**{**fields, "levels": tuple(fields["levels"])}) for fields in plain))


def member_name(number: int, name: str) -> str:
    """Return the name under which the fields of one member of an ensemble stand beside those of others."""
    return f"member_{number}_{name}"


EASTWARD, NORTHWARD = "u_component_of_wind", "v_component_of_wind"


def wind_pairs(variables: VariableSet) -> list[tuple[str, str]]:
    """Return the names (eastward, northward) of the winds of which both components are there, on the same levels."""
    pairs = [(name, name.replace(EASTWARD, NORTHWARD)) for name in variables.names if EASTWARD in name]
    return [(u, v) for u, v in pairs if v in variables and variables.variable(u).levels == variables.variable(v).levels]
