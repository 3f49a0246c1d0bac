"""Open, match and check all that `emul eval` needs: forecast, truth, climatology, reference forecasts, options."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from data_pipelines.conventions.attributes import assumptions
from data_pipelines.files.fingerprints import fingerprint
from data_pipelines.files.identity import digest
from data_pipelines.files.provenance import revision, versions
from data_pipelines.forecasts.manifest import found_manifest, now
from data_pipelines.inspection.predictability import reference_curves, stored_predictability
from data_pipelines.opening.climatologies import ClimatologyFile
from data_pipelines.verification.absences import NO_LEAD, Absence, absent_dates, absent_levels, absent_metrics
from data_pipelines.verification.accumulations import like_with_like
from data_pipelines.verification.baselines import (
    RESERVED,
    SAMPLED,
    named_references,
    reference_forecasts,
    sampled_years,
)
from data_pipelines.verification.matching import shared_fields, shared_leads, with_derived, with_likely_leads
from data_pipelines.verification.pairs import Pairs
from data_pipelines.verification.score_files import StoredForecast, read_budgets, read_forecasts
from data_pipelines.verification.score_rows import headline_leads, map_variables
from data_pipelines.verification.truth import CachedClimatology, fit_climatology
from emul.config.build import build_all
from emul.config.folders import conf_folder
from emul.config.overrides import key_of, plain
from emul.config.places import run_name
from emul.config.times import asked_inits, chosen_inits, lead_times
from emul.evaluation.kept_forecasts import changed_data, data_of_forecast, evaluation_digest, refuse_other_weights
from emul.evaluation.opening import (
    ForecastPath,
    forecast_files,
    forecast_name,
    forecast_path,
    forecast_text,
    opened_forecast,
    opened_truth,
    refuse_unknown_units,
    side_options,
)
from emulators.scores.interfaces import Reference
from emulators.variables import VariableSet
from emulators.verification.evaluation import Evaluation
from emulators.verification.spectra import LeadSpectra
from emulators.world import World

if TYPE_CHECKING:
    import xarray as xr


METRICS = ("rmse", "mse", "mae", "bias", "acc", "acc_by_init")


OF_MEMBERS = ("crps", "spread", "spread_skill")


OF_PRECIPITATION = {"total_precipitation_6hr": "seeps_6hr", "total_precipitation_24hr": "seeps_24hr"}


ALL = "all"  # undoes a preset's choice


LISTS = ("regions", "fields", "levels", "derive", "baselines")


CHOICES = ("fields", "levels", "leads", "inits")


NO_CLIMATOLOGY = "no climatology; give climatology=<file> (`emul data climatology`)"


MOST_FIELDS, MOST_LEADS = 10, 6  # of which spectra are computed by default


@dataclass(frozen=True)
class Inputs:
    """Hold what is scored: opened, matched and checked.

    climatology: fields of the channels of `pairs.variables` at valid times, or None. baselines: reference forecasts by
    name. attributes: for scores.nc. notes: warnings for the reader. limits: scores of twins and their saturation to
    draw beside, by name. budgets: of the forecast. beside: other forecasts to draw beside, by name. absences: what was
    asked for and cannot be given.
    """

    name: str
    options: DictConfig
    forecast: xr.Dataset
    pairs: Pairs
    world: World
    metrics: Mapping[str, Any]
    climatology: CachedClimatology | None
    baselines: Mapping[str, Reference]
    attributes: dict[str, str]
    notes: list[str] = field(default_factory=list)
    limits: Mapping[str, xr.Dataset] = field(default_factory=dict)
    budgets: xr.Dataset | None = None
    beside: Mapping[str, StoredForecast] = field(default_factory=dict)
    absences: list[Absence] = field(default_factory=list)


def chosen_options(config: DictConfig) -> DictConfig:
    """Return the options of eval/default.yaml as composed; `all`, which undoes the choice of a preset, as None."""
    saved = Path(str(config.run)) / "config.yaml"
    if config.run is not None and not saved.is_file():
        raise FileNotFoundError(f"No run at {config.run} (expected {saved}); give run=outputs/train/<name>.")
    names = [str(name) for name in OmegaConf.load(conf_folder() / "eval" / "default.yaml")]
    options = OmegaConf.masked_copy(config, names)
    for name in CHOICES:
        options[name] = None if options[name] == ALL else options[name]
    for name in LISTS:
        options[name] = listed(plain(options[name]))
    named_references(plain(options.baselines))
    return options


def listed(value: Any) -> list[Any] | None:
    """Return a list of names and boxes from one name, or from a mapping such as {alps: {latitude: [44, 48]}}."""
    if value is None:
        return None
    entries = value if isinstance(value, list) else [value]
    parts = [[{name: told} for name, told in one.items()] if isinstance(one, Mapping) else [one] for one in entries]
    return [part for several in parts for part in several]


def strict_options(config: DictConfig) -> set[str]:
    """Names of the options that the data must satisfy: those of the command line."""
    return {key_of(text) for text in config.strict}


def open_inputs(config: DictConfig, options: DictConfig, report: Callable[[str, float], None]) -> Inputs:
    """Open forecast, truth and climatology, and match them. Bad input is refused before anything is scored."""
    path = forecast_path(config)
    manifest = found_manifest(forecast_files(path)[0].parent)
    if config.forecasts is None:
        refuse_other_weights(config, forecast_files(path)[0].parent, manifest)
    told = side_options(config, path)
    forecast = opened_forecast(path, told.forecast)
    truth, source, origin = opened_truth(config, told.truth, data_of_forecast(config, manifest), report)
    changed = changed_data(config, manifest, source, truth)
    refuse_unknown_units(told, forecast, truth)
    forecast = with_likely_leads(forecast, truth["time"].values if "time" in truth.dims else None)
    splits: Mapping[str, Any] = {} if source is None else source.splits
    forecast, unlike = like_with_like(
        forecast, truth, plain(options.deaccumulate) or (), _named_fields(config, options)
    )
    forecast, truth, chosen, absences = _fitted(config, options, forecast, truth)
    pairs = Pairs(
        forecast,
        truth,
        **chosen,
        inits=chosen_inits(options.inits, forecast["time"].values.astype("datetime64[s]")),
        across_gaps=config.truth is not None,  # records of the world, not trajectories one after another
        megabytes=options.megabytes,
    )
    nodes = metric_nodes(config, pairs)
    metrics = build_all(nodes)
    climatology, kind = None, "none"
    if "climatology" in options.baselines or any(metric.needs for metric in metrics.values()):
        climatology, kind = _climatology(config, pairs, splits, metrics)
    years = sampled_years(plain(options.sampled_years), splits)
    strict = bool({"sampled_years", "baselines"} & strict_options(config))
    absences += _absent(options, pairs, metrics, climatology, chosen, (forecast, truth))
    references, lacking = reference_forecasts(
        plain(options.baselines), pairs, metrics, climatology, years, options.megabytes, strict
    )
    truth_path = source.path if source is not None else plain(config.truth)
    attributes = _attributes(path, origin, kind, manifest, pairs) | {
        **_asked(options, nodes, years if SAMPLED in references else None),
        "made_from": evaluation_digest(config, manifest),
        "forecast_made_from": digest(manifest.get("settings", {})),
        "truth_and_climatology": digest([fingerprint(truth_path), fingerprint(config.climatology)]),
    }
    limits = stored_predictability(source)
    budgets = None if "://" in str(path) else read_budgets(forecast_files(path)[0].parent)
    return Inputs(
        name=config.name or _own_name(config, path),
        options=options,
        forecast=forecast,
        pairs=pairs,
        world=pairs.world(),
        metrics=metrics,
        climatology=climatology,
        baselines=references,
        attributes=attributes,
        notes=[*_notes(forecast, manifest, pairs), *changed, *unlike, *lacking],
        limits={} if limits is None else reference_curves(limits, pairs.leads[-1]),
        budgets=budgets,
        absences=absences,
    )


def _asked(options: DictConfig, metrics: Any, years: tuple[int, int] | None) -> dict[str, str]:
    """Attributes on what was asked for. years: those that a probabilistic climatology samples."""
    sampled = {} if years is None else {"sampled_years": f"{years[0]} to {years[1]}"}
    return sampled | {
        "metrics": json.dumps(plain(metrics)),
        "region_bounds": json.dumps(plain(options.regions)),
        "derived": ", ".join(plain(options.derive) or ()) or "none",
    }


def _own_name(config: DictConfig, path: ForecastPath) -> str:
    """The name of the run, else that of the forecast."""
    return run_name(config.run, config.output) if config.run is not None else forecast_name(path, config.output)


def _absent(
    options: DictConfig,
    pairs: Pairs,
    metrics: Mapping[str, Any],
    climatology: CachedClimatology | None,
    chosen: Mapping[str, Any],
    sides: tuple[xr.Dataset, xr.Dataset],
) -> list[Absence]:
    """Levels, dates, metrics and baselines that were asked for and that the data cannot give."""
    forecast, truth = sides
    fields = () if climatology is None else climatology.names
    found = absent_levels(pairs, chosen["variables"], chosen["levels"], forecast, truth)
    found += absent_dates(asked_inits(options.inits), forecast["time"].values.astype("datetime64[s]"))
    found += absent_metrics(metrics, pairs.members, fields, NO_CLIMATOLOGY)
    if climatology is None and "climatology" in plain(options.baselines):
        found.append(Absence("baseline", "baseline climatology", NO_CLIMATOLOGY))
    return found


def _climatology(
    config: DictConfig, pairs: Pairs, splits: Mapping[str, Sequence[str]], metrics: Mapping[str, Any]
) -> tuple[CachedClimatology | None, str]:
    """The climatology at valid times, from a file or fitted to the training period, and a phrase that describes it."""
    if config.climatology is not None:
        file = ClimatologyFile(config.climatology, pairs.variables, pairs.grid)
        needed = dict.fromkeys(need for metric in metrics.values() for need in metric.needs if need != "mean")
        without = f", without {', '.join(file.lacking)}" if file.lacking else ""
        further = [need for need in needed if file.has(need)]
        return CachedClimatology(file, pairs.room, further), f"{config.climatology}{without}"
    if "train" not in splits:
        return None, "none"
    return fit_climatology(pairs.truth, splits["train"], pairs.room)


def evaluation_of(inputs: Inputs) -> Evaluation:
    """Empty sums of all that the options ask for; what cannot be had is added to the notes."""
    options, pairs = inputs.options, inputs.pairs
    evaluation = Evaluation(
        inputs.world,
        pairs.variables,
        inputs.metrics,
        pairs.leads,
        references=inputs.baselines,
        regions=plain(options.regions),
        missing=options.missing,
        climate=bool(options.climate),
        maps=_maps(inputs),
        spectra=_spectra(inputs),
        inits=pairs.inits if options.significance.level is not None else None,
        megabytes=options.significance.megabytes,
    )
    skipped = evaluation.forecast.regions.skipped
    inputs.absences.extend(Absence("region", name, why) for name, why in skipped.items())
    return evaluation


def _maps(inputs: Inputs) -> tuple[VariableSet, list[int]]:
    """The channels and the lead numbers of the maps."""
    leads, wanted = inputs.pairs.leads, lead_times(inputs.options.maps.leads)
    found = [] if wanted is None else [int(np.flatnonzero(leads == n)[0]) for n in wanted if (leads == n).any()]
    variables = map_variables(inputs.pairs.variables, plain(inputs.options.maps.fields))
    return variables, sorted(set(found)) or [len(leads) // 2]


def _spectra(inputs: Inputs) -> LeadSpectra | None:
    """Empty sums of the spectra that the options ask for; default: the first fields and leads of the score card."""
    options, pairs = inputs.options.spectra, inputs.pairs
    fields, wanted = plain(options.fields), lead_times(options.leads)
    leads = (
        pairs.leads[headline_leads(pairs.leads, MOST_LEADS)] if wanted is None else np.intersect1d(pairs.leads, wanted)
    )
    if not leads.size or (fields is not None and not len(fields)):
        return None
    variables = map_variables(pairs.variables, fields, MOST_FIELDS)
    more = {"threshold": options.threshold, "chaosbench": options.chaosbench}
    try:
        return LeadSpectra(inputs.world, variables, list(leads), **more)
    except ValueError as error:
        inputs.notes.append(f"Spectra left out: {error}")
        return None


def forecasts_beside(chosen: Mapping[Any, Any]) -> dict[str, StoredForecast]:
    """Other forecasts to draw beside, by name; ValueError for a name that the report uses itself."""
    for name in map(str, chosen):
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name) or name in RESERVED:
            raise ValueError(f"beside: a name is of letters and digits, none of {', '.join(RESERVED)}; got '{name}'.")
    return read_forecasts({str(name): Path(folder) for name, folder in chosen.items()})


def _named_fields(config: DictConfig, options: DictConfig) -> list[str]:
    """The variables that the command line itself asks for."""
    fields = plain(options.fields) or () if "fields" in strict_options(config) else ()
    return [entry if isinstance(entry, str) else str(next(iter(entry))) for entry in fields]


def _fitted(
    config: DictConfig, options: DictConfig, forecast: xr.Dataset, truth: xr.Dataset
) -> tuple[xr.Dataset, xr.Dataset, dict[str, Any], list[Absence]]:
    """Forecast and truth with derived fields; which variables, levels and leads are scored; what a preset wants and the
    data lack. What the command line itself says must be there."""
    absences: list[Absence] = []
    strict = strict_options(config)
    for name, dataset in (("forecast", forecast), ("truth", truth)):
        dataset, absent = with_derived(dataset, plain(options.derive) or (), "derive" in strict)
        forecast, truth = (dataset, truth) if name == "forecast" else (forecast, dataset)
        reasons = {field: f"it cannot be derived for the {name}: {why.rstrip('.')}" for field, why in absent.items()}
        known = {absence.name for absence in absences}
        absences += [Absence("variable", field, why) for field, why in reasons.items() if field not in known]
    fields, levels, leads = plain(options.fields), plain(options.levels), lead_times(options.leads)
    if fields is not None and "fields" not in strict:
        fields, without = shared_fields(fields, levels, forecast, truth)
        known = {absence.name for absence in absences}
        absences += [Absence("variable", name, "not in forecast and truth") for name in without if name not in known]
    if leads is not None and "leads" not in strict:
        leads, later = shared_leads(leads, forecast)
        absences += [Absence("lead", text, NO_LEAD) for text in later]
    return forecast, truth, {"variables": fields, "levels": levels, "leads": leads}, absences


def metric_nodes(config: DictConfig, pairs: Pairs) -> Any:
    """The configured metrics, else the usual ones for what there is."""
    if config.metric:
        return config.metric
    names = [*METRICS, *(OF_MEMBERS if pairs.members > 1 else ())]
    if config.climatology is not None:
        names += [name for variable, name in OF_PRECIPITATION.items() if variable in pairs.variables]
    files = [conf_folder() / "metric" / f"{name}.yaml" for name in names]
    return OmegaConf.merge(*(OmegaConf.load(file) for file in files))


def _attributes(
    path: ForecastPath, truth: str, climatology: str, manifest: Mapping[str, Any], pairs: Pairs
) -> dict[str, str]:
    return {
        "forecast": forecast_text(path),
        "truth": truth,
        "climatology": climatology,
        "verdict": str(manifest.get("verdict", "none recorded")),
        **pairs.attributes(),
        "created": now(),
        "revision": revision(),
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
    }


def _notes(forecast: xr.Dataset, manifest: Mapping[str, Any], pairs: Pairs) -> list[str]:
    """Warnings for the reader of the scores."""
    notes = []
    if manifest.get("verdict") == "failed":
        reasons = [str(reason) for reason in manifest.get("reasons", [])]
        more = f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
        notes.append(f"This forecast failed its checks: {'; '.join(reasons[:3]) or 'no reason given'}{more}.")
    if forecast.attrs.get("assumed"):
        notes.append(str(forecast.attrs["assumed"]))
    notes += [*assumptions(forecast), *assumptions(pairs.truth.dataset)]
    if pairs.missing:
        notes.append(pairs.missing_note())
    return notes
