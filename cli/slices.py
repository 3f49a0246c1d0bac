"""Which part of which data a word of `emul data` is about: `fields=`, `levels=`, `years=`, `every=` beside the data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from emul.inspection import opened

if TYPE_CHECKING:
    import xarray as xr

KEYS = ("fields", "levels", "years", "every")


def sliced(arguments: list[str], keys: Iterable[str] = ()) -> tuple[xr.Dataset, dict[str, Any], dict[str, Any]]:
    """(the dataset, what the words say of `keys`, all that it is a part of as plain words).

    The other words name the data, by the keys of a source or by paths.
    """
    from data_pipelines.slices import part_of

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
