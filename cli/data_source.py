"""The data source that a command line names, its data made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from emul.build import compose, faults, part
from emul.console import progress
from emul.findings import Faults

if TYPE_CHECKING:
    from omegaconf import DictConfig


def made_source(overrides: list[str]) -> tuple[Any, DictConfig]:
    """The data source that the overrides choose, its data made; and the configuration, named after the source.

    Faults where the source's part of the configuration has any.
    """
    path = next((word for word in overrides if "=" not in word and word[:1] not in ("-", "~", "+")), None)
    if path is not None:
        raise ValueError(
            f"Expected a data source by its keys; got {path}; write data=netcdf data.path={path} or another."
        )
    config = compose("train", ["name=${hydra:runtime.choices.data}", *overrides])
    found = [finding for finding in faults(config) if finding.key.partition(".")[0] == "data"]
    if found:
        raise Faults(found)
    source = part(config.data)
    with progress("making data") as report:
        source.prepare(report)
    return source, config
