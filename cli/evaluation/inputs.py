"""What `emul eval` scores: forecast, truth, climatology and options, opened, matched and checked."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from data_pipelines.conventions.canonical import first_member
from data_pipelines.conventions.durations import duration, nominal_seconds, spacing
from data_pipelines.conventions.periods import bounds
from data_pipelines.files.provenance import revision, versions
from data_pipelines.forecasts.manifest import now, read_manifest
from data_pipelines.inspection.predictability import reference_curves, stored_predictability
from data_pipelines.opening.climatologies import ClimatologyFile
from data_pipelines.opening.datasets import open_dataset
from data_pipelines.opening.forecasts import open_forecast, with_levels
from data_pipelines.reading.stacking import channel_array
from data_pipelines.verification.pairs import Pairs
from data_pipelines.verification.score_files import read_budgets
from data_pipelines.verification.truth import Normals
from emul.config.build import build, build_all
from emul.config.folders import conf_folder
from emul.config.times import initial_times
from emul.evaluation.presets import derived, said, shared_fields, shared_leads
from emul.evaluation.references import FILES, SAMPLED, Baseline, Beside, baselines, named, sampled_years
from emulators.statistics.harmonic_climatology import HarmonicClimatology
from emulators.variables import Variable, VariableSet
from emulators.world import World

if TYPE_CHECKING:
    import xarray as xr

    from data_pipelines.interfaces import Source


METRICS = ("rmse", "mse", "mae", "bias", "acc", "acc_by_init")
OF_MEMBERS = ("crps", "spread", "spread_skill")
OF_PRECIPITATION = {"total_precipitation_6hr": "seeps_6hr", "total_precipitation_24hr": "seeps_24hr"}
SAMPLES = 4000  # fields a climatology is fitted to


@dataclass(frozen=True)
class Inputs:
    """What is scored: opened, matched and checked.

    climatology: times -> fields of the channels of `pairs.variables`, or None. baselines: by name. attributes: for
    scores.nc. notes: what a reader must know. limits: scores of twins and their saturation to draw beside, by name.
    budgets: of the forecast. beside: other forecasts to draw beside, by name.
    """

    name: str
    options: DictConfig
    forecast: xr.Dataset
    pairs: Pairs
    world: World
    metrics: Mapping[str, Any]
    climatology: Normals | None
    baselines: Mapping[str, Baseline]
    attributes: dict[str, str]
    notes: list[str] = field(default_factory=list)
    limits: Mapping[str, xr.Dataset] = field(default_factory=dict)
    budgets: xr.Dataset | None = None
    beside: Mapping[str, Beside] = field(default_factory=dict)


def chosen_options(config: DictConfig) -> DictConfig:
    """What the command line says of the evaluation, over its preset, over the run's own config, over the defaults."""
    defaults = OmegaConf.load(conf_folder() / "eval" / "default.yaml")
    saved = Path(str(config.run)) / "config.yaml"
    if config.run is not None and not saved.is_file():
        raise FileNotFoundError(f"No run at {config.run} (expected {saved}); give run=outputs/train/<name>.")
    own = OmegaConf.select(OmegaConf.load(saved), "eval") if config.run is not None else None
    merged = OmegaConf.merge(
        defaults, own or {}, config.get("eval") or {}, said(config, [str(key) for key in defaults])
    )
    assert isinstance(merged, DictConfig)
    named(plain(merged.baselines))
    return merged


