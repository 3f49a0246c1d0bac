"""Compose, open, forecast and verify from a notebook or a script: the functions behind `import emul`.

`emul.train(config)` is the module `emul.train`, called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from emul.config.build import build, build_all
from emul.config.compose import compose as compose_verb
from emul.config.folders import conf_folder
from emul.terminal.console import progress

if TYPE_CHECKING:
    import xarray as xr

    from data_pipelines.verification.truth import CachedClimatology
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

    from data_pipelines.opening.forecasts import canonical_forecast, open_forecast, with_levels
    from data_pipelines.verification.baselines import reference_forecasts
    from data_pipelines.verification.matching import with_likely_leads
    from data_pipelines.verification.pairs import Pairs
    from data_pipelines.verification.scoring import score_pairs
    from emulators.verification.evaluation import Evaluation

    opened = canonical_forecast(forecast) if isinstance(forecast, xr.Dataset) else open_forecast(forecast)
    known = truth if isinstance(truth, xr.Dataset) else with_levels(open_data(str(truth)))
    opened = with_likely_leads(opened, known["time"].values if "time" in known.dims else None)
    pairs = Pairs(opened, known, variables=variables, across_gaps=across_gaps)
    scored = _metrics(metrics, pairs.members)
    usual = _climatology(climatology, pairs, scored)
    references, notes = reference_forecasts(list(baselines), pairs, scored, usual, None, 512)
    absent = set(baselines) - set(references)
    if absent or notes:
        raise ValueError(f"Cannot score {', '.join(sorted(absent)) or 'all baselines'}: {' '.join(notes) or _WHY}")
    world = pairs.world()
    evaluation = Evaluation(world, pairs.variables, scored, pairs.leads, references=references, regions=list(regions))
    score_pairs(pairs, evaluation, climatology=usual)
    scores = evaluation.scores()
    others = evaluation.baseline_scores()
    if others is None:
        return scores
    return xr.concat([scores.expand_dims(source=["forecast"]), others], dim="source", join="outer")


_WHY = "climatology needs climatology=, a file or a period."


def _metrics(metrics: Sequence[str] | Mapping[str, Metric] | None, members: int) -> dict[str, Metric]:
    """Metrics by name; default: RMSE, MAE and bias, and of an ensemble CRPS, spread and spread-skill ratio."""
    if isinstance(metrics, Mapping):
        return dict(metrics)
    names = metrics if metrics is not None else [*METRICS, *(OF_MEMBERS if members > 1 else ())]
    nodes = [OmegaConf.load(conf_folder() / "metric" / f"{name}.yaml") for name in names]
    return build_all(OmegaConf.merge(*nodes))


def _climatology(asked: Any, pairs: Any, metrics: Mapping[str, Metric]) -> CachedClimatology | None:
    """The climatology of a file, or fitted to a period of the truth."""
    from data_pipelines.opening.climatologies import ClimatologyFile
    from data_pipelines.verification.truth import CachedClimatology, fit_climatology

    if asked is None:
        return None
    if not isinstance(asked, str | Path):
        return fit_climatology(pairs.truth, list(asked), pairs.room)[0]
    file = ClimatologyFile(str(asked), pairs.variables, pairs.grid)
    needed = dict.fromkeys(need for metric in metrics.values() for need in metric.needs if need != "mean")
    return CachedClimatology(file, pairs.room, [need for need in needed if file.has(need)])
