"""`emul run` as a user types it: the whole road, and nothing twice."""

import pytest

from emul.main import main

ROAD = [
    "run", "data=planet_tiny", "hardware=debug", "model.embed=8", "model.layers=1", "forecast.lead=1d",
    "eval.maps.fields=[]", "name=road",
]  # fmt: skip


def times_of_files(folder):
    """When each file was written, but for the locks that are taken to look."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.slow
def test_the_whole_road_and_nothing_twice(tmp_path, capsys):
    assert main([*ROAD, f"output={tmp_path}"]) == 0
    made = times_of_files(tmp_path)
    names = {path.relative_to(tmp_path).as_posix() for path in made}
    assert {
        "train/road/config.yaml", "train/road/checkpoints/last.ckpt", "forecast/road/manifest.json",
        "eval/road/scores.nc", "eval/road/report.html",
    } <= names  # fmt: skip
    text = capsys.readouterr().out
    assert text.index("1 of 3: train") < text.index("2 of 3: forecast") < text.index("3 of 3: eval")

    assert main([*ROAD, f"output={tmp_path}"]) == 0
    assert times_of_files(tmp_path) == made
    text = capsys.readouterr().out
    assert "is trained already" in text
    assert text.index("2 of 3: forecast") < text.index("verified") < text.index("3 of 3: eval")
    assert "holds the scores of this forecast already" in text

    assert main(["show", str(tmp_path / "train" / "road")]) == 0
    text = capsys.readouterr().out
    assert "finished" in text
    assert str(tmp_path / "eval" / "road") in text
    assert main(["list", str(tmp_path)]) == 0
    assert "1 verified" in capsys.readouterr().out

    (tmp_path / "eval" / "road" / "scores.nc").unlink()
    assert main([*ROAD, f"output={tmp_path}"]) == 0
    assert (tmp_path / "eval" / "road" / "scores.nc").exists()
    changed = {path for path, time in made.items() if path.stat().st_mtime_ns != time}
    assert all("eval" in path.parts for path in changed), "only what was missing is made again"


def test_a_run_that_is_not_there_is_told_with_those_that_are(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["list"]) == 0
    assert "no trainings in outputs" in capsys.readouterr().out
    run = tmp_path / "outputs" / "train" / "mine"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text("name: mine\n")
    assert main(["list"]) == 0
    assert "stopped, no step" in capsys.readouterr().out
    assert main(["show", "mien"]) == 2
    assert "did you mean 'mine'?" in capsys.readouterr().err
    assert main(["show", "mine"]) == 0
