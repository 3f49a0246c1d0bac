"""Hold all Datasets of one evaluation, for tables, pictures and pages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import xarray as xr

from data_pipelines.verification.score_rows import Row, Score, headline_rows, score_rows
from emulators.scores.deterministic import skill

OF_ONE = ("rmse", "mse", "mae", "bias", "acc", "acc_by_init", "rmse_by_init")  # metrics of single forecasts


@dataclass(frozen=True)
class EvaluationResults:
    """Hold the scores of one forecast and the Datasets that are shown with them.

    scores: one variable a field, (metric, region, lead_time[, level]). baselines: the same, dimension `source` first.
    differences: to the baselines, with confidence limits and verdicts, dimensions `source` and `estimate`.
    further_scores: scores of other forecasts and limits of predictability by name. by_init: statistics of each initial
    time. spectra, histograms, budgets: of the forecast. further_budgets: of other forecasts by name.
    """

    name: str
    scores: xr.Dataset
    baselines: xr.Dataset | None = None
    differences: xr.Dataset | None = None
    further_scores: Mapping[str, xr.Dataset] = field(default_factory=dict)
    by_init: xr.Dataset | None = None
    spectra: xr.Dataset | None = None
    histograms: xr.Dataset | None = None
    budgets: xr.Dataset | None = None
    further_budgets: Mapping[str, xr.Dataset] = field(default_factory=dict)

    @cached_property
    def headline(self) -> list[Row]:
        """The rows to show first."""
        return headline_rows(score_rows(self.scores))

    @cached_property
    def rows(self) -> list[Row]:
        """All rows, grouped by variable, those of the headline first."""
        order = [row.variable for row in self.headline]
        place = {name: order.index(name) for name in order}
        return sorted(score_rows(self.scores), key=lambda row: place.get(row.variable, len(order)))

    @property
    def shown_name(self) -> str:
        """The name, marked where the forecast failed its checks."""
        return f"{self.name} (failed its checks)" if self.scores.attrs.get("verdict") == "failed" else self.name

    @property
    def shown_metrics(self) -> list[str]:
        """The metrics of the score card: the first, and beside one of ensembles their spread/skill ratio."""
        leading = self.metrics[:1]
        of_members = leading and leading[0] not in OF_ONE and "spread_skill" in self.metrics[1:]
        return [*leading, *(["spread_skill"] if of_members else [])]

    @property
    def leads(self) -> np.ndarray:
        """Lead times, timedelta64."""
        return self.scores["lead_time"].values

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics."""
        return [str(name) for name in self.scores["metric"].values]

    @property
    def regions(self) -> list[str]:
        """Names of the regions, the headline's first."""
        return [str(name) for name in self.scores["region"].values]

    @property
    def sources(self) -> list[str]:
        """Names of the baselines."""
        return [] if self.baselines is None else [str(name) for name in self.baselines["source"].values]

    @cached_property
    def curves(self) -> dict[str, xr.Dataset]:
        """Scores by name: `forecast`, then the baselines, then the further ones."""
        baselines = {} if self.baselines is None else {s: self.baselines.sel(source=s) for s in self.sources}
        return {"forecast": self.scores, **baselines, **self.further_scores}

    def score(self, metric: str, region: str | None = None) -> Score:
        """A metric in a region, by default the headline's."""
        return Score(metric, region or self.regions[0], int(json.loads(self.scores.attrs["exponent"])[metric]))

    def perfect(self, metric: str) -> float:
        """Value of the metric for a perfect forecast; NaN where there is none."""
        return float(json.loads(self.scores.attrs["perfect"])[metric])

    def values(self, row: Row, metric: str = "rmse", region: str | None = None) -> np.ndarray:
        """Scores by lead time in the units of the row."""
        return row.series(self.scores, metric, region or self.regions[0]) * row.scale(self.score(metric).exponent)

    def relative_difference(
        self, row: Row, source: str, metric: str = "rmse", region: str | None = None
    ) -> np.ndarray | None:
        """Loss of the forecast minus that of a baseline, as a fraction of the latter, by lead time; negative is better.

        The loss is |score - perfect score|: RMSE itself, 1 - ACC. None where the baseline lacks the row.
        """
        region = region or self.regions[0]
        if source not in self.sources or self.baselines is None or not row.is_in(self.baselines, metric, region):
            return None
        other = row.series(self.baselines, metric, region, source=source)
        with np.errstate(divide="ignore", invalid="ignore"):
            return -skill(row.series(self.scores, metric, region), other, self.perfect(metric))

    def verdicts(self, row: Row, source: str, metric: str = "rmse", region: str | None = None) -> list[Verdict]:
        """By lead time, whether the difference to a baseline is significant."""
        region, judged = region or self.regions[0], self.differences
        if judged is None or source not in judged["source"].values or not row.is_in(judged, metric, region):
            return [""] * len(self.leads)
        series = {e: row.series(judged, metric, region, source=source, estimate=e) for e in ("significant", EFFECTIVE)}
        least = float(judged.attrs["least_inits"])
        return [verdict(flag, count, least) for flag, count in zip(*series.values(), strict=True)]

    def verdict_counts(self, source: str, metric: str = "rmse", region: str | None = None) -> VerdictCounts | None:
        """How many differences to a baseline are significant, over all variables, levels and leads; None if unknown."""
        region, judged = region or self.regions[0], self.differences
        labels = {"source": source, "metric": metric, "region": region}
        if judged is None or any(label not in judged[dim].values for dim, label in labels.items()):
            return None
        fields = [judged[name].sel(labels).transpose("estimate", ...) for name in judged.data_vars]
        p_value, flag, effective = (
            np.concatenate([field.sel(estimate=estimate).values.ravel() for field in fields])
            for estimate in ("p_value", "significant", EFFECTIVE)
        )
        level, least = 0.01 * float(judged.attrs["level"]), float(judged.attrs["least_inits"])
        alone = int((p_value <= 1.0 - level).sum())
        together = int((flag == 1.0).sum())
        return VerdictCounts(int(np.isfinite(p_value).sum()), alone, together, int((effective < least).sum()))


EFFECTIVE = "effective_inits"
Verdict = Literal["yes", "no", "few", ""]  # significant, not significant, too few initial times to say, not judged


class VerdictCounts(NamedTuple):
    """Count differences: judged; significant each for itself, and as shown; with too few initial times to say."""

    judged: int
    alone: int
    shown: int
    few: int


def verdict(flag: float, effective_inits: float, least: float) -> Verdict:
    """The verdict of a difference from the estimates of differences.nc."""
    if np.isnan(flag):
        return "few" if effective_inits < least else ""
    return "yes" if flag else "no"


def compared_evaluations(
    runs: Mapping[str, xr.Dataset], baseline: str, reference: xr.Dataset, differences: xr.Dataset | None
) -> dict[str, EvaluationResults]:
    """An EvaluationResults for each run of a comparison, with one of them (or another forecast) as its only baseline.

    runs: scores by name. reference: scores of the baseline. differences: of the runs to it, dimension `source` the run.
    """
    against, evaluations = reference.expand_dims(source=[baseline]), {}
    for name, scores in runs.items():
        judged = None
        if differences is not None and name in differences["source"].values:
            judged = differences.sel(source=[name]).assign_coords(source=[baseline])
        evaluations[name] = EvaluationResults(name, scores, None if name == baseline else against, judged)
    return evaluations
