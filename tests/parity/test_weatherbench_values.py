"""Every number of the reference case that has a counterpart here, to 1e-9; and the list of those without, with reasons.

Scores of weatherbench2 0.2.1, weatherbenchX, xskillscore 0.0.29, properscoring 0.1 and scoringrules 0.10.0 on the same
files: inputs read as float32, cast to float64, then scored.
"""

import json
from functools import cache

import numpy as np
import pytest
import torch
import xarray as xr

from data_pipelines.opening.datasets import open_dataset
from data_pipelines.opening.forecasts import open_forecast
from data_pipelines.verification.baselines import ClimatologyFile
from data_pipelines.verification.pairs import CachedClimatology, Pairs
from emulators.metrics.acc import ACC
from emulators.metrics.activity import Activity
from emulators.metrics.bias import Bias
from emulators.metrics.brier import Brier
from emulators.metrics.crps import CRPS
from emulators.metrics.debiased import DebiasedError
from emulators.metrics.energy_score import EnergyScore
from emulators.metrics.events import EventScore
from emulators.metrics.fractions_skill_score import FractionsSkillScore
from emulators.metrics.gaussian_crps import GaussianCRPS
from emulators.metrics.mae import MAE
from emulators.metrics.mse import MSE
from emulators.metrics.rank_histogram import RankHistogram
from emulators.metrics.rmse import RMSE
from emulators.metrics.rps import RPS
from emulators.metrics.seeps import SEEPS
from emulators.metrics.spread import Spread
from emulators.metrics.spread_skill import SpreadSkill
from emulators.scores.ensemble import crps, energy_score, rank_shares, variance
from emulators.scores.events import event, seeps
from emulators.scores.interfaces import Metric, Product
from emulators.state import State
from emulators.variables import Variable, VariableSet
from emulators.verification.channels import WINDS
from emulators.verification.scorecard import Scorecard
from emulators.world import World
from places import SHARED

FOLDER = SHARED / "reference" / "verification"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="the reference numbers are not beside this checkout"),
]
QUANTILES = (0.1, 0.25, 0.75, 0.9)
AMOUNTS = (0.001, 0.003)  # m
T2M = "2m_temperature"


class Term(Metric):
    """A part of a score: the value of the means of another metric's statistics, as `value` takes it."""

    def __init__(self, whole, value, by_init=False):
        self.members, self.needs, self.by_init = whole.members, whole.needs, by_init
        self.statistics, self.value = whole.statistics, value


class Boxes(FractionsSkillScore):
    """The fractions skill score with the neighbourhoods of WeatherBench-X, where ours are discs in km.

    Boxes of size x size points, over the date line, none weighted by area; those that leave the grid at a pole are 0.
    """

    def __init__(self, size, shape, threshold):
        super().__init__(threshold=threshold)
        self.size, self.shape, self.names = size, shape, tuple(f"{name} {size}" for name in self.names)

    def local(self, near, prediction, target, climatology):
        limit = self.threshold.field(climatology)
        return self.mean(event(prediction, limit).mean(dim=0, keepdim=True)), self.mean(event(target, limit))

    def mean(self, share):
        fields, edge = share.unflatten(-1, self.shape), self.size // 2
        means = torch.zeros_like(fields)
        rows = fields.unfold(-2, self.size, 1).mean(-1)
        means[..., edge : self.shape[0] - edge, :] = sum(rows.roll(k, -1) for k in range(-edge, edge + 1)) / self.size
        return means.flatten(-2)


def by_quantile(make):
    return [make(quantile=q) for q in QUANTILES]


def table(score):
    return [EventScore(score=score, threshold=amount) for amount in AMOUNTS]


