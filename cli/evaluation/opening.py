"""Open the forecast and the truth of an evaluation, with the options that say what their files do not."""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from data_pipelines.conventions.canonical import first_member
from data_pipelines.conventions.suggestions import options_under, suggestion
from data_pipelines.conventions.valid_times import LEADS
from data_pipelines.derived.shaping import shaped
from data_pipelines.opening.datasets import open_dataset, open_files
from data_pipelines.opening.forecast_axes import LEAD
from data_pipelines.opening.forecasts import open_forecast, with_levels
from data_pipelines.verification.baselines import FORECAST_FILES
from emul.config.build import build
from emul.config.overrides import plain
from emul.config.places import forecast_folder, name_within
from emul.trust.secrets import redacted

if TYPE_CHECKING:
    import xarray as xr

    from data_pipelines.interfaces import Source

ForecastPath = Path | str | list[str]
SIDES = {"forecast", "truth"}
OF_NAMES = ("rename", "select")  # options that go by names in the files
OPTIONS = ("names", *OF_NAMES, "units", "members", "dates")


@dataclass(frozen=True)
class SideOptions:
    """Hold the options with which each side is opened, by name."""

    forecast: dict[str, Any] = field(default_factory=dict)
    truth: dict[str, Any] = field(default_factory=dict)

    def of(self, side: str) -> dict[str, Any]:
        """Return the options of `forecast` or `truth`."""
        return self.forecast if side == "forecast" else self.truth


def side_options(config: DictConfig, path: ForecastPath) -> SideOptions:
    """Return what `rename`, `select`, ... say of the forecast and of the truth.

    Each is told of one side, rename={truth: {t: temperature}}, or of both, where it holds for whatever has the names.
    ValueError for a name that neither has.
    """
    found = SideOptions()
    shared: dict[str, Mapping[str, Any]] = {}
    for key in OPTIONS:
        told = plain(config[key])
        if told is None:
            continue
        if isinstance(told, Mapping) and set(told) <= SIDES:
            for side, value in told.items():
                found.of(side)[key] = value
        elif key in OF_NAMES:
            shared[key] = told
        else:
            if key == "units" and any("->" in str(units) for name, units in told.items() if name not in LEADS):
                raise ValueError(
                    "units: '->' corrects what one side says; tell which: units={truth: {...: 'degC -> K'}}."
                )
            found.forecast[key] = found.truth[key] = told
    if found.truth.get("members") is not None and plain(config.members) != found.truth["members"]:
        raise ValueError("members: the truth is one state a time; choose one with select={truth: {...: 0}}.")
    found.truth.pop("members", None)
    found.forecast.pop("dates", None)
    if shared:
        _divide(found, shared, path, config.truth)
    return found


def _divide(found: SideOptions, shared: Mapping[str, Mapping[str, Any]], path: ForecastPath, truth: Any) -> None:
    """Give each side the shared options of names that it has."""
    names = {"forecast": _names(path), "truth": _names(plain(truth)) if truth is not None else set()}
    renamed = {str(new) for new in shared.get("rename", {}).values()}
    for key, told in shared.items():
        for name in told:
            if not any(name in there for there in names.values()) and (key == "rename" or name not in renamed):
                every = sorted({*names["forecast"], *names["truth"]})
                raise ValueError(f"{key}: neither forecast nor truth has '{name}'; {suggestion(name, every)}")
        for side, there in names.items():
            own = {name: value for name, value in told.items() if name in there or name in renamed & set(told)}
            found.of(side).update({key: own} if own else {})


def _names(path: Any) -> set[str]:
    return {str(name) for opened in open_files(path) for name in (*opened.variables, *opened.dims)}


def opened_forecast(path: ForecastPath, told: Mapping[str, Any]) -> xr.Dataset:
    """Open the forecast at `path`."""
    return open_forecast(path, **{**told, "units": _units(told)})


def _units(told: Mapping[str, Any]) -> dict[str, str] | None:
    return dict(told["units"]) if told.get("units") else None


