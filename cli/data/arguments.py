"""Which part of which data a word of `emul data` is about: `fields=`, `levels=`, `years=`, `every=` beside the data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from data_pipelines.conventions.suggestions import nearest_name
from emul.config.build import build
from emul.config.compose import compose
from emul.config.declared_keys import faults
from emul.terminal.console import progress
from emul.terminal.findings import ConfigErrors

if TYPE_CHECKING:
    import xarray as xr
    from omegaconf import DictConfig

    from data_pipelines.interfaces import Source


def made_source(overrides: list[str]) -> tuple[Source, DictConfig]:
    """The data source that the overrides choose, its data made; and the configuration, named after the source.

    ConfigErrors where the source's part of the configuration has any.
    """
    path = next((word for word in overrides if "=" not in word and word[:1] not in ("-", "~", "+")), None)
    if path is not None:
        raise ValueError(
            f"Expected a data source by its keys; got {path}; write data=netcdf data.path={path} or another."
        )
    config = compose("train", ["name=${hydra:runtime.choices.data}", *overrides])
    found = [finding for finding in faults(config) if finding.key.partition(".")[0] == "data"]
    if found:
        raise ConfigErrors(found)
    source: Source = build(config.data)
    with progress("making data") as report:
        source.prepare(report)
    return source, config


def opened(arguments: list[str]) -> xr.Dataset:
    """The dataset of a source, given by overrides, or of files and stores, given by their paths."""
    from data_pipelines.opening.datasets import open_dataset

    paths = [a for a in arguments if "=" not in a.split("://")[0] or Path(a).exists()]
    rest = [a for a in arguments if a not in paths]
    if not paths:
        source, _ = made_source(rest)
        dataset = source.dataset()
        return dataset.assign_attrs(origin=dataset.attrs.get("origin", str(source.path)))
    choices = dict(a.split("=", 1) for a in rest)
    select, names = choices.pop("select", None), choices.pop("names", None)
    if choices:
        raise ValueError(
            f"With a path only select={{dimension: label}} and names=cesm are understood; got {', '.join(choices)}."
        )
    path = paths if len(paths) > 1 else paths[0]
    return open_dataset(path, names=names, select=_mapping(select) if select else None)


def _mapping(text: str) -> dict[str, object]:
    """`{number: 0}` as a mapping."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    try:
        value = OverridesParser.create().parse_override(f"select={text}").value()
    except OverrideParseException:
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"Expected select={{dimension: label}}, such as select={{number: 0}}; got select={text}.")
    return {str(key): label for key, label in value.items()}


KEYS = ("fields", "levels", "years", "every")


def sliced(arguments: list[str], keys: Iterable[str] = ()) -> tuple[xr.Dataset, dict[str, Any], dict[str, Any]]:
    """(the dataset, what the words say of `keys`, all that it is a part of as plain words).

    The other words name the data, by the keys of a source or by paths.
    """
    from data_pipelines.derived.selection import part_of

    settings, rest = settings_of(arguments, (*KEYS, *keys))
    chosen = {key: settings.pop(key) for key in KEYS if key in settings}
    dataset = opened(rest)
    recipe = {"data": rest, "origin": str(dataset.attrs.get("origin", "")), **chosen}
    return part_of(dataset, **chosen), settings, recipe


def settings_of(arguments: list[str], keys: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
    """What the words say of `keys`, and the rest of them."""
    known = tuple(keys)
    own = [word for word in arguments if word.partition("=")[0] in known]
    try:
        told = OmegaConf.to_container(OmegaConf.from_dotlist(own))
    except (YAMLError, OmegaConfBaseException) as error:
        raise ValueError(f"Cannot read {' '.join(own)}; expected such as years=[1990,2019].") from error
    assert isinstance(told, dict)
    return {str(key): value for key, value in told.items()}, [word for word in arguments if word not in own]


def settings(arguments: list[str], kinds: Mapping[str, type]) -> tuple[dict[str, Any], list[str]]:
    """Values of the keys in `kinds`, and the rest of the words; ValueError where one is of another kind.

    A key without a dot that is no group of the configuration, but nearly one of these, is taken for a slip.
    """
    found, rest = {}, []
    for word in arguments:
        key, _, text = word.partition("=")
        if key not in kinds:
            best = nearest_name(key, list(kinds)) if "." not in key and "@" not in key else None
            if best and abs(len(best) - len(key)) < 3 and key not in ("data", "name", "output", "variables"):
                raise ValueError(f"No setting '{key}' here; did you mean {best}=?")
            rest.append(word)
            continue
        try:
            found[key] = kinds[key](text)
        except ValueError as error:
            words = {int: "a whole number", float: "a number"}.get(kinds[key], "text")
            raise ValueError(f"{key}: expected {words}; got '{text}'.") from error
    return found, rest
