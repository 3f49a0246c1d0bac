"""Open the two sides of an evaluation, forecast and truth, with the options that say what their files do not.

`Inputs` holds all that is scored, once it is opened and matched.
"""

from __future__ import annotations

import glob
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipelines.batches.seen import Guards, SeenDates, seen_from_plain
from data_pipelines.conventions.attributes import assumptions, is_near_any, with_levels
from data_pipelines.conventions.canonical import LEAD
from data_pipelines.conventions.durations import asked_inits, bounds, lead_times
from data_pipelines.conventions.suggestions import options_under, suggestion
from data_pipelines.conventions.valid_times import LEADS
from data_pipelines.derived.shaping import shaped
from data_pipelines.files import checkpoints
from data_pipelines.files.fingerprints import data_differences, fingerprint
from data_pipelines.files.identity import file_stamp, listed, name_within, revision, versions, weights_digest
from data_pipelines.forecasts.manifest import FILES, now
from data_pipelines.opening.datasets import open_dataset, open_files
from data_pipelines.opening.forecasts import open_forecast
from data_pipelines.verification.absences import NO_LEAD, Absence, absent_dates, absent_levels, absent_metrics
from data_pipelines.verification.matching import shared_fields, shared_leads, with_derived
from data_pipelines.verification.pairs import CachedClimatology, Pairs
from data_pipelines.verification.score_files import StoredForecast
from emulators.scores.interfaces import Reference
from emulators.world import World

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


def side_options(asked: Mapping[str, Any], path: ForecastPath, truth: Any) -> SideOptions:
    """Return what `rename`, `select`, ... say of the forecast at `path` and of the truth.

    asked: plain values of OPTIONS. truth: its path or paths; None: a data source. Each option is given for one side,
    rename={truth: {t: temperature}}, or of both, where it holds for whatever has the names. Raises ValueError for a
    name that neither has.
    """
    options = SideOptions()
    shared: dict[str, Mapping[str, Any]] = {}
    for key in OPTIONS:
        setting = asked[key]
        if setting is None:
            continue
        if isinstance(setting, Mapping) and set(setting) <= SIDES:
            for side, value in setting.items():
                options.of(side)[key] = value
        elif key in OF_NAMES:
            shared[key] = setting
        else:
            if key == "units" and any("->" in str(units) for name, units in setting.items() if name not in LEADS):
                raise ValueError(
                    "units: '->' corrects what one side says; tell which: units={truth: {...: 'degC -> K'}}."
                )
            options.forecast[key] = options.truth[key] = setting
    if options.truth.get("members") is not None and asked["members"] != options.truth["members"]:
        raise ValueError("members: the truth is one state a time; choose one with select={truth: {...: 0}}.")
    options.truth.pop("members", None)
    options.forecast.pop("dates", None)
    if shared:
        _divide(options, shared, path, truth)
    return options


def _divide(options: SideOptions, shared: Mapping[str, Mapping[str, Any]], path: ForecastPath, truth: Any) -> None:
    """Give each side the shared options of names that it has."""
    names = {"forecast": _names(path), "truth": _names(truth) if truth is not None else set()}
    renamed = {str(new) for new in shared.get("rename", {}).values()}
    for key, entries in shared.items():
        for name in entries:
            if not any(name in present for present in names.values()) and (key == "rename" or name not in renamed):
                every = sorted({*names["forecast"], *names["truth"]})
                raise ValueError(f"{key}: neither forecast nor truth has '{name}'; {suggestion(name, every)}")
        for side, present in names.items():
            subset = {
                name: value for name, value in entries.items() if name in present or name in renamed & set(entries)
            }
            options.of(side).update({key: subset} if subset else {})


def _names(path: Any) -> set[str]:
    return {str(name) for dataset in open_files(path) for name in (*dataset.variables, *dataset.dims)}


def opened_forecast(path: ForecastPath, options: Mapping[str, Any]) -> xr.Dataset:
    """Open the forecast at `path`."""
    return open_forecast(path, **{**options, "units": _units(options)})


def _units(options: Mapping[str, Any]) -> dict[str, str] | None:
    return dict(options["units"]) if options.get("units") else None


def refuse_unknown_units(options: SideOptions, forecast: xr.Dataset, truth: xr.Dataset) -> None:
    """Raise ValueError for units of a variable that neither forecast nor truth has."""
    names = [*forecast.data_vars, *truth.data_vars, LEAD]
    for name in {**(options.forecast.get("units") or {}), **(options.truth.get("units") or {})}:
        if name not in names and name not in LEADS:
            raise ValueError(
                f"units: neither forecast nor truth has '{name}'; {suggestion(name, dict.fromkeys(names))}"
            )


def truth_in_files(path: Any, options: Mapping[str, Any]) -> xr.Dataset:
    """Open the truth at a path, or at several."""
    with options_under("", lacking=("members",)):
        truth = with_levels(open_dataset(path, **{key: value for key, value in options.items() if key != "units"}))
    units = {name: text for name, text in (_units(options) or {}).items() if name in truth.data_vars}
    return shaped(truth, units=units)