def refuse_unknown_units(told: SideOptions, forecast: xr.Dataset, truth: xr.Dataset) -> None:
    """Raise ValueError for units of a variable that neither forecast nor truth has."""
    there = [*forecast.data_vars, *truth.data_vars, LEAD]
    for name in {**(told.forecast.get("units") or {}), **(told.truth.get("units") or {})}:
        if name not in there and name not in LEADS:
            raise ValueError(f"units: neither forecast nor truth has '{name}'; {suggestion(name, there)}")


def opened_truth(
    config: DictConfig, told: Mapping[str, Any], data: Any, report: Callable[[str, float], None]
) -> tuple[xr.Dataset, Source | None, str]:
    """Open the truth; also return its source (None: a file), and what it is called."""
    if config.truth is not None:
        path = plain(config.truth)
        with options_under("", lacking=("members",)):
            found = with_levels(open_dataset(path, **{key: value for key, value in told.items() if key != "units"}))
        units = {name: text for name, text in (_units(told) or {}).items() if name in found.data_vars}
        return shaped(found, units=units), None, redacted(path if isinstance(path, str) else ", ".join(path))
    if data is None:
        raise ValueError("No truth is known for this forecast; give truth=<store or file with the valid times>.")
    source: Source = build(data)
    source.prepare(report)
    dataset = first_member(source.dataset())
    return dataset, source, redacted(str(dataset.attrs.get("origin") or _source_text(data)))


def _source_text(data: DictConfig) -> str:
    """A data source as text: its class and its plain settings."""
    settings = {str(key): data[key] for key in data if key != "_target_"}
    listed = ", ".join(f"{key}={value}" for key, value in settings.items() if isinstance(value, int | float | str))
    return f"{str(data['_target_']).rpartition('.')[2]}({listed})"


def forecast_path(config: DictConfig) -> ForecastPath:
    """The store or file of the forecast, or several: what `forecast=` names, or that of the run."""
    given = plain(config.forecasts)
    if given is None and config.run is None:
        raise ValueError("Nothing to evaluate: give run=outputs/train/<name>, or forecast=<file> truth=<file>.")
    if isinstance(given, list):
        return [str(_stored(Path(one))) if "://" not in str(one) else str(one) for one in given]
    if given is not None and ("://" in str(given) or "::" in str(given)):
        return str(given)
    path = Path(given) if given else forecast_folder(config)
    if not path.exists() and glob.has_magic(str(path)):
        found = sorted(glob.glob(str(path.expanduser()), recursive=True))
        if found:
            return found
        raise FileNotFoundError(f"No forecast matches {path}.")
    stored = _stored(path)
    if not stored.exists():
        hint = f"; make it first: emul forecast run={config.run}" if given is None else "."
        raise FileNotFoundError(f"No forecast at {path}{hint}")
    return stored


def _stored(path: Path) -> Path:
    """Return the forecast in a folder of `emul forecast`, or the path itself."""
    path = path.expanduser()
    return next((path / name for name in FORECAST_FILES if (path / name).exists()), path)


def forecast_name(path: ForecastPath, output: str) -> str:
    """Name an evaluation after the folder of its forecast or of its several files, else after its file."""
    if isinstance(path, list):
        return Path(path[0]).resolve().parent.name or "forecast"
    path = Path(path)
    if path.name in FORECAST_FILES and path.parent.name:
        return name_within(path.parent, Path(output) / "forecast") or path.parent.name
    name = path.stem
    return Path(name).stem if name.endswith((".zarr", ".nc")) else name


def forecast_text(path: ForecastPath) -> str:
    """Return the path of the forecast, or the first of several, as text."""
    return str(path) if not isinstance(path, list) else f"{path[0]} and {len(path) - 1} more"


def forecast_files(path: ForecastPath) -> list[Path]:
    """Return the files or stores of the forecast."""
    return [Path(str(one)) for one in (path if isinstance(path, list) else [path])]
