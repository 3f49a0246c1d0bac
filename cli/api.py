"""Compose, open, forecast, verify and report from a notebook or a script: the functions behind `import emul`.

`emul.train(config)` is the module `emul.train`, called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from data_pipelines.conventions.suggestions import suggestion
from data_pipelines.options.folders import option_files, use_folders
from emul.config.build import build, build_all
from emul.config.compose import compose as compose_verb
from emul.terminal.console import progress

if TYPE_CHECKING:
    import xarray as xr

    from emulators.scores.interfaces import Metric

METRICS = ("rmse", "mae", "bias")
OF_MEMBERS = ("crps", "spread", "spread_skill")


def compose(*overrides: str, verb: str = "train") -> DictConfig:
    """Compose the configuration of a verb, as its command line does.

    overrides: "key=value", such as "data=lorenz96" or "training.steps=100". Raises ConfigErrors, a ValueError that
    lists every fault.

    >>> import emul
    >>> emul.compose("experiment=lorenz96_unet", "training.steps=20").training.steps
    20
    """
    return compose_verb(verb, overrides)


def open_data(*what: str) -> xr.Dataset:
    """Open a data source or files as one lazy Dataset: dimensions time, level, latitude, longitude; SI units.

    what: a path, several paths or an address; or overrides that name a source, such as "data=planet_tiny". Data that
    are simulated are made first, where they are missing.

    >>> import emul
    >>> dict(emul.open_data("data=lorenz96").sizes)["longitude"]
    40
    """
    from data_pipelines.opening.datasets import open_dataset

    if what and all("=" not in word.split("://")[0] or Path(word).exists() for word in what):
        return open_dataset(list(what) if len(what) > 1 else what[0])
    source = build(compose(*what).data)
    with progress("preparing the data") as report:
        source.prepare(report)
    dataset: xr.Dataset = source.dataset()
    return dataset


def evaluate(
    forecast: xr.Dataset | str | Path,
    truth: xr.Dataset | str | Path,
    *,
    climatology: str | Path | Sequence[str] | None = None,
    metrics: Sequence[str] | Mapping[str, Metric] | None = None,
    regions: Sequence[str | Mapping[str, Any]] = ("global",),
    variables: Sequence[str] | None = None,
    baselines: Sequence[str] = (),
    across_gaps: bool = True,
) -> xr.Dataset:
    """Score a forecast against the truth at its valid times, as `emul eval` does.

    forecast: of `Run.forecast`, or a store or file in the WeatherBench 2 layout. truth: of `open_data`, or a store or
    file. climatology: a file of `emul data climatology`, or a period (first, last) of the truth to fit harmonics to;
    needed by metrics such as "acc". metrics: names (`emul metrics`), or objects by name. regions: names, or boxes
    {"alps": {"latitude": [44, 48], "longitude": [5, 16]}}. baselines: "persistence", "climatology". across_gaps:
    compare with truth beyond a gap in its times as well.

    Returns one data variable a scored variable, dimensions metric, region, lead_time and, with levels, level; with
    baselines a first dimension `source`, the forecast first.

    >>> import emul
    >>> forecast = emul.open_run("outputs/train/lorenz96_unet").forecast("2003-01-05", "1d")
    >>> scores = emul.evaluate(forecast, emul.open_data("data=lorenz96"), baselines=["persistence"])
    >>> scores["source"].values.tolist()
    ['forecast', 'persistence']
    """
    import xarray as xr

    from data_pipelines.conventions.attributes import with_levels
    from data_pipelines.opening.forecasts import canonical_forecast, open_forecast
    from data_pipelines.verification.baselines import climatology_of, reference_forecasts
    from data_pipelines.verification.matching import with_likely_leads
    from data_pipelines.verification.pairs import Pairs
    from data_pipelines.verification.scoring import score_pairs
    from emulators.verification.evaluation import Evaluation

    forecast_data = canonical_forecast(forecast) if isinstance(forecast, xr.Dataset) else open_forecast(forecast)
    truth_data = truth if isinstance(truth, xr.Dataset) else with_levels(open_data(str(truth)))
    forecast_data = with_likely_leads(forecast_data, truth_data["time"].values if "time" in truth_data.dims else None)
    pairs = Pairs(forecast_data, truth_data, variables=variables, across_gaps=across_gaps)
    scored = _metrics(metrics, pairs.members)
    file, period = (climatology, None) if isinstance(climatology, str | Path) else (None, climatology)
    usual, _ = climatology_of(file, pairs, period, scored)
    references, notes = reference_forecasts(list(baselines), pairs, scored, usual, None, 512)
    absent = set(baselines) - set(references)
    if absent or notes:
        raise ValueError(f"Cannot score {', '.join(sorted(absent)) or 'all baselines'}: {' '.join(notes) or _WHY}")
    world = pairs.world()
    evaluation = Evaluation(world, pairs.variables, scored, pairs.leads, references=references, regions=list(regions))
    score_pairs(pairs, evaluation, climatology=usual)
    scores = evaluation.scores(pairs.attributes())
    others = evaluation.baseline_scores(pairs.attributes())
    if others is None:
        return scores
    return xr.concat([scores.expand_dims(source=["forecast"]), others], dim="source", join="outer")


def response(
    run: xr.Dataset | str | Path,
    control: xr.Dataset | str | Path,
    variable: str,
    *,
    level: float | None = None,
    region: str | None = None,
    imbalance: Mapping[str, float] | None = None,
) -> xr.Dataset:
    """Measure how the climate of a run, and of its truth, differs from that of a control: size, pattern and time scale.

    run, control: `climate.nc` of `emul eval eval=climate`, or opened. The rest, and what is returned, is told in
    `emulators.verification.climate_dataset.climate_response`.

        answer = emul.response("outputs/eval/abrupt/climate.nc", "outputs/eval/control/climate.nc", "2m_temperature")
        answer[["warming_approached", "e_folding_time", "pattern_correlation"]]
    """
    from data_pipelines.files.netcdf import read_form, read_netcdf
    from emulators.verification.climate_dataset import climate_response

    first, second = (read_form(read_netcdf(side)) if isinstance(side, str | Path) else side for side in (run, control))
    return climate_response(first, second, variable, level=level, region=region, imbalance=imbalance)


def report(scores: xr.Dataset, folder: str | Path, *, name: str = "forecast") -> Path:
    """Write the report of scores: `report.html`, `scorecard.png` and `curves.png` in `folder`; the path of the page.

    scores: of `evaluate`, with baselines for score cards of differences. name: of the forecast, in titles.

    >>> import emul
    >>> forecast = emul.open_run("outputs/train/lorenz96_unet").forecast("2003-01-05", "1d")
    >>> scores = emul.evaluate(forecast, emul.open_data("data=lorenz96"), baselines=["persistence"])
    >>> emul.report(scores, "outputs/reports/lorenz96").name
    'report.html'
    """
    from data_pipelines.display.text import lead_text
    from data_pipelines.reports.drawings import draw_scores
    from data_pipelines.reports.report import ReportContext, provenance_of, write_report
    from data_pipelines.verification.score_files import results_of

    results, target = results_of(scores, name), Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    draw_scores(target, results)
    facts = {"longest lead": lead_text(results.leads[-1]), "grid": str(scores.attrs.get("grid", "")).split(" (")[0]}
    return write_report(target / "report.html", results, ReportContext(facts, provenance_of(scores)))


_WHY = "climatology needs climatology=, a file or a period."


def _metrics(metrics: Sequence[str] | Mapping[str, Metric] | None, members: int) -> dict[str, Metric]:
    """Metrics by name; default: RMSE, MAE and bias, and of an ensemble CRPS, spread and spread-skill ratio."""
    if isinstance(metrics, Mapping):
        return dict(metrics)
    names = metrics if metrics is not None else [*METRICS, *(OF_MEMBERS if members > 1 else ())]
    use_folders()
    files = option_files("metric")
    for name in names:
        if name not in files:
            raise ValueError(f"metrics: there is no metric '{name}'; {suggestion(name, files)}")
    return build_all(OmegaConf.merge(*(OmegaConf.load(files[name]) for name in names)))
