"""Several data sources as one dataset, joined by variable at common times, or one after the other in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path

import numpy as np
import xarray as xr

from data_pipelines.conventions.durations import guarded
from data_pipelines.interfaces import Progress, Source
from data_pipelines.opening.datasets import joined


@dataclass(frozen=True)
class Joined:
    """Join data sources.

    sources: by name. splits, guard: see `data_pipelines.opening.file_source.FileSource`.

    If no two sources have a variable in common, they are joined by variable at the times that all of them have.
    Otherwise they are joined in time, and must not overlap.
    """

    sources: Mapping[str, Source]
    splits: Mapping[str, Sequence[str | int] | None] = field(default_factory=dict)
    guard: str | None = None

    def __post_init__(self) -> None:
        if len(self.sources) < 2:
            raise ValueError(f"A joined source needs at least two sources; got {len(self.sources)}.")
        object.__setattr__(self, "splits", guarded(self.splits, self.guard))

    @property
    def path(self) -> list[str]:
        """Return the paths of all sources."""
        paths = (source.path for source in self.sources.values())
        return [str(item) for path in paths for item in ([path] if isinstance(path, str | Path) else path)]

    def prepare(self, progress: Progress | None = None) -> None:
        """Prepare each source, and check that they can be joined."""
        for source in self.sources.values():
            source.prepare(progress)
        self.dataset()

    def template(self) -> xr.Dataset:
        """Join the templates of the sources."""
        return self._joined({name: source.template() for name, source in self.sources.items()})

    def dataset(self) -> xr.Dataset:
        """Join the datasets of the sources."""
        return self._joined({name: source.dataset() for name, source in self.sources.items()})

    def _joined(self, parts: dict[str, xr.Dataset]) -> xr.Dataset:
        names = [str(name) for part in parts.values() for name in part.data_vars]
        if len(set(names)) == len(names):
            parts = _at_shared_times(parts)
        attributes = {k: v for part in parts.values() for k, v in part.attrs.items() if k not in ("origin", "left_out")}
        for key in set(attributes):
            values = [str(part.attrs[key]) for part in parts.values() if key in part.attrs]
            if any(value != values[0] for value in values):
                del attributes[key]
        datasets = [part.assign_attrs(left_out=part.attrs.get("left_out", "")) for part in parts.values()]
        origins = [str(part.attrs.get("origin", name)) for name, part in parts.items()]
        return joined(datasets, origins).assign_attrs(attributes)


def _at_shared_times(parts: dict[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Select the times that all datasets have in common; datasets without time are unchanged."""
    moving = {name: part["time"].values for name, part in parts.items() if "time" in part.dims}
    if not moving:
        return parts
    shared = reduce(np.intersect1d, moving.values())
    if not shared.size:
        spans = "; ".join(f"{name}: {times[0]} to {times[-1]}" for name, times in moving.items())
        raise ValueError(f"The sources have no time in common: {spans}.")
    return {
        name: part.isel(time=np.searchsorted(moving[name], shared)) if name in moving else part
        for name, part in parts.items()
    }
