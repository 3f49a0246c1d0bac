"""`emul new loss|model|metric|constraint|dataset NAME`: templates of a part of your own, Python and YAML."""

from __future__ import annotations

import shlex
from pathlib import Path

from rich.markup import escape

from data_pipelines.conventions.suggestions import nearest_name
from data_pipelines.files.atomic import write_text
from emul.config.folders import options_of, user_folders
from emul.terminal.console import console

KINDS = {"loss": "loss", "model": "model", "metric": "metric", "constraint": "constraint", "dataset": "data"}
LISTED = ("loss", "metric", "constraint")  # any number of them are chosen, each under its name
LOSS = '''"""{title}: say here what it measures, with its equation and reference.

    L = mean over channels and area of  |prediction - target| / s_c
"""

import torch
from torch import Tensor, nn

from emulators.scores.channel_weights import AreaChannelWeights
from emulators.state import State
from emulators.world import World


class {title}(nn.Module):
    """One number a case of two States. power: of the absolute error."""

    def __init__(self, world: World, *, power: float = 1.0) -> None:
        super().__init__()
        self.power = power
        self.weights = AreaChannelWeights(world, "tendency_std", "uniform", "uniform")  # scales, cell areas

    def forward(self, prediction: State, target: State) -> Tensor:
        with torch.autocast(prediction.values.device.type, enabled=False):  # means in single precision
            error = self.weights.scaled(self.weights.difference(prediction, target), prediction)
            return self.weights.mean(error.abs().pow(self.power))
'''
LOSS_YAML = """# Mean power of the absolute error, in units of a timestep's change.
{name}:
  _target_: {name}.{title}
  weight: 1.0  # of this loss in the sum
  start: 0  # optimiser step, or share of the training below 1, from which it counts
  end: null  # the same, up to which it counts; null: the last
  power: 1.0  # of the absolute error
"""
MODEL = '''"""{title}: say here what the network is, with its reference."""

import torch
from torch import Tensor, nn

from emulators.world import World


class {title}(nn.Module):
    """Map (batch, input channels, *grid) to (batch, output channels, *grid), both normalised. width: of the layer."""

    def __init__(self, world: World, *, width: int = 32) -> None:
        super().__init__()
        self.encode = nn.Linear(world.input_channels, width)
        self.decode = nn.Linear(width, world.output_channels)

    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        """time: seconds since 1970, (batch,)."""
        columns = fields.movedim(1, -1)
        return self.decode(torch.nn.functional.gelu(self.encode(columns))).movedim(-1, 1)
'''
MODEL_YAML = """# A network of two layers in each column of the grid.
_target_: {name}.{title}
width: 32  # channels of the hidden layer
"""
METRIC = '''"""{title}: say here what it measures, with its reference."""

from collections.abc import Mapping

from torch import Tensor

from emulators.scores.interfaces import Metric


class {title}(Metric):
    """Mean absolute error above a threshold, in the variable's units. threshold: errors below it count nothing."""

    exponent = 1  # power of the variable's units
    definition = "mean over inits and area of |forecast - truth| where it exceeds a threshold"

    def __init__(self, *, threshold: float = 0.0) -> None:
        self.threshold = threshold

    def statistics(self, prediction: Tensor, target: Tensor, climatology: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Terms of each point, of the shape of `target`; the name of a term stands for one formula everywhere."""
        error = (prediction - target).abs()
        return {{f"error_above_{{self.threshold:g}}": error.where(~(error < self.threshold), 0.0)}}

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        """The score from the means of the terms over area and initial times."""
        return means[f"error_above_{{self.threshold:g}}"]
'''
METRIC_YAML = """# Mean absolute error above a threshold.
{name}:
  _target_: {name}.{title}
  threshold: 0.0  # smaller errors count nothing, in the variable's units
"""
CONSTRAINT = '''"""{title}: say here which law every step obeys, with its reference.

    after_v = max(after_v, minimum)
"""

from emulators.state import State
from emulators.world import World


class {title}:
    """Change the State after a step so that it obeys the law. variable: its name. minimum: in SI units."""

    def __init__(self, world: World, *, variable: str = "specific_humidity", minimum: float = 0.0) -> None:
        if variable not in world.predicted:
            raise ValueError(f"{name} expects one of {{', '.join(world.predicted.names)}}, got {{variable}}.")
        self.variable, self.minimum = variable, minimum
        self.changes = (variable,)  # all that it changes

    def __call__(self, before: State, after: State, forcing: State) -> State:
        return after.with_(**{{self.variable: after[self.variable].clamp(min=self.minimum)}})
'''
CONSTRAINT_YAML = """# A variable never falls below a minimum.
{name}:
  _target_: {name}.{title}
  variable: specific_humidity  # a predicted variable
  minimum: 0.0  # in SI units
"""
DATASET = '''"""{title}: say here what the data are, with their reference."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from data_pipelines.interfaces import Progress
from emulators.grid import equiangular_grid


@dataclass(frozen=True)
class {title}:
    """A wave that travels eastward. days: of data, every 6 hours from 2001. splits: first and last time of each."""

    days: int = 60
    splits: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Where the data are."""
        return "memory"

    def prepare(self, progress: Progress | None = None) -> None:
        """Make the data where they are missing."""

    def template(self) -> xr.Dataset:
        """Coordinates, attributes and shapes, without reading data."""
        return self.dataset()

    def dataset(self) -> xr.Dataset:
        """The fields by WeatherBench 2 names in SI units, (time, latitude, longitude), latitude from north to south."""
        grid = equiangular_grid(8)
        hours = np.arange(0, 24 * self.days, 6)
        phase = np.deg2rad(grid.longitude)[None, None, :] - 2 * np.pi * hours[:, None, None] / 96
        field = 280.0 + 10.0 * np.cos(np.deg2rad(grid.latitude))[None, :, None] * np.sin(phase)
        time = np.datetime64("2001-01-01", "ns") + hours * np.timedelta64(1, "h")
        coords = {{"time": time, "latitude": grid.latitude, "longitude": grid.longitude}}
        variable = (("time", "latitude", "longitude"), field.astype(np.float32), {{"units": "K"}})
        return xr.Dataset({{"2m_temperature": variable}}, coords)
'''
DATASET_YAML = """# @package _global_
# A wave of temperature that travels eastward.
defaults:
  - override /variables: listed
data:
  _target_: {name}.{title}
  days: 60  # length of the data
  splits:  # first and last time, both included
    train: ["2001-01-01", "2001-01-31"]  # for gradients
    validation: ["2001-02-03", "2001-02-10"]  # for choosing the best weights
    test: ["2001-02-13", "2001-03-01"]  # for forecasts
variables:
  prognostic: [2m_temperature]  # what is predicted, each step from the last
"""
TEMPLATES = {
    "loss": (LOSS, LOSS_YAML), "model": (MODEL, MODEL_YAML), "metric": (METRIC, METRIC_YAML),
    "constraint": (CONSTRAINT, CONSTRAINT_YAML), "dataset": (DATASET, DATASET_YAML),
}  # fmt: skip