def opened(config: DictConfig, options: DictConfig, report: Callable[[str, float], None]) -> Inputs:
    """Open forecast, truth and climatology, and match them. Bad input is refused before anything is scored."""
    path = forecast_path(config)
    manifest = _manifest(path)
    run = OmegaConf.load(Path(config.run) / "config.yaml") if config.run is not None else None
    forecast = open_forecast(path)
    data = manifest.get("settings", {}).get("data") or (OmegaConf.select(run, "data") if run is not None else None)
    truth, source, origin = _truth(config, data, report)
    splits: Mapping[str, Any] = {} if source is None else source.splits
    forecast, truth, chosen, fitted = _fitted(config, options, forecast, truth)
    pairs = Pairs(
        forecast,
        truth,
        **chosen,
        inits=chosen_inits(options.inits, forecast["time"].values.astype("datetime64[s]")),
        across_gaps=config.truth is not None,  # records of the world, not trajectories one after another
        megabytes=options.megabytes,
    )
    nodes = metric_nodes(config, run, pairs)
    metrics = build_all(nodes)
    world = _world(pairs, truth)
    climatology, kind = None, "none"
    if "climatology" in options.baselines or any(metric.needs for metric in metrics.values()):
        climatology, kind = _climatology(config, pairs, truth, splits, world, metrics)
    years = sampled_years(plain(options.sampled_years), splits)
    asked = plain(options.baselines)
    strict = config.get("sampled_years") is not None or config.get("baselines") is not None
    compared, told = baselines(asked, pairs, metrics, climatology, years, options.megabytes, strict)
    limits = stored_predictability(source)
    attributes = _attributes(path, origin, kind, manifest, pairs) | {
        "metrics": json.dumps(plain(nodes)),
        "region_bounds": json.dumps(plain(options.regions)),
        "derived": ", ".join(plain(options.derive) or ()) or "none",
    }
    if SAMPLED in compared and years is not None:
        attributes["sampled_years"] = f"{years[0]} to {years[1]}"
    notes = [*_notes(forecast, manifest, pairs, metrics, climatology), *fitted, *told]
    name = config.name or (Path(config.run).name if config.run is not None else _stem(path))
    beside = {} if limits is None else reference_curves(limits, pairs.leads[-1])
    budgets = None if "://" in str(path) else read_budgets(Path(path).parent)
    return Inputs(
        name, options, forecast, pairs, world, metrics, climatology, compared, attributes, notes, beside, budgets
    )


def _fitted(
    config: DictConfig, options: DictConfig, forecast: xr.Dataset, truth: xr.Dataset
) -> tuple[xr.Dataset, xr.Dataset, dict[str, Any], list[str]]:
    """Forecast and truth with derived fields; which variables, levels and leads are scored; what a preset wants and the
    data lack, in notes. What the command line itself says must be there."""
    notes = []
    for name, dataset in (("forecast", forecast), ("truth", truth)):
        dataset, absent = derived(dataset, plain(options.derive) or (), config.get("derive") is not None)
        forecast, truth = (dataset, truth) if name == "forecast" else (forecast, dataset)
        notes += [f"{field} cannot be derived for the {name}: {why}" for field, why in absent.items()]
    fields, levels, leads = plain(options.fields), plain(options.levels), lead_times(options.leads)
    if fields is not None and config.get("fields") is None:
        fields, without = shared_fields(fields, levels, forecast, truth)
        notes += [f"Not in forecast and truth, so left out: {', '.join(without)}."] if without else []
    if leads is not None and config.get("leads") is None:
        leads, later = shared_leads(leads, forecast)
        notes += [f"The forecast has no lead of {', '.join(later)}."] if later else []
    return forecast, truth, {"variables": fields, "levels": levels, "leads": leads}, notes


def metric_nodes(config: DictConfig, run: Any, pairs: Pairs) -> Any:
    """The metrics of the command line, else of the run, else the usual ones for what there is, as configured."""
    if config.metric or (run is not None and run.get("metric")):
        return config.metric or run.metric
    names = [*METRICS, *(OF_MEMBERS if pairs.members > 1 else ())]
    if config.climatology is not None:
        names += [name for variable, name in OF_PRECIPITATION.items() if variable in pairs.variables]
    files = [conf_folder() / "metric" / f"{name}.yaml" for name in names]
    return OmegaConf.merge(*(OmegaConf.load(file) for file in files))


