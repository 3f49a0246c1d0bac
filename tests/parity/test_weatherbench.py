"""Scores equal those of WeatherBench 2 and WeatherBench-X on the same files, to the last digits of float64."""

import json

import numpy as np
import pytest
import xarray as xr

from emul.config.compose import compose
from emul.eval import evaluate
from places import ROOT

SMALL = ROOT / "tests" / "data" / "weatherbench"
LARGE = ROOT.parent / "shared" / "reference" / "verification"
METRICS = "rmse,mse,mae,bias,acc,rmse_by_init,acc_by_init"
REGIONS = (
    "global,tropics,extra-tropics,northern-hemisphere,southern-hemisphere,europe,north-america,east-asia,ausnz,arctic,"
    "antarctic,global_land,tropics_land"
)
OURS = {  # WeatherBench 2 has the ratio by init, WeatherBench-X pools
    "wb2": {"acc": "acc_by_init", "rmse_sqrt_before_time_avg": "rmse_by_init"},
    "wbx": {},
}


def scores(folder, files, **options):
    """The two score files of an evaluation of `files` (forecast, truth, climatology)."""
    forecast, truth, climatology = files
    given = {"regions": f"[{REGIONS}]", "metric": f"[{METRICS}]", "pictures": "false"} | options
    config = compose(
        "eval",
        [
            f"forecasts={forecast}",
            f"truth={truth}",
            f"climatology={climatology}",
            f"output={folder}",
            *(f"{key}={value}" for key, value in given.items()),
        ],
    )
    target = evaluate(config)
    return tuple(xr.load_dataset(target / name, decode_timedelta=True) for name in ("scores.nc", "baselines.nc"))


def assert_equal(found, expected, tool, relative):
    """Every expected number that we have a score for; returns how many there were."""
    count = 0
    for metric, by_region in expected.items():
        ours = OURS[tool].get(metric, metric)
        if ours not in found["metric"].values:
            continue
        for region, by_variable in by_region.items():
            if region not in found["region"].values:
                continue
            for key, values in by_variable.items():
                name, _, level = key.partition("@")
                if name not in found:  # wind vectors
                    continue
                got = found[name].sel(metric=ours, region=region)
                got = got.sel(level=int(level)) if level else got
                want = np.array([np.nan if value is None else value for value in values])
                np.testing.assert_allclose(got.values, want, rtol=relative, err_msg=f"{metric} {region} {key}")
                count += want.size
    return count


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    files = [SMALL / f"{name}.nc" for name in ("forecast", "obs", "climatology")]
    return scores(tmp_path_factory.mktemp("small"), files, missing="none")


@pytest.fixture(scope="module")
def expected():
    return json.loads((SMALL / "expected.json").read_text())


@pytest.mark.parametrize(("key", "least"), [("wb2_deterministic", 300), ("wbx_deterministic", 80)])
def test_the_forecast(small, expected, key, least):
    assert assert_equal(small[0], expected[key], key[:3], 1e-12) >= least


def test_the_baselines(small, expected):
    for source in ("persistence", "climatology"):
        found = small[1].sel(source=source)
        assert assert_equal(found, expected[f"wb2_{source}"], "wb2", 1e-12) >= 36


def test_missing_values_left_out(tmp_path, expected):
    files = [SMALL / f"{name}.nc" for name in ("forecast", "obs", "climatology")]
    found, _ = scores(tmp_path, files, missing="any", fields="[sea_surface_temperature]")
    assert assert_equal(found, expected["wb2_skipna_true"], "wb2", 1e-12) >= 20
    assert found["sea_surface_temperature"].attrs["nan_share"] > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("case", ["64x32", "240x121"])
def test_the_whole_reference(tmp_path, case):
    if not LARGE.is_dir():
        pytest.skip("the whole reference is not beside this checkout; its small copy is tested above")
    files = [LARGE / f"{name}_{case}.nc" for name in ("forecast", "obs", "climatology")]
    found, _ = scores(tmp_path, files, missing="none")
    reference = json.loads((LARGE / "expected_values_A.json").read_text())[case]
    assert assert_equal(found, reference["wb2_deterministic"], "wb2", 1e-12) > 300
    assert assert_equal(found, reference["wbx_deterministic"], "wbx", 1e-12) > 60
