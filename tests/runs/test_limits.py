"""`emul data predictability`, and its curves under the scores of the same data source."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from emul.config.compose import compose
from emul.data.arguments import main
from emul.eval import evaluate
from emul.forecast import forecast
from emul.main import main as emul
from emul.train import train

SPLITS = "{train: [2001-01-01, 2001-01-06], validation: [2001-01-07, 2001-01-08], test: [2001-01-09, 2001-01-12]}"
TINY = ["data.days=12", "data.trajectories=1", f"data.splits={SPLITS}"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("planet")


@pytest.fixture(scope="module")
def planet(folder) -> list[str]:
    return ["data=planet_tiny", f"data.folder={folder}", *TINY]


@pytest.mark.slow
def test_twins_are_kept_told_and_drawn_under_the_scores(planet, folder, tmp_path, capsys):
    run = train(compose("train", [*planet, "model=persistence", f"output={tmp_path}", "name=x"]))
    forecast(compose("forecast", [f"run={run}", "lead=1d", f"output={tmp_path}"]))
    evaluation = compose("eval", [f"run={run}", f"output={tmp_path}", "maps.fields=[]", "regions=[global]"])
    report = evaluate(evaluation) / "report.html"
    assert 'polyline class="line-predictability"' not in report.read_text()

    assert main(["predictability", *planet, "cases=1", "days=3"]) == 0
    told = capsys.readouterr().out
    for word in (
        "1 case of 3 days",
        "doubling",
        "as climatology",
        "95 % saturated",
        "surface pressure",
        "hPa",
        "> 3 d",
    ):
        assert word in told
    (kept,) = folder.glob("planet-*.predictability.nc")
    assert str(kept) in told

    evaluate(evaluation)
    text = report.read_text()
    for name in ("predictability", "saturation"):
        assert f'polyline class="line-{name}"' in text
    assert "RMSE of identical twins, 1 case of 3 days, disturbed by 0.1, not knowing skin_temperature" in text
    assert (report.parent / "curves.png").is_file()

    other = compose("eval", [f"run={run}", f"output={tmp_path}", "maps.fields=[]", "regions=[europe]", "name=europe"])
    assert 'polyline class="line-saturation"' not in (evaluate(other) / "report.html").read_text()
    assert (tmp_path / "eval" / "europe" / "curves.png").is_file()


@pytest.mark.slow
def test_what_is_known_already_is_not_simulated_again(planet, folder):
    words = ["predictability", *planet, "cases=1", "days=1", "perturbation=0.2"]
    assert main(words) == 0
    (kept,) = folder.glob("planet-*.predictability.nc")
    written = kept.stat().st_mtime_ns
    assert main(words) == 0
    assert kept.stat().st_mtime_ns == written
    assert main([*words, "whole_state=true"]) == 0
    assert kept.stat().st_mtime_ns != written
    with xr.open_dataset(kept) as found:
        assert found.attrs["forgotten"] == ""


def test_faults_are_told(planet, tmp_path, capsys):
    with pytest.raises(ValueError, match="cases: expected a whole number, got the text 'many'"):
        main(["predictability", *planet, "cases=many"])
    with pytest.raises(ValueError, match="at least one case and one day"):
        main(["predictability", *planet, "days=0"])
    fields = tmp_path / "a.nc"
    xr.Dataset(
        {"t": (("time", "latitude", "longitude"), np.zeros((2, 4, 8), dtype="float32"), {"units": "K"})},
        {
            "time": np.array(["2001-01-01", "2001-01-02"], dtype="datetime64[ns]"),
            "latitude": [67.5, 22.5, -22.5, -67.5],
            "longitude": np.arange(8) * 45.0,
        },
    ).to_netcdf(fields)
    assert emul(["data", "predictability", "data=netcdf", f"data.path={fields}"]) == 2
    assert "data=netcdf is not simulated here, so it has no twins; choose data=planet." in capsys.readouterr().err