DETERMINISTIC = {"bias": Bias(), "mae": MAE(), "mse": MSE(), "rmse": RMSE()}
WB2 = DETERMINISTIC | {
    "acc": ACC(by_init=True),
    "rmse_sqrt_before_time_avg": RMSE(by_init=True),
    "seeps_6hr": SEEPS(dry=1e-4),
}
SECTIONS = {  # what stands in the reference, and what it is here; a list runs along thresholds
    "wb2_deterministic": WB2,
    "wb2_skipna_true": WB2,
    "wb2_skipna_false": WB2,
    "wb2_persistence": WB2,
    "wb2_climatology": WB2,
    "wbx_deterministic": DETERMINISTIC | {"acc": ACC(), "prediction_activity": Activity(), "vector_rmse": RMSE()},
    "wbx_seeps_masked": {"seeps_6hr": SEEPS(dry=1e-4)},
    "wbx_categorical": {
        score: table(score) for score in ("csi", "ets", "recall", "precision", "f1", "frequency_bias", "hss", "sedi")
    },
    "wb2_probabilistic": {
        "crps": CRPS(),
        "crps_skill": Term(CRPS(), lambda means: means["absolute_member_error"]),
        "crps_spread": Term(CRPS(), lambda means: means["mean_difference"]),
        "debiased_ensemble_mean_mse": DebiasedError(root=False),
        "energy_score": EnergyScore(pairs="adjacent"),
        "energy_score_skill": Term(
            EnergyScore(pairs="adjacent"), lambda means: means["member_squared_error"].sqrt().mean(0), by_init=True
        ),
        "energy_score_spread": Term(
            EnergyScore(pairs="adjacent"), lambda means: means["adjacent_square"].sqrt().mean(0), by_init=True
        ),
        "ensemble_mean_mse": MSE(),
        "ensemble_mean_rmse_sqrt_before_time_avg": RMSE(by_init=True),
        "ensemble_stddev_sqrt_before_time_avg": Spread(by_init=True),
        "ensemble_variance": Spread(squared=True),
    },
    "wb2_threshold": {
        "brier_score": by_quantile(Brier),
        "debiased_brier_score": by_quantile(lambda quantile: Brier(quantile=quantile, debiased=True)),
    },
    "wb2_gaussian_quantile_threshold": {
        "brier_score": by_quantile(lambda quantile: Brier(quantile=quantile, gaussian=True))
    },
    "wb2_rps": {"rps": RPS(quantiles=QUANTILES)},
    "wbx_probabilistic": {
        "crps_fair": CRPS(),
        "crps_fair_sort": CRPS(),
        "unbiased_spread_skill": SpreadSkill(),
        "unbiased_mean_rmse": DebiasedError(),
        "root_mean_variance": Spread(),
        "mean_rmse": RMSE(),
    },
    "wbx_crps_unfair": {"crps_unfair": CRPS(kind="biased")},
    "wbx_rank_histogram": {"rank_histogram": RankHistogram()},
}
ELSEWHERE = {  # sections with a test of their own below
    "wb2_temporal_lead_by_init", "wb2_gaussian_crps", "wb2_rank_histogram_mean_over_init_lat_lon",
    "wbx_fss", "wbx_energy_score_fair", "wbx_energy_score_unfair", "other_packages_2m_temperature",
}  # fmt: skip
WITHOUT = {
    "wbx_skipna_true": "where missing points move from init to init WeatherBench-X pools the points of all; here each "
    "init's mean counts the same, as in WeatherBench 2",
    "wb2_float32_max_relative_difference": "how far WeatherBench 2 in float32 is from itself in float64",
}
SETTINGS = {
    "lead_hours", "ensemble_lead_hours", "init_times", "wb2_threshold_quantiles", "wbx_categorical_thresholds_m",
    "wbx_fss_neighborhoods",
}  # fmt: skip


@cache
def expected(case="64x32"):
    return json.loads((FOLDER / "expected_values_A.json").read_text())[case]


def flat(metrics):
    """Lists of metrics as single ones, each under its own name."""
    parts = {}
    for name, metric in metrics.items():
        several = metric if isinstance(metric, list) else [metric]
        parts |= {f"{name} {i}": one for i, one in enumerate(several)}
    return parts


@cache
def pairs(case="64x32", forecast="forecast"):
    found = Pairs(open_forecast(FOLDER / f"{forecast}_{case}.nc"), open_dataset(FOLDER / f"obs_{case}.nc"))
    climatology = ClimatologyFile(FOLDER / f"climatology_{case}.nc", found.variables, found.grid)
    further = [f"quantile_{q:g}" for q in QUANTILES] + ["std", "seeps_threshold", "seeps_dry_share"]
    normals = CachedClimatology(climatology, 1000, [name for name in further if climatology.has(name)])
    return found, normals