def stored_forecasts(given: Any, advice: str = ".") -> ForecastPath:
    """The store or file, or several, at a path, a pattern, an address or each of a list.

    advice: ends the message of the FileNotFoundError where there is none.
    """
    if isinstance(given, list):
        return [str(_stored(Path(entry))) if "://" not in str(entry) else str(entry) for entry in given]
    if "://" in str(given) or "::" in str(given):
        return str(given)
    path = Path(given)
    if not path.exists() and glob.has_magic(str(path)):
        matches = sorted(glob.glob(str(path.expanduser()), recursive=True))
        if matches:
            return matches
        raise FileNotFoundError(f"No forecast matches {path}.")
    stored = _stored(path)
    if not stored.exists():
        raise FileNotFoundError(f"No forecast at {path}{advice}")
    return stored


def _stored(path: Path) -> Path:
    """Return the forecast in a folder of `emul forecast`, or the path itself."""
    path = path.expanduser()
    return next((path / name for name in FILES if (path / name).exists()), path)


def forecast_name(path: ForecastPath, output: str) -> str:
    """Name an evaluation after the folder of its forecast or of its several files, else after its file."""
    if isinstance(path, list):
        return Path(path[0]).resolve().parent.name or "forecast"
    path = Path(path)
    if path.name in FILES and path.parent.name:
        return name_within(path.parent, Path(output) / "forecast") or path.parent.name
    name = path.stem
    return Path(name).stem if name.endswith((".zarr", ".nc")) else name


def forecast_text(path: ForecastPath) -> str:
    """Return the path of the forecast, or the first of several, as text."""
    return str(path) if not isinstance(path, list) else f"{path[0]} and {len(path) - 1} more"


def forecast_files(path: ForecastPath) -> list[Path]:
    """Return the files or stores of the forecast."""
    return [Path(str(name)) for name in (path if isinstance(path, list) else [path])]


def refuse_other_weights(run: str | Path, folder: Path, manifest: Mapping[str, Any]) -> None:
    """Raise ValueError where the forecast in `folder` was not made with the weights that `run` has now."""
    again = f"make it again: emul forecast run={run} resume=anew, or score it as it is: forecast={folder}"
    stored = manifest.get("checkpoint") or {}
    file = Path(run) / "checkpoints" / f"{stored.get('name', 'best')}.ckpt"
    file = file if file.is_file() else file.with_name("last.ckpt")
    if not file.is_file() or list(file_stamp(file)) == stored.get("file"):
        return
    if not manifest:
        raise ValueError(f"{folder} has no manifest that says which run made it; {again}")
    card = checkpoints.load(file)["emul"]
    if weights_digest(card["weights"]) != manifest["settings"].get("weights"):
        raise ValueError(
            f"{folder} holds a forecast of other weights (step {stored.get('step')} of {manifest.get('run')}) than "
            f"{file} has now (step {card.get('step')}); {again}"
        )


def changed_data(
    run: str | Path | None, manifest: Mapping[str, Any], source: Source | None, truth: xr.Dataset
) -> list[str]:
    """Say in a note how the data differ from those that the forecast was made from.

    run: whose forecast it is; None: not asked for by its run. ValueError where the same times of the forecast of a run
    hold other numbers now.
    """
    before = manifest.get("settings", {}).get("fingerprint")
    if source is None or not before:
        return []
    now = fingerprint(source.path, truth)
    diffs = data_differences(before, now)
    if diffs and run is not None and before.get("times_digest") == now.get("times_digest"):
        raise ValueError(
            f"The data at {source.path} are not those that the forecast was made from ({listed(diffs)}). Make it again "
            f"(emul forecast run={run} resume=anew), or name what is compared: forecast=... truth=... ."
        )
    return [f"The data changed since the forecast was made: {listed(diffs)}."] if diffs else []


def marked(guards: Guards, manifest: Mapping[str, Any], period: Any, pairs: Pairs) -> list[str]:
    """Return what the guards of an evaluation mark; ValueError for what they refuse.

    manifest: of the forecast, empty if it has none. period: [start, end] of the training, where the manifest says none.
    """
    seen = seen_from_plain(manifest.get("seen"))
    if "seen" not in manifest:
        try:
            seen = SeenDates(train=(tuple(map(str, bounds(period or ()))),))  # type: ignore[arg-type]
        except ValueError:  # of a store that has its own
            return []
    marks = {**manifest.get("marks", {}), "training_dates": guards.on_dates(seen, pairs.inits, pairs.leads.max())}
    return guards.allowed(marks)


NO_CLIMATOLOGY = "no climatology; give climatology=<file> (`emul data climatology`)"


def as_list(value: Any) -> list[Any] | None:
    """Return a list of names and boxes from one name, or from a mapping such as {alps: {latitude: [44, 48]}}."""
    if value is None:
        return None
    entries = value if isinstance(value, list) else [value]
    lists = [
        [{name: box} for name, box in entry.items()] if isinstance(entry, Mapping) else [entry] for entry in entries
    ]
    return [item for several in lists for item in several]


