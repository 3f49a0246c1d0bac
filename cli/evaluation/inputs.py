"""Open, match and check all that `emul eval` needs: forecast, truth, climatology, reference forecasts, options."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from data_pipelines.batches.seen import Guards
from data_pipelines.conventions.canonical import first_member
from data_pipelines.conventions.durations import chosen_inits
from data_pipelines.files.fingerprints import fingerprint, stable
from data_pipelines.files.identity import digest, located
from data_pipelines.forecasts.manifest import found_manifest
from data_pipelines.inspection.perfect_model import ensemble_store, stored_ensemble
from data_pipelines.inspection.predictability import reference_curves, stored_predictability
from data_pipelines.options.folders import absent_run, conf_folder, key_of, run_name
from data_pipelines.options.trust import redacted
from data_pipelines.verification.absences import metrics_of_moments
from data_pipelines.verification.baselines import (
    PERFECT,
    SAMPLED,
    climatology_of,
    named_references,
    reference_forecasts,
    sampled_years,
)
from data_pipelines.verification.matching import like_with_like, units_by_value, unlike_sums, with_likely_leads
from data_pipelines.verification.pairs import Pairs
from data_pipelines.verification.score_files import read_budgets, region_text
from data_pipelines.verification.sides import (
    OPTIONS,
    ForecastPath,
    Inputs,
    as_list,
    asked_in_vain,
    changed_data,
    fitted,
    forecast_files,
    forecast_name,
    marked,
    notes_on,
    opened_forecast,
    provenance,
    refuse_other_weights,
    refuse_unknown_units,
    side_options,
    stored_forecasts,
    truth_in_files,
)
from data_pipelines.verification.verif_files import VerifFiles
from emul.config.build import build, build_all
from emul.config.saved import plain, read_saved, saved_config
from emulators.statistics.area_means import region

if TYPE_CHECKING:
    import xarray as xr

    from data_pipelines.interfaces import Source


METRICS = ("rmse", "mse", "mae", "bias", "acc", "acc_by_init")
OF_MEMBERS = ("crps", "spread", "spread_skill")
OF_PRECIPITATION = {"total_precipitation_6hr": "seeps_6hr", "total_precipitation_24hr": "seeps_24hr"}
ALL = "all"  # undoes a preset's choice
LISTS = ("regions", "fields", "levels", "derive", "baselines")
CHOICES = ("fields", "levels", "leads", "inits")
DESCRIPTIVE = ("title", "author", "description", "citation")  # options that the report and scores.nc repeat
NOT_SCORED = (  # options of an evaluation that change no score
    "run", "forecasts", "name", "output", "share", "save_every", "strict", "megabytes", "pictures", "hardware",
    "guards",
    *DESCRIPTIVE,
)  # fmt: skip


def chosen_options(config: DictConfig) -> dict[str, Any]:
    """Return the options of eval/default.yaml as plain values; `all`, which undoes a preset, as None."""
    if config.run is not None and not (Path(str(config.run)) / "config.yaml").is_file():
        raise absent_run(Path(str(config.run)))
    names = [str(name) for name in OmegaConf.load(conf_folder() / "eval" / "default.yaml")]
    options: dict[str, Any] = plain(OmegaConf.masked_copy(config, names))
    for name in CHOICES:
        options[name] = None if options[name] == ALL else options[name]
    for name in LISTS:
        options[name] = as_list(options[name])
    for entry in options["regions"]:
        region(entry)  # refuses what is none, before anything is opened
    named_references(options["baselines"])
    refuse_places(options["ensemble"]["places"] or ())
    return options


def evaluation_digest(config: DictConfig, manifest: Mapping[str, Any]) -> str:
    """Return the identity of an evaluation: settings of its forecast, options, and the content of further files."""
    settings = {str(key): plain(value) for key, value in config.items() if key not in NOT_SCORED}
    references = named_references(chosen_options(config)["baselines"])
    files = [plain(config.truth), config.climatology, *filter(None, references.values())]
    if PERFECT in references and (data := data_of_forecast(config, manifest)) is not None:
        files.append(ensemble_store(build(data)))
    return digest([manifest.get("settings", {}), settings, [stable(fingerprint(file)) for file in files]])


def strict_options(config: DictConfig) -> set[str]:
    """Names of the options that the data must satisfy: those of the command line."""
    return {key_of(text) for text in config.strict}


def _opened_sides(
    config: DictConfig,
    options: Mapping[str, Any],
    path: ForecastPath,
    manifest: Mapping[str, Any],
    report: Callable[..., None],
) -> tuple[xr.Dataset, xr.Dataset, Source | None, str, list[str]]:
    """Forecast and truth, comparable; the source of the truth, if it is one, and its name; notes."""
    if config.forecasts is None:
        refuse_other_weights(config.run, forecast_files(path)[0].parent, manifest)
    sides = side_options({key: plain(config[key]) for key in OPTIONS}, path, plain(config.truth))
    forecast = opened_forecast(path, sides.forecast)
    truth, source, origin = opened_truth(config, sides.truth, data_of_forecast(config, manifest), report)
    changed = changed_data(None if config.forecasts is not None else config.run, manifest, source, truth)
    refuse_unknown_units(sides, forecast, truth)
    forecast = with_likely_leads(forecast, truth["time"].values if "time" in truth.dims else None)
    unsummed, chosen_fields = options["deaccumulate"] or (), _named_fields(config, options)
    forecast, unlike = like_with_like(forecast, truth, unsummed, chosen_fields)
    unlike += unlike_sums(forecast, truth) if source is None else []
    return forecast, truth, source, origin, [*changed, *unlike]


def open_inputs(config: DictConfig, options: Mapping[str, Any], report: Callable[[str, float], None]) -> Inputs:
    """Open forecast, truth and climatology, and match them. Bad input is refused before anything is scored."""
    path, run = forecast_path(config), config.run
    manifest = found_manifest(forecast_files(path)[0].parent)
    forecast, truth, source, origin, notes = _opened_sides(config, options, path, manifest, report)
    splits: Mapping[str, Any] = {} if source is None else source.splits
    forecast, truth, selection, absences = fitted(forecast, truth, options, strict_options(config))
    pairs = Pairs(
        forecast,
        truth,
        **selection,
        inits=chosen_inits(options["inits"], forecast["time"].values.astype("datetime64[s]")),
        across_gaps=config.truth is not None,  # records of the world, not trajectories one after another
        megabytes=options["megabytes"],
    )
    notes += units_by_value(*pairs.first_fields(), pairs.variables.names)
    nodes = metric_nodes(config, pairs)
    metrics = build_all(nodes)
    metrics, without = metrics_of_moments(metrics, pairs.statistics_of, "metric" in strict_options(config))
    needed = "climatology" in options["baselines"] or any(metric.needs for metric in metrics.values())
    climatology_args = (config.climatology, pairs, splits.get("train"), metrics)
    climatology, kind = climatology_of(*climatology_args) if needed else (None, "none")
    years = sampled_years(options["sampled_years"], splits)
    strict = bool({"sampled_years", "baselines"} & strict_options(config))
    requested = {**options, "fields": selection["variables"], "levels": selection["levels"]}
    absences += without + asked_in_vain(requested, pairs, metrics, climatology, (forecast, truth))
    entries = [{PERFECT: str(stored_ensemble(source))} if name == PERFECT else name for name in options["baselines"]]
    references, lacking = reference_forecasts(entries, pairs, metrics, climatology, years, options["megabytes"], strict)
    truth_path = source.path if source is not None else plain(config.truth)
    attributes = provenance(path, origin, kind, manifest, pairs) | {
        **_asked(options, nodes, years if SAMPLED in references else None),
        "made_from": evaluation_digest(config, manifest),
        "forecast_made_from": digest(manifest.get("settings", {})),
        "truth_and_climatology": digest([fingerprint(truth_path), fingerprint(config.climatology)]),
    }
    if options["verif"]["places"]:
        VerifFiles(pairs, **options["verif"])  # refuses what cannot be
    chosen_inits(options["case"]["init"], pairs.inits, "case.init")
    limits = stored_predictability(source)
    seen = marked(Guards(**options["guards"]), manifest, _training_period(run), pairs)
    return Inputs(
        name=config.name or (forecast_name(path, config.output) if run is None else run_name(run, config.output)),
        options=options,
        forecast=forecast,
        pairs=pairs,
        world=pairs.world(),
        metrics=metrics,
        climatology=climatology,
        baselines=references,
        attributes=attributes,
        notes=[*notes_on(forecast, manifest, pairs), *seen, *notes, *lacking],
        limits={} if limits is None else reference_curves(limits, pairs.leads[-1]),
        budgets=None if "://" in str(path) else read_budgets(forecast_files(path)[0].parent),
        absences=absences,
        described={key: str(config[key]) for key in DESCRIPTIVE if config[key] is not None},
        is_own=bool(manifest),
    )


def _training_period(run: Any) -> Any:
    """First and last date of the training split of a run, as its config.yaml says; None where it does not."""
    file = Path(str(run)) / "config.yaml"
    if run is None or not file.is_file():
        return None
    return (read_saved(file, given=["data"]).get("data", {}).get("splits") or {}).get("train")


def _asked(options: Mapping[str, Any], metrics: Any, years: tuple[int, int] | None) -> dict[str, str]:
    """Attributes on what was asked for. years: those that a probabilistic climatology samples."""
    sampled = {} if years is None else {"sampled_years": f"{years[0]} to {years[1]}"}
    return sampled | {
        "metrics": json.dumps(plain(metrics)),
        "region_bounds": "; ".join(map(region_text, options["regions"])),
        "derived": ", ".join(options["derive"] or ()) or "none",
    }


def _named_fields(config: DictConfig, options: Mapping[str, Any]) -> list[str]:
    """The variables that the command line itself asks for."""
    fields = options["fields"] or () if "fields" in strict_options(config) else ()
    return [entry if isinstance(entry, str) else str(next(iter(entry))) for entry in fields]


def metric_nodes(config: DictConfig, pairs: Pairs) -> Any:
    """The configured metrics, else the usual ones for what there is."""
    if config.metric:
        return config.metric
    names = [*METRICS, *(OF_MEMBERS if pairs.members > 1 else ())]
    if config.climatology is not None:
        names += [name for variable, name in OF_PRECIPITATION.items() if variable in pairs.variables]
    files = [conf_folder() / "metric" / f"{name}.yaml" for name in names]
    return OmegaConf.merge(*(OmegaConf.load(file) for file in files))


def opened_truth(
    config: DictConfig, options: Mapping[str, Any], data: Any, report: Callable[[str, float], None]
) -> tuple[xr.Dataset, Source | None, str]:
    """Open the truth; also return its source (None: a file), and what it is called."""
    if config.truth is not None:
        path = plain(config.truth)
        return truth_in_files(path, options), None, redacted(path if isinstance(path, str) else ", ".join(path))
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
    forecasts = plain(config.forecasts)
    if forecasts is None and config.run is None:
        raise ValueError("Nothing to evaluate: give run=outputs/train/<name>, or forecast=<file> truth=<file>.")
    if forecasts is not None:
        return stored_forecasts(forecasts)
    folder = Path(config.output) / "forecast" / run_name(config.run, config.output)
    return stored_forecasts(str(folder), f"; make it first: emul forecast run={config.run}")


def data_of_forecast(config: DictConfig, manifest: Mapping[str, Any]) -> Any:
    """Return the settings of the data of a forecast, else of its run, with paths that exist here; None if unknown."""
    run = read_saved(Path(config.run) / "config.yaml", given=["data"]) if config.run is not None else OmegaConf.create()
    data = manifest.get("settings", {}).get("data") or run.get("data")
    if data is None:
        return None
    data = saved_config(data, "the manifest or run of the forecast", group="data")
    places = {**(run.get("places") or {}), **manifest.get("places", {})}
    folder = Path(config.run) if config.run is not None else Path(str(manifest.get("run", "")))
    return OmegaConf.create(located(plain(data), places, folder, places.get("run")))


def refuse_places(places: Sequence[object]) -> None:
    """Refuse places of plumes that are no pair of latitude and longitude, in degrees."""
    for place in places:
        if not (isinstance(place, list) and len(place) == 2 and abs(place[0]) <= 90.0):
            raise ValueError(f"ensemble.places: expected latitude and longitude of each, as [[50, 10]]; got {place}.")