def card_of(metrics, regions, case="64x32", forecast="forecast", missing="none", source="forecast"):
    """A scorecard fed with the whole case, or with its baselines."""
    found, normals = pairs(case, forecast)
    land = open_dataset(FOLDER / f"obs_{case}.nc")["land_sea_mask"].values[None]
    world = World(
        found.grid,
        found.variables,
        found.leads[0],
        static=VariableSet((Variable("land_sea_mask"),)),
        static_fields=land,
    )
    card = Scorecard(world, found.variables, flat(metrics), regions, list(found.leads), missing=missing, vectors=WINDS)
    for pair in found:
        named = normals.named(pair.target.time)
        start = None if pair.start is None else pair.start.values
        values = {"forecast": pair.prediction.values, "persistence": start, "climatology": named["mean"]}[source]
        card.add(State(values, found.variables, pair.target.time), pair.target, pair.lead, named)
    return card


def assert_section(card, metrics, section):
    """All numbers of {metric: {region: {channel: by lead[, threshold or rank]}}}; returns how many there were."""
    names = {channel: i for i, channel in enumerate(card.scored_variables.channels)}
    count = 0
    for metric, by_region in section.items():
        several = metrics[metric] if isinstance(metrics[metric], list) else [metrics[metric]]
        values = np.stack([card.value(f"{metric} {i}") for i in range(len(several))])
        values = values[0] if values.ndim == 5 else values  # a histogram: (rank, region, lead, channel)
        for region, by_channel in by_region.items():
            for key, by_lead in by_channel.items():
                got = values[:, card.regions.names.index(region), :, names[key.replace("@", "_")]]
                want = np.array(by_lead, dtype=float)  # null is NaN
                want = want.T if want.ndim == 2 else want[None]
                np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-30, err_msg=f"{metric} {region} {key}")
                count += want.size
    return count


def regions_of(section):
    return list(next(iter(section.values())))


def test_every_number_is_accounted_for():
    assert set(expected()) == set(SECTIONS) | ELSEWHERE | set(WITHOUT) | SETTINGS
    for section, metrics in SECTIONS.items():
        assert set(expected()[section]) <= set(metrics), section
    assert not set(expected("240x121")) - set(SECTIONS) - SETTINGS


@pytest.mark.parametrize(
    ("section", "options", "least"),
    [
        ("wb2_deterministic", {}, 5000),
        ("wb2_persistence", {"source": "persistence"}, 1000),
        ("wb2_climatology", {"source": "climatology"}, 700),
        ("wb2_skipna_true", {"missing": "any"}, 90),
        ("wb2_skipna_false", {}, 90),
        ("wbx_deterministic", {}, 2000),
        ("wbx_seeps_masked", {}, 40),
        ("wbx_categorical", {}, 600),
        ("wb2_probabilistic", {"forecast": "ensemble"}, 600),
        ("wb2_threshold", {"forecast": "ensemble"}, 90),
        ("wb2_gaussian_quantile_threshold", {"forecast": "ensemble"}, 40),
        ("wb2_rps", {"forecast": "ensemble"}, 12),
        ("wbx_probabilistic", {"forecast": "ensemble"}, 500),
        ("wbx_crps_unfair", {"forecast": "ensemble"}, 90),
        ("wbx_rank_histogram", {"forecast": "ensemble"}, 400),
    ],
)
def test_section(section, options, least):
    numbers = expected()[section]
    metrics = {name: SECTIONS[section][name] for name in numbers}
    card = card_of(metrics, regions_of(numbers), **options)
    assert assert_section(card, metrics, numbers) >= least


@pytest.mark.parametrize("section", ["wb2_deterministic", "wbx_deterministic"])
def test_a_grid_with_poles(section):
    numbers = expected("240x121")[section]
    metrics = {name: SECTIONS[section][name] for name in numbers}
    assert assert_section(card_of(metrics, regions_of(numbers), "240x121"), metrics, numbers) >= 100


