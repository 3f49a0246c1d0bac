"""What fits.json, the report and a recommendation say of the runs of a study, from the planet's Swin transformers."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from data_pipelines.files.fingerprints import write_json
from data_pipelines.studies import points, records
from emulators.scaling.analysis import analyse, recommended
from emulators.scaling.budgets import rate_of
from emulators.scaling.laws import KAPLAN, Runs
from emulators.scaling.study import Cost, PlannedRun, Study

POINTS = Path(__file__).parents[3] / "data" / "scaling" / "planet_swin.csv"
FACTS = {"batch": 4, "points": 2048, "samples": 2998}
STUDY = Study(
    training=["data=planet"],
    widths=[48, 96, 144],
    shape={"model.embed": "width"},
    held_out={"width": 192, "steps": 1050},
    durations=[100, 250, 600],
)
HELD_OUT = {
    "run": "w0192_s0_t0001050", "kind": "held_out", "width": 192, "seed": 0, "steps": 1050, "size": 1778112,
    "samples": 4200, "data": 8601600, "passes": 1.4, "operations": 2.42e13, "score": 0.274,
}  # fmt: skip
LARGEST = PlannedRun("held_out", 192, 0, 1050, 840, Cost(1778112, 1778112, 2.3e10, 2.3e10, 0.1, 1e6))


@pytest.fixture(scope="module")
def rows():
    with POINTS.open() as table:
        runs = list(csv.DictReader(table))
    return [{"kind": "branch"} | {k: v if k == "run" else float(v) for k, v in row.items()} for row in runs]


@pytest.fixture(scope="module")
def costs(rows):
    steps = {int(row["width"]): row for row in rows}
    per_step = {width: row["operations"] / row["steps"] for width, row in steps.items()}
    return {w: Cost(int(row["size"]), int(row["size"]), per_step[w], per_step[w], 0.1, 1e6) for w, row in steps.items()}


@pytest.fixture(scope="module")
def laws(rows, costs):
    runs = points.measured_runs(rows, "score", FACTS)
    groups = np.array([row["width"] for row in rows]).astype(str)
    found = analyse(
        runs, ["kaplan", "saturating"], rate_of(costs, FACTS, 0.2), budgets=np.geomspace(1.8e11, 1e14, 20),
        beyond=3.05, groups=groups, replicates=60,
    )  # fmt: skip
    return json.loads(json.dumps(records.summary(found, rows, points.held_out_runs(LARGEST, FACTS), {})))


def test_the_law_that_is_used_is_the_surest_that_has_a_best_size(laws, costs):
    """The additive law missed the largest Swin by least, but has no best size within 30 times of those trained."""
    assert laws["ranking"] == ["chinchilla squares", "kaplan squares"]
    assert laws["split"] == "kaplan squares"
    assert "saturating squares" in laws["fits"]
    assert "saturating squares" not in laws["compared"]  # which knows of no sizes, and cannot be the surest
    advice = recommended(1e13, laws, STUDY, costs, FACTS).rows
    assert advice["law"] == "kaplan squares; chinchilla squares, the surest, has no best size at C"
    size, samples = (float(advice[name].split()[0].replace(",", "")) for name in ("size", "data"))
    one, values = np.ones(1), np.array(laws["drawn"]["kaplan squares"]["values"])
    expected = KAPLAN.loss(values, Runs(one * size, one * samples * FACTS["points"], one, one))
    assert float(advice["expected score"].split(",")[0]) == pytest.approx(float(expected[0]), rel=2e-3)


def test_a_recommendation_says_where_no_law_has_a_best_size(laws, costs):
    alone = recommended(1e13, {**laws, "ranking": ["chinchilla squares"]}, STUDY, costs, FACTS)
    assert alone.rows["law"] == "chinchilla squares"
    assert any("No law of the study has a best size" in warning for warning in alone.warnings)


def test_ladders_lead_to_every_headline_score(rows, costs, tmp_path):
    """RMSE, CRPS and 1 - ACC of evaluations are among the points, and each has the exponent it was made with."""
    names = {"rmse": "rmse wind 850 5d", "crps": "crps wind 850 5d", "acc": "1-acc wind 850 5d"}
    powers, made = {"rmse": 1.5, "crps": 1.2, "acc": 1.8}, []
    for number, row in enumerate(rows):
        fallen = {metric: 0.05 + 2.0 * row["score"] ** power for metric, power in powers.items()}
        values = [fallen["rmse"], fallen["crps"], 1.0 - fallen["acc"]]
        dims = ("metric", "region", "level", "lead_time")
        leads = np.array([6, 120], "timedelta64[h]").astype("timedelta64[ns]")
        field = np.broadcast_to(np.array(values)[:, None, None, None], (3, 1, 1, 2))
        coordinates = {"metric": [*names], "region": ["global"], "level": [850.0], "lead_time": leads}
        xr.Dataset({"wind": (dims, field)}, coordinates).to_netcdf(tmp_path / f"{number}.nc")
        found = points.headline_scores(tmp_path / f"{number}.nc")
        assert found == pytest.approx({names[metric]: value for metric, value in fallen.items()})
        made.append(row | found)
    runs = points.measured_runs(made, "score", FACTS)
    found = analyse(
        runs, ["kaplan", "saturating"], rate_of(costs, FACTS, 0.2), budgets=np.geomspace(1.8e11, 1e14, 20),
        beyond=3.05, replicates=10,
    )  # fmt: skip
    ladders = records.summary(found, made, points.held_out_runs(LARGEST, FACTS), {})["ladders"]
    assert {*ladders} == {*names.values()}
    for metric, power in powers.items():
        assert ladders[names[metric]]["beta"][0] == pytest.approx(power, rel=0.05)


def test_exponents_have_intervals_by_way(laws):
    low, high = laws["exponents"]["kaplan squares"]["size"][1:]
    assert 0.0 < low < laws["exponents"]["kaplan squares"]["size"][0] < high < 1.0
    assert high - low > 0.05
    assert laws["exponents"]["chinchilla squares"] == {"size": None, "data": None}
    assert {"minima of equal operations", "envelope of the runs"} <= {*laws["exponents"]}
    assert "saturating squares" not in laws["exponents"]


def test_the_report_says_which_laws_were_used_and_from_how_far_they_were_asked(laws, rows, tmp_path):
    write_json(tmp_path / "fits.json", laws)
    records.write_prediction(tmp_path, laws, LARGEST)
    page = records.write_page(tmp_path, "swin", STUDY, rows, laws, {}, HELD_OUT, None).read_text()
    for said in (
        "law of the frontier",
        "at 2.4 times",
        "at 5.2 times",
        "envelope of the runs",
        "Best size N and data D",
    ):
        assert said in page
    assert page.count("(held out)") == 1
    assert "w0192_s0_t0001050 (held out)" in page
    with (tmp_path / "points.csv").open() as table:
        kinds = {row["run"]: row["kind"] for row in csv.DictReader(table)}
    assert len(kinds) == 10
    assert kinds["w0192_s0_t0001050"] == "held_out"
    with xr.open_dataset(tmp_path / "points.nc") as stored:
        assert stored.kind.values.tolist() == ["branch"] * 9 + ["held_out"]