def forecast_path(config: DictConfig) -> Path | str:
    """The store or file of the forecast: what `forecast=` names, or that of the run."""
    given = config.forecasts
    if given is None and config.run is None:
        raise ValueError("Nothing to evaluate: give run=outputs/train/<name>, or forecast=<file> truth=<file>.")
    if given is not None and "://" in str(given):
        return str(given)
    path = Path(given or Path(config.output) / "forecast" / Path(config.run).name)
    inside = [path / name for name in FILES if (path / name).exists()]
    if inside:
        return inside[0]
    if not path.exists():
        hint = f"; make it first: emul forecast run={config.run}" if given is None else "."
        raise FileNotFoundError(f"No forecast at {path}{hint}")
    return path


def _stem(path: Path | str) -> str:
    path = Path(path)
    return path.parent.name if path.name in FILES and path.parent.name else path.stem


def _manifest(path: Path | str) -> dict[str, Any]:
    """The manifest beside a forecast of ours; empty where there is none."""
    try:
        return read_manifest(Path(path).parent)
    except (FileNotFoundError, ValueError):
        return {}


def _truth(
    config: DictConfig, data: Any, report: Callable[[str, float], None]
) -> tuple[xr.Dataset, Source | None, str]:
    """The canonical dataset of the truth, its source (None: a file), and what it is called."""
    if config.truth is not None:
        return with_levels(open_dataset(config.truth)), None, str(config.truth)
    if data is None:
        raise ValueError("No truth is known for this forecast; give truth=<store or file with the valid times>.")
    source: Source = build(OmegaConf.create(data))
    source.prepare(report)
    dataset = first_member(source.dataset())
    return dataset, source, str(dataset.attrs.get("origin") or _told(OmegaConf.create(data)))


def _told(data: DictConfig) -> str:
    """A data source in a line: its class and its plain settings."""
    settings = {str(key): data[key] for key in data if key != "_target_"}
    plain = ", ".join(f"{key}={value}" for key, value in settings.items() if isinstance(value, int | float | str))
    return f"{str(data['_target_']).rpartition('.')[2]}({plain})"


def plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def lead_times(wanted: Any) -> np.ndarray | None:
    """Lead times asked for, timedelta64[s]; a month counts 365.25 / 12 days."""
    if wanted is None:
        return None
    lengths = [duration(str(text)) for text in ([wanted] if isinstance(wanted, str) else wanted)]
    return np.array([nominal_seconds(length) for length in lengths], dtype="timedelta64[s]")


def chosen_inits(spec: Any, have: np.ndarray) -> np.ndarray | None:
    """Those of the initial times `have` that `first/last`, `first/last/step` or a list asks for; None: all."""
    if spec is None:
        return None
    if isinstance(spec, str) and spec.count("/") == 1:
        first, last = bounds(spec.split("/"))
        found = have[(have >= first) & (have <= last)]
    else:
        found = np.intersect1d(initial_times(plain(spec)), have)
    if not found.size:
        raise ValueError(
            f"inits={spec} takes in none of the forecast's initial times, {have.min()} to {have.max()}; inits=all does."
        )
    return found


def _world(pairs: Pairs, truth: xr.Dataset) -> World:
    """The World on which scores are taken: the forecast's grid, and the land where the truth knows it."""
    static, fields = VariableSet(), None
    if "land_sea_mask" in truth:
        land = pairs.truth.dataset["land_sea_mask"]
        land = land.isel(time=0) if "time" in land.dims else land
        static, fields = VariableSet((Variable("land_sea_mask"),)), land.values[None].astype(np.float64)
    return World(pairs.grid, pairs.variables, pairs.leads[0], static=static, static_fields=fields)