def test_scores_of_each_initial_time():
    numbers, (found, normals) = expected()["wb2_temporal_lead_by_init"], pairs()
    metrics = {"acc": ACC(), "mse": MSE()}
    world = World(found.grid, found.variables, found.leads[0])
    cards = [Scorecard(world, found.variables, flat(metrics), ["global"], list(found.leads)) for _ in found.inits]
    for pair in found:
        mean = normals(pair.target.time)
        for row, card in enumerate(cards):
            states = (
                State(s.values[row], found.variables, pair.target.time[row]) for s in (pair.prediction, pair.target)
            )
            card.add(*states, pair.lead, mean[row])
    for row, card in enumerate(cards):
        one = {m: {"global": {key: np.array(v, dtype=float)[:, row] for key, v in numbers[m].items()}} for m in metrics}
        assert assert_section(card, metrics, one) == 2 * 4 * 8


def test_gaussian_crps():
    numbers = {"gaussian": expected()["wb2_gaussian_crps"]}
    metrics = {"gaussian": GaussianCRPS()}
    assert assert_section(card_of(metrics, regions_of(numbers), forecast="ensemble"), metrics, numbers) == 12


def ensemble(name=T2M, level=None):
    """Members (member, lead, init, point) and truth (lead, init, point) in float64, latitude from south to north."""
    at = {} if level is None else {"level": level}
    forecast = xr.open_dataset(FOLDER / "ensemble_64x32.nc")[name].sel(at)
    truth = xr.open_dataset(FOLDER / "obs_64x32.nc")[name].sel(at)
    forecast = forecast.transpose("number", "prediction_timedelta", "time", *truth.dims[1:])
    leads = forecast["prediction_timedelta"].values.astype("timedelta64[h]")
    valid = np.stack([truth.sel(time=forecast["time"].values + lead).values for lead in leads])
    return tuple(torch.from_numpy(v).double().flatten(-2) for v in (forecast.values, valid))


def test_rank_histogram_of_points():
    for key, want in expected()["wb2_rank_histogram_mean_over_init_lat_lon"].items():
        name, _, level = key.partition("@")
        members, truth = ensemble(name, int(level) if level else None)
        np.testing.assert_allclose(rank_shares(members, truth).mean((2, 3)).T, want, rtol=1e-12)
    members, truth = ensemble()
    counts = expected()["other_packages_2m_temperature"]["xskillscore_rank_histogram"]
    np.testing.assert_array_equal(rank_shares(members, truth).sum((2, 3)).T, counts)


def test_fractions_skill_score():
    """Of single points by our own neighbourhoods, discs smaller than a cell; of boxes by theirs."""
    rain, shape = "total_precipitation_6hr", pairs()[0].grid.shape
    metrics = {
        "disc": [FractionsSkillScore(radius=1.0, threshold=amount) for amount in AMOUNTS],
        "box": [Boxes(size, shape, amount) for amount in AMOUNTS for size in expected()["wbx_fss_neighborhoods"]],
    }
    card, column = card_of(metrics, ["global"]), pairs()[0].variables.slice(rain).start
    want = np.array(expected()["wbx_fss"]["fss_wrap"][rain])  # (lead, amount, size)
    for key, theirs in (("disc", want[..., 0]), ("box", want.reshape(len(want), -1))):
        found = [card.value(f"{key} {i}")[0, :, column] for i in range(theirs.shape[1])]
        np.testing.assert_allclose(np.stack(found, -1), theirs, rtol=1e-8)  # their means are single


@pytest.mark.parametrize(("section", "kind"), [("fair", "fair"), ("unfair", "biased")])
def test_energy_score_of_all_pairs(section, kind):
    members, truth = ensemble()
    found = energy_score(members, truth, torch.ones(truth.shape[-1], dtype=torch.float64), kind).mean(-1)
    np.testing.assert_allclose(found, expected()[f"wbx_energy_score_{section}"]["energy_score"][T2M], rtol=1e-11)


