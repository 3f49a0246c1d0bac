"""Dispatch `emul data`, and open the data that its words name: a source by its keys, or files and stores by paths."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from omegaconf import DictConfig, OmegaConf

from data_pipelines.conventions.suggestions import ConfigErrors, nearest_name
from data_pipelines.files.fingerprints import fingerprint, stable
from data_pipelines.files.identity import recipe_of
from emul.config.build import build
from emul.config.compose import compose
from emul.config.saved import config_faults, plain
from emul.config.settings import read_settings
from emul.terminal.console import progress
from emul.terminal.verbs import DATA_WORDS

if TYPE_CHECKING:
    import xarray as xr

    from data_pipelines.batches.world import VariableRoles
    from data_pipelines.interfaces import Source


USAGE = f"Expected `emul data {'|'.join(DATA_WORDS)} [data=...]` or `emul data inspect path`"


def main(arguments: list[str]) -> int:
    """Run the word that `arguments` begin with; ValueError where there is no such word."""
    word, *rest = arguments or [""]
    if word not in DATA_WORDS:
        if best := nearest_name(word, DATA_WORDS) if word else None:
            raise ValueError(f"There is no `emul data {word}`; did you mean `emul data {best}`?")
        raise ValueError(f"{USAGE}; got `emul data {' '.join(arguments)}`.".replace(" `.", "`."))
    return importlib.import_module(f"emul.data.{word}").main(rest) or 0


def prepared_source(overrides: list[str]) -> tuple[Source, DictConfig]:
    """The data source that the overrides choose, its data made; and the configuration, named after the source.

    ConfigErrors where the source's part of the configuration has any.
    """
    path = next((word for word in overrides if "=" not in word and word[:1] not in ("-", "~", "+")), None)
    if path is not None:
        from data_pipelines.inspection.proposals import group_and_place

        kind = group_and_place([path])[0]  # refuses what is not there
        raise ValueError(f"Expected a data source by its keys; got {path}; write data={kind} data.path={path}.")
    config = compose("train", ["name=${hydra:runtime.choices.data}", *overrides])
    faults = [finding for finding in config_faults(config) if finding.key.partition(".")[0] in ("data", "name")]
    if faults:
        raise ConfigErrors(faults)
    source: Source = build(config.data)
    with progress("making data") as report:
        source.prepare(report)
    return source, config


def made_from(source: Source, config: DictConfig) -> dict[str, Any]:
    """The identity of the data of a source: its settings, but for places, and a fingerprint of its files."""
    return {"recipe": recipe_of(plain(config.data)), "fingerprint": stable(fingerprint(source.path))}


def roles(config: DictConfig, dataset: xr.Dataset) -> VariableRoles:
    """The roles of the configuration; where it leaves them open, all that varies in time, and all that does not."""
    from data_pipelines.batches.world import VariableRoles

    if not OmegaConf.is_missing(config.variables, "prognostic"):
        return build(config.variables)
    moving = [str(name) for name, field in dataset.data_vars.items() if "time" in field.dims]
    if not moving:
        variable_names = ", ".join(map(str, dataset.data_vars))
        raise ValueError(
            f"Expected fields at several times; {dataset.attrs.get('origin', 'the data')} has {variable_names}."
        )
    return VariableRoles(prognostic=moving, static=[str(name) for name in dataset.data_vars if name not in moving])


@dataclass(frozen=True)
class OpenOptions:
    """Hold the options for opening paths.

    select: {dimension: label}. names: a table of names, such as cesm. rename: {name in the files: name to use}.
    members: dimension of the members. dates: of a dimension without dates of its own, {month: 1979-01/1M}.
    """

    select: Mapping[str, Any] | None = None
    names: str | None = None
    rename: Mapping[str, str] | None = None
    members: str | None = None
    dates: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Selection:
    """Select a part of a dataset.

    fields: variable names. levels: in the unit of the data. years: [first, last], a period start/end, or one year,
    month or day. every: the step between times, such as 6h.
    """

    fields: list[str] | None = None
    levels: list[float] | None = None
    years: str | int | list[str | int] | None = None
    every: str | None = None


Settings = TypeVar("Settings", bound=Selection)


def paths_and_rest(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Separate paths and addresses from `key=value`."""
    paths = [word for word in arguments if "=" not in word.split("://")[0] or Path(word).exists()]
    return paths, [word for word in arguments if word not in paths]


def open_data(arguments: list[str]) -> xr.Dataset:
    """The dataset of a source, given by overrides, or of files and stores, given by their paths."""
    return _opened(arguments)[0]


def _opened(arguments: list[str]) -> tuple[xr.Dataset, Any]:
    """The dataset that the arguments name, and its path or paths."""
    from data_pipelines.conventions.suggestions import options_under
    from data_pipelines.opening.datasets import open_dataset

    paths, rest = paths_and_rest(arguments)
    if not paths:
        source, _ = prepared_source(rest)
        dataset = source.dataset()
        return dataset.assign_attrs(origin=dataset.attrs.get("origin", str(source.path))), source.path
    options, others = read_settings(OpenOptions, rest)
    if others:
        raise ValueError(
            "With a path only select={dimension: label}, names=cesm, rename={old: new}, members=number and "
            f"dates={{month: 1979-01/1M}} are understood; got {', '.join(others)}."
        )
    path = paths if len(paths) > 1 else paths[0]
    with options_under(""):
        return open_dataset(path, **vars(options)), path


def selected(arguments: list[str], schema: type[Settings]) -> tuple[xr.Dataset, Settings, dict[str, Any]]:
    """Open the part of the data that the arguments select.

    Returns the dataset, the settings, and a record of where it comes from. The arguments that are no settings name the
    data, by the keys of a source or by paths.
    """
    from data_pipelines.derived.shaping import part_of

    settings, rest = read_settings(schema, arguments)
    dataset, path = _opened(rest)
    names = {field.name for field in fields(Selection)}
    selection = {name: value for name, value in vars(settings).items() if name in names and value is not None}
    recipe = {"data": rest, "origin": str(dataset.attrs.get("origin", "")), **selection}
    recipe["fingerprint"] = stable(fingerprint(path))
    return part_of(dataset, **selection), settings, recipe
