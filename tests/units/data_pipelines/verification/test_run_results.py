"""What run folders hold, and the command that follows an evaluation."""

import os

import xarray as xr

from data_pipelines.verification.run_results import command_after
from emulators.verification.comparison import SAME


def evaluation(folder, name, age, **attributes):
    (folder / name).mkdir(parents=True)
    path = folder / name / "scores.nc"
    measured = {"grid": "gaussian 64x32", "weights": "area", "averaging": "mean", "points_left_out": "never"}
    xr.Dataset({"temperature": ("metric", [1.0])}, attrs=measured | attributes).to_netcdf(path)
    os.utime(path, (1e9 - age, 1e9 - age))
    return path.parent


def test_the_latest_evaluation_that_measured_alike_is_proposed_for_comparison(tmp_path):
    target = evaluation(tmp_path, "now", 0)
    assert command_after(target, tmp_path, "outputs/train/now", SAME) == "emul show outputs/train/now"
    evaluation(tmp_path, "other_points", 1, points_left_out="where the truth is NaN")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "scores.nc").write_bytes(b"nothing")
    assert command_after(target, tmp_path, None, SAME) == f"emul verify {target}"
    evaluation(tmp_path, "older", 3)
    evaluation(tmp_path, "old", 2)
    assert command_after(target, tmp_path, None, SAME).startswith("emul eval compare old now")