def test_other_packages():
    numbers, (members, truth) = dict(expected()["other_packages_2m_temperature"]), ensemble()
    biased, fair = (crps(members, truth, kind).mean((1, 2)) for kind in ("biased", "fair"))
    for name in ("properscoring_crps_ensemble", "xskillscore_crps_ensemble", "scoringrules_crps_nrg",
                 "scoringrules_crps_qd", "scoringrules_crps_int"):  # fmt: skip
        np.testing.assert_allclose(biased, numbers.pop(name), rtol=1e-12)
    for name in ("scoringrules_crps_fair", "scoringrules_crps_pwm"):
        np.testing.assert_allclose(fair, numbers.pop(name), rtol=1e-12)
    ones = torch.ones(truth.shape[-1], dtype=torch.float64)
    energy = energy_score(members, truth, ones, "biased").mean(-1)
    np.testing.assert_allclose(energy, numbers.pop("scoringrules_energy_nrg_over_grid"), rtol=1e-11)
    rmse = card_of({"rmse": RMSE()}, ["global"]).value("rmse 0")[0]
    t2m = pairs()[0].variables.slice(T2M).start
    np.testing.assert_allclose(rmse[:, t2m], numbers.pop("xskillscore_rmse_cos_latitude"), rtol=1e-12)
    assert set(numbers) == {
        "scoringrules_crps_akr",  # an approximation of the CRPS that is not offered
        "xskillscore_rank_histogram",  # tested with the other rank histograms
    }


def test_maps():
    want = xr.load_dataset(FOLDER / "expected_maps_64x32.nc", decode_timedelta=False)
    found, normals = pairs()
    at = found.variables.slice
    for pair in found:
        if found.leads[pair.lead] / np.timedelta64(1, "h") not in want["lead_time"]:
            continue
        hour = int(found.leads[pair.lead] / np.timedelta64(1, "h"))
        here = want.sel(lead_time=hour).transpose("latitude", "longitude").isel(latitude=slice(None, None, -1))
        forecast, truth = (s.values.double() for s in (pair.prediction, pair.target))
        error = (forecast - truth)[:, at(T2M).start]
        for name, field in (("bias", error), ("mae", error.abs()), ("mse", error.square())):
            np.testing.assert_allclose(field.mean(0), here[f"{T2M}_{name}"], rtol=1e-12, atol=1e-12)
        rain, named = at("total_precipitation_6hr").start, normals.named(pair.target.time)
        heavy, share = (named[f"seeps_{key}"].double()[:, rain] for key in ("threshold", "dry_share"))
        kept = (share >= 0.1) & (share <= 0.85)
        score = seeps(forecast[:, rain], truth[:, rain], 1e-4, heavy, share).where(kept, torch.nan).mean(0)
        np.testing.assert_allclose(score, here["total_precipitation_6hr_seeps_6hr"], rtol=1e-9)
    members, truth = ensemble()
    leads = xr.open_dataset(FOLDER / "ensemble_64x32.nc")["prediction_timedelta"].values / np.timedelta64(1, "h")
    for lead in want["lead_time"].values:
        row = list(leads).index(lead)
        both = {"crps": crps(members, truth), "ensemble_variance": variance(members)}
        for name, field in both.items():
            map_ = want[f"{T2M}_{name}"].sel(lead_time=lead).transpose("longitude", "latitude").values.ravel()
            np.testing.assert_allclose(field[row].mean(0), map_, rtol=1e-11)


def test_area_weights():
    weights = json.loads((FOLDER / "expected_values_A.json").read_text())["wb2_latitude_weights"]
    for case, rows in (("64x32", weights["64x32"]), ("240x121", weights["240x121_south_first"])):
        np.testing.assert_allclose(pairs(case)[0].grid.weights[::-1].mean(1), rows, rtol=1e-12)


@pytest.mark.parametrize(("kind", "metric"), [("forecast", MSE()), ("forecast", MAE()), ("ensemble", CRPS())])
def test_single_precision(kind, metric):
    """Statistics taken in float32 stay within 1e-6: what a loss, or a device without float64, may rely on."""
    pair = next(iter(pairs(forecast=kind)[0]))
    fields = pair.prediction.values, pair.target.values
    single, double = (metric.statistics(*(f.to(kind) for f in fields), {}) for kind in (torch.float32, torch.float64))
    for name in double:
        points = (f.at_points() if isinstance(f, Product) else f for f in (single[name], double[name]))
        means = (field.double().nan_to_num().mean((0, 2, 3)) for field in points)
        torch.testing.assert_close(*means, rtol=1e-6, atol=0)