def main(arguments: list[str]) -> int:
    """Write both files into the folder of --config-dir, of EMUL_CONF, or my_parts; neither may exist."""
    if len(arguments) != 2 or arguments[0] not in KINDS:
        best = (nearest_name(arguments[0], KINDS) if arguments else None) or "loss"
        raise ValueError(f"Expected `emul new {'|'.join(KINDS)} NAME`; write emul new {best} my_{best}.")
    kind, name = arguments
    if not name.isidentifier() or name != name.lower():
        raise ValueError(f"A name is made of small letters, digits and underscores, such as curvature; got '{name}'.")
    group = KINDS[kind]
    if name in options_of(group):
        raise ValueError(f"There is a {kind} '{name}' already; take another name.")
    folder = next(iter(user_folders()), Path("my_parts"))
    title = "".join(word.capitalize() for word in name.split("_"))
    files = folder / f"{name}.py", folder / group / f"{name}.yaml"
    for file, template in zip(files, TEMPLATES[kind], strict=True):
        if file.exists():
            raise FileExistsError(f"{file} exists; take another name.")
        write_text(file, template.format(name=name, title=title))
        console().print(f"wrote [key]{escape(str(file))}[/]", soft_wrap=True)
    chosen = f"'{group}=[{name}]'" if kind in LISTED else f"{group}={name}"
    line = f"emul check --config-dir {shlex.quote(str(folder))} {chosen}"
    console().print(escape(line), style="key", soft_wrap=True)
    return 0