def _climatology(
    config: DictConfig,
    pairs: Pairs,
    truth: xr.Dataset,
    splits: Mapping[str, Sequence[str]],
    world: World,
    metrics: Mapping[str, Any],
) -> tuple[Normals | None, str]:
    """Normal fields by valid time, from a file or fitted to the training period, and how they came about."""
    if config.climatology is not None:
        file = ClimatologyFile(config.climatology, pairs.variables, world.grid)
        needed = dict.fromkeys(need for metric in metrics.values() for need in metric.needs if need != "mean")
        without = f", without {', '.join(file.lacking)}" if file.lacking else ""
        return Normals(file, pairs.room, [need for need in needed if file.has(need)]), f"{config.climatology}{without}"
    if "train" not in splits:
        return None, "none"
    first, last = bounds(splits["train"])
    reader = pairs.truth
    index = np.flatnonzero((reader.times >= first) & (reader.times <= last))
    step = -(-index.size // SAMPLES) | 1  # odd, so that every hour of the day comes round
    index = index[::step]
    year = index.size and reader.times[index[-1]] - reader.times[index[0]] > np.timedelta64(330, "D")
    timestep = spacing(reader.times) or np.timedelta64(1, "D")
    fitted = HarmonicClimatology.for_timestep(timestep, annual=2 if year else 0)  # no cycle from a part of it
    block = max(1, min(64, pairs.room))
    for start in range(0, index.size, block):
        chosen = index[start : start + block]
        fields = channel_array(reader.dataset.isel(time=chosen), pairs.variables, ("time",))
        absent = np.isnan(fields).all(axis=(-2, -1))
        known = ~absent[:, ~absent.all(axis=0)].any(axis=1)  # sums are not known where the data begin
        fitted.accumulate(reader.times[chosen][known], fields[known])
    kind = (
        f"{fitted.annual} harmonics of the year and {fitted.diurnal} of the day, fitted to {index.size} fields of the "
        f"training period {splits['train'][0]} to {splits['train'][1]}"
    )
    return Normals(fitted.solve().evaluate, pairs.room), kind


def _attributes(path: Any, truth: str, climatology: str, manifest: Mapping[str, Any], pairs: Pairs) -> dict[str, str]:
    inits, scored = pairs.inits, (pairs.index >= 0).any(axis=1)
    return {
        "forecast": str(path),
        "truth": truth,
        "climatology": climatology,
        "verdict": str(manifest.get("verdict", "none recorded")),
        "inits": f"{inits[0]} to {inits[-1]}",
        "inits_used": _times(inits[scored]),
        "inits_skipped": _times(inits[~scored]) or "none",
        "valid_times_missing": _times(pairs.absent) or "none",
        "pairs": f"{pairs.total} of {pairs.total + pairs.missing} (initial time x lead) scored",
        "created": now(),
        "revision": revision(),
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
    }


def _times(times: np.ndarray) -> str:
    """`2020-01-01T00 to 2020-12-30T00 every 12 hours (730)` where the steps are even, else every time."""
    steps = np.unique(np.diff(times))
    if len(times) > 2 and len(steps) == 1:
        step = steps[0].astype("timedelta64[h]") if not steps[0].astype(int) % 3600 else steps[0]
        first, last = np.datetime_as_string(times[[0, -1]], "h")
        return f"{first} to {last} every {step} ({len(times)})"
    return " ".join(np.datetime_as_string(times, "h").tolist())


def _notes(
    forecast: xr.Dataset,
    manifest: Mapping[str, Any],
    pairs: Pairs,
    metrics: Mapping[str, Any],
    climatology: Any,
) -> list[str]:
    """What a reader of the scores must know."""
    notes = []
    if manifest.get("verdict") == "failed":
        reasons = [str(reason) for reason in manifest.get("reasons", [])]
        more = f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
        notes.append(f"This forecast failed its checks: {'; '.join(reasons[:3]) or 'no reason given'}{more}.")
    if forecast.attrs.get("assumed"):
        notes.append(str(forecast.attrs["assumed"]))
    if pairs.missing:
        absent = np.datetime_as_string(pairs.absent, "h").tolist()
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        notes.append(
            f"{pairs.missing} of {pairs.missing + pairs.total} pairs of initial time and lead have no truth"
            f"{'' if pairs.across_gaps else ' before a gap'} and were left out, those valid at {', '.join(absent[:5])}"
            f"{more} (the truth runs from {pairs.truth.times[0]} to {pairs.truth.times[-1]})."
        )
    wanting = [name for name, metric in metrics.items() if metric.needs]
    if climatology is None and wanting:
        notes.append(
            f"{', '.join(wanting)} left out: no climatology; give climatology=<file> (`emul data climatology`)."
        )
    return notes
