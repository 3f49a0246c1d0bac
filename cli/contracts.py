"""Contracts of parts, to test one's own: what every loss, constraint, metric, model and dataset must do.

    from emul.contracts import check_folder

    def test_parts():
        check_folder("my_parts")

Each `check_*` takes the part's configuration (a mapping with `_target_`) or its class, and raises AssertionError with
the contract that is broken. The tests of this package run the same functions on its own parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from data_pipelines.options.documentation import options
from data_pipelines.options.folders import groups, use_folders
from data_pipelines.options.signatures import wrapping
from emul.config.build import build
from emul.config.saved import config_faults
from emulators.contracts.example_worlds import column_world, small_world
from emulators.contracts.parts import CONSTRAINT, LOSS, METRIC, MODEL, require
from emulators.interfaces import NetworkModule, optional
from emulators.world import World

Part = Any  # a mapping with _target_, or a class


def built(part: Part, *args: Any) -> Any:
    """Build a part from its configuration or class."""
    if isinstance(part, Mapping | DictConfig):
        wrapped = {parameter.name for parameter in wrapping("loss")}
        return build({str(key): value for key, value in part.items() if key not in wrapped}, *args)
    return part(*args)


def check_loss(loss: Part, world: World | None = None) -> None:
    """Check a loss on a World, by default one of whole columns of air."""
    world = world or column_world()
    for contract in LOSS:
        contract(built(loss, world), world)


def check_constraint(constraint: Part, world: World | None = None) -> None:
    """Check a constraint on a World, by default one of whole columns of air."""
    world = world or column_world()
    for contract in CONSTRAINT:
        contract(built(constraint, world), world)


def check_metric(metric: Part) -> None:
    """Check a metric on six cases of four members."""
    for contract in METRIC:
        contract(built(metric))


def check_model(model: Part, world: World | None = None) -> None:
    """Check a network on a World, by default six channels on a tiny grid, or on the EXAMPLE_GRID of its module."""

    def build_model(world: World) -> torch.nn.Module:
        torch.manual_seed(0)
        return built(model, world)

    target = model["_target_"] if isinstance(model, Mapping | DictConfig) else f"{model.__module__}."
    grid = optional(import_module(str(target).rpartition(".")[0]), NetworkModule, "EXAMPLE_GRID")
    for contract in MODEL:
        contract(build_model, world or small_world(grid or "gaussian"))


def check_dataset(dataset: Part) -> None:
    """Make a dataset, open it, and compare it with its template."""
    from data_pipelines.conventions.attributes import grid_of
    from data_pipelines.conventions.durations import bounds

    source = built(dataset)
    source.prepare()
    template, data = source.template(), source.dataset()
    require("time" in data.dims, "a dataset has a dimension `time`")
    require((np.diff(data["time"].values) > np.timedelta64(0)).all(), "times rise")
    require(grid_of(data).same_as(grid_of(template)), "the template has the grid of the dataset")
    for name, field in data.data_vars.items():
        expected = template[name]
        same = (expected.dims, expected.shape) == (field.dims, field.shape)
        require(same, f"the template has {name} {field.dims} {field.shape}, not {expected.dims} {expected.shape}")
        require(field.attrs.get("units") is not None, f"{name} has units")
    for name, period in source.splits.items():
        require(period is None or bounds(period)[0] <= bounds(period)[1], f"split {name} is a period")


CHECKS: dict[str, Callable[[Part], None]] = {
    "loss": check_loss, "constraint": check_constraint, "metric": check_metric, "model": check_model,
    "data": check_dataset,
}  # fmt: skip


def options_in(folder: str | Path) -> Iterator[tuple[str, str, Path]]:
    """Group, name and file of every option in a folder."""
    for group in groups():
        for file in sorted((Path(folder) / group).glob("*.yaml")):
            yield group, file.stem, file


def check_folder(folder: str | Path) -> None:
    """Check every option in a folder of one's own: it composes, has a comment for each key, and its part is sound."""
    from emul.config.compose import compose

    files = {f"{group}/{name}" for group, name, _ in options_in(folder)}
    require(files, f"{folder} holds options, such as loss/<name>.yaml")
    use_folders([folder])
    silent = [f"{option.file}: {option.key}" for option in options() if option.file in files and not option.comment]
    require(not silent, f"every option has a comment beside it: {', '.join(silent)}")
    for group, name, _ in options_in(folder):
        is_list = group in ("loss", "constraint", "metric", "logger")
        config = compose("train", [f"{group}=[{name}]" if is_list else f"{group}={name}"])
        faults = [str(finding) for finding in config_faults(config)]
        require(not faults, f"{group}={name}: {'; '.join(faults)}")
        if group in CHECKS:
            try:
                CHECKS[group](config[group][name] if is_list else config[group])
            except AssertionError as error:
                raise AssertionError(f"{group}={name}: {error}") from error