def asked_in_vain(
    options: Mapping[str, Any],
    pairs: Pairs,
    metrics: Mapping[str, Any],
    climatology: CachedClimatology | None,
    sides: tuple[xr.Dataset, xr.Dataset],
) -> list[Absence]:
    """Levels, dates, metrics and baselines that were asked for and that the data cannot give.

    options: plain `fields`, `levels`, `inits`, `baselines`. sides: forecast and truth.
    """
    forecast, truth = sides
    fields = () if climatology is None else climatology.names
    absences = absent_levels(pairs, options["fields"], options["levels"], forecast, truth)
    absences += absent_dates(asked_inits(options["inits"]), forecast["time"].values.astype("datetime64[s]"))
    absences += absent_metrics(metrics, pairs.members, fields, NO_CLIMATOLOGY)
    if climatology is None and "climatology" in options["baselines"]:
        absences.append(Absence("baseline", "baseline climatology", NO_CLIMATOLOGY))
    return absences


def fitted(
    forecast: xr.Dataset, truth: xr.Dataset, options: Mapping[str, Any], strict: Collection[str]
) -> tuple[xr.Dataset, xr.Dataset, dict[str, Any], list[Absence]]:
    """Return forecast and truth with derived fields; which variables, levels and leads are scored; what is lacking.

    options: plain `derive`, `fields`, `levels`, `leads`. strict: names of those that must be there, others are reduced
    to what the data hold.
    """
    absences: list[Absence] = []
    for name, dataset in (("forecast", forecast), ("truth", truth)):
        dataset, absent = with_derived(dataset, options["derive"] or (), "derive" in strict)
        forecast, truth = (dataset, truth) if name == "forecast" else (forecast, dataset)
        reasons = {
            field: f"it cannot be derived for the {name}: {why.removeprefix('derive: ').rstrip('.')}"
            for field, why in absent.items()
        }
        absent_names = {absence.name for absence in absences}
        absences += [Absence("variable", field, why) for field, why in reasons.items() if field not in absent_names]
    fields, levels, leads = options["fields"], options["levels"], lead_times(options["leads"])
    if levels and "levels" in strict:
        refuse_absent_levels(levels, forecast)
    if fields is not None and "fields" not in strict:
        fields, without = shared_fields(fields, levels, forecast, truth)
        absent_names = {absence.name for absence in absences}
        absences += [
            Absence("variable", name, "not in forecast and truth") for name in without if name not in absent_names
        ]
    if leads is not None and "leads" not in strict:
        leads, later = shared_leads(leads, forecast)
        absences += [Absence("lead", text, NO_LEAD) for text in later]
    return forecast, truth, {"variables": fields, "levels": levels, "leads": leads}, absences


def refuse_absent_levels(wanted: Sequence[float], forecast: xr.Dataset) -> None:
    """Raise ValueError where a forecast with levels has none of those that are wanted."""
    have = forecast["level"].values.tolist() if "level" in forecast.dims else []
    if have and not any(is_near_any(have)(float(level)) for level in wanted):
        named = ", ".join(f"{level:g}" for level in have)
        raise ValueError(f"levels: expected some of {named}; got {wanted}; levels=all takes all.")


def provenance(
    path: ForecastPath, truth: str, climatology: str, manifest: Mapping[str, Any], pairs: Pairs
) -> dict[str, str]:
    """Attributes for scores on where they come from. truth, climatology: in words."""
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


def notes_on(forecast: xr.Dataset, manifest: Mapping[str, Any], pairs: Pairs) -> list[str]:
    """Warnings for the reader of the scores."""
    notes = []
    if manifest.get("verdict") == "failed":
        reasons = [str(reason) for reason in manifest.get("reasons", [])]
        more = f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
        notes.append(f"This forecast failed its checks: {'; '.join(reasons[:3]) or 'no reason given'}{more}.")
    if pairs.statistics_of:
        notes.append(
            f"Scores are those of the mean and spread of {pairs.statistics_of} members; two that have both stand "
            "for them."
        )
    if forecast.attrs.get("assumed"):
        notes.append(str(forecast.attrs["assumed"]))
    notes += [*assumptions(forecast), *assumptions(pairs.truth.dataset)]
    if pairs.missing:
        notes.append(pairs.missing_note())
    return notes


@dataclass(frozen=True)
class Inputs:
    """Hold what is scored: opened, matched and checked.

    climatology: fields of the channels of `pairs.variables` at valid times, or None. baselines: reference forecasts by
    name. attributes: for scores.nc. notes: warnings for the reader. limits: scores of twins and their saturation to
    draw beside, by name. budgets: of the forecast. beside: other forecasts to draw beside, by name. absences: what was
    asked for and cannot be given. described: title, author, ... as given. is_own: `emul forecast` made the forecast.
    """

    name: str
    options: Mapping[str, Any]
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
    described: Mapping[str, str] = field(default_factory=dict)
    is_own: bool = False
