"""Sweeps as a user runs them: grids and draws, results as data and picture, failed trials named and run again alone."""

import csv
import json
import math
import random

import pytest
import xarray as xr

from data_pipelines.conventions.suggestions import ConfigErrors
from data_pipelines.options.folders import options_of
from data_pipelines.studies.trials import Axis, Local, SweepSettings, tuned
from emul.config.compose import compose, declared_sweep
from emul.config.settings import read_settings, split_axes
from emul.sweep import Sweep, main

SETTINGS = [
    "data=planet_tiny", "model=sfno", "model.embed=8", "model.layers=1", "hardware.threads=1", "training.steps=2",
    "training.batch_size=2", "training.validate_every=2", "training.validation_cases=2", "training.validation_lead=1",
]  # fmt: skip


def test_axes():
    axes, fixed = split_axes(["model=sfno,unet", "seed=range(3)", "optimizer.lr=interval(1e-4,1e-2)", "history=2"])
    assert fixed == ["history=2"]
    assert axes["model"].values == ("sfno", "unet")
    assert axes["seed"].values == ("0", "1", "2")
    assert axes["optimizer.lr"] == Axis((), 1e-4, 1e-2, True)
    drawn = [float(axes["optimizer.lr"].random_value(random.Random(n))) for n in range(200)]
    assert 1e-4 <= min(drawn) < 3e-4
    assert 3e-3 < max(drawn) <= 1e-2
    with pytest.raises(ValueError, match="Nothing varies"):
        main(["seed=1"])


def test_an_experiment_may_say_what_varies():
    own, _ = split_axes(declared_sweep("train", ["experiment=bakeoff"]))
    models = own["model"].values
    assert {"sfno", "unet", "vit_small"} < set(models)
    assert set(models) <= set(options_of("model"))
    assert split_axes(["model=glob(vit*)"])[0]["model"].values == ("vit", "vit_small")


def sweep_settings(words):
    return read_settings(SweepSettings, words, "sweep.")


def test_settings_of_a_sweep_are_checked():
    assert sweep_settings(["sweep.jobs=2", "seed=1,2"])[0].jobs == 2
    with pytest.raises(ConfigErrors, match=r"write sweep\.jobs"):
        sweep_settings(["sweep.job=2"])
    with pytest.raises(ConfigErrors, match=r"sweep\.trials: expected a whole number"):
        sweep_settings(["sweep.trials=many"])
    with pytest.raises(ConfigErrors, match="grid or random or tpe"):
        sweep_settings(["sweep.search=guess"])
    with pytest.raises(ConfigErrors, match="train or run"):
        sweep_settings(["sweep.verb=eval"])


def test_a_fault_of_any_trial_is_found_before_the_first_starts(tmp_path):
    with pytest.raises(ConfigErrors, match=r"optimizer\.lrr"):
        main([*SETTINGS, "optimizer.lrr=1,2", f"output={tmp_path}"])
    assert not (tmp_path / "sweep").exists()


@pytest.mark.slow
def test_a_random_search_draws_the_same_trials_again(tmp_path):
    settings, words = sweep_settings(
        ["optimizer.lr=interval(1e-4,1e-1)", "seed=1,2", "sweep.search=random", "sweep.trials=3"]
    )
    axes, _ = split_axes(words)
    fixed = [*SETTINGS, f"output={tmp_path}"]
    drawn = []
    for _ in range(2):
        sweep = Sweep(settings, axes, fixed, tmp_path / "sweep" / "s", "s", compose("train", fixed))
        sweep.prepare()
        drawn.append([trial.values for trial in sweep.trials])
    assert drawn[0] == drawn[1]
    assert len({values["optimizer.lr"] for values in drawn[0]}) == 3
    assert all(1e-4 <= float(values["optimizer.lr"]) <= 1e-1 for values in drawn[0])


@pytest.mark.slow
def test_a_grid_is_trained_and_what_failed_is_trained_again(tmp_path, capsys, monkeypatch):
    words = [*SETTINGS, "seed=1,2", f"output={tmp_path}", "sweep.name=s", "sweep.jobs=2"]
    folder = tmp_path / "sweep" / "s"
    blocked = folder / "train" / "seed2" / "checkpoints"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("in the way of a folder")
    assert main(words) == 1
    said = capsys.readouterr()
    assert "seed2 failed" in said.err
    assert str(blocked) in said.err  # its last lines
    with xr.open_dataset(folder / "results.nc") as results:
        assert results["state"].values.tolist() == ["finished", "failed"]
        assert results["seed"].values.tolist() == [1.0, 2.0]
    blocked.unlink()
    started, start = [], Local.start
    monkeypatch.setattr(Local, "start", lambda self, trials: (started.extend(trials), start(self, trials)))
    assert main(words) == 0
    assert [trial.name for trial in started] == ["seed2"]
    rows = list(csv.DictReader(open(folder / "results.csv")))
    assert [row["state"] for row in rows] == ["finished"] * 2
    assert float(rows[0]["score"]) <= float(rows[1]["score"])
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((folder / "train" / "seed1" / "result.json").read_text())["finished"]


@pytest.mark.slow
def test_a_trial_that_lags_behind_is_stopped_and_stays_so(tmp_path, warm_trials):
    words = [*SETTINGS, "training.steps=300", "training.validate_every=20", f"output={tmp_path}", "sweep.name=s"]
    words += ["optimizer.lr=3e-3,1e-3,1e-9", "sweep.prune=true"]
    for _ in range(2):
        assert main(words) == 0
        with xr.open_dataset(tmp_path / "sweep" / "s" / "results.nc") as results:
            states = dict(zip(results["trial"].values.tolist(), results["state"].values.tolist(), strict=True))
            steps = dict(zip(results["trial"].values.tolist(), results["step"].values.tolist(), strict=True))
        assert states == {"lr0.003": "finished", "lr0.001": "finished", "lr1e-09": "pruned"}
        assert steps["lr1e-09"] < 300


@pytest.mark.slow
def test_a_search_learns_from_what_it_has_seen(tmp_path, warm_trials):
    pytest.importorskip("optuna")
    words = [*SETTINGS, "optimizer.lr=interval(1e-4,1e-1)", f"output={tmp_path}", "sweep.name=s"]
    assert main([*words, "sweep.search=tpe", "sweep.trials=3"]) == 0
    with xr.open_dataset(tmp_path / "sweep" / "s" / "results.nc") as results:
        first = set(results["trial"].values.tolist())
    assert len(first) == 3
    assert main([*words, "sweep.search=tpe", "sweep.trials=4"]) == 0  # goes on where it was
    with xr.open_dataset(tmp_path / "sweep" / "s" / "results.nc") as results:
        assert first < set(results["trial"].values.tolist())


@pytest.mark.slow
def test_trials_at_equal_operations_are_forecast_with_scored_and_compared(tmp_path, capsys, warm_trials):
    words = ["experiment=bakeoff", "model=unet,sfno", "data=planet_tiny", "variables=planet"]
    words += ["training.flops=2.2e10", "hardware.threads=1", "forecast.lead=1d", "forecast.every=2d"]
    words += [f"output={tmp_path}", "sweep.verb=run", "training.validation_cases=2", "seed=0", "optimizer.lr=1e-3"]
    assert main(words) == 0
    folder = tmp_path / "sweep" / "bakeoff"
    steps = {
        name: json.loads((folder / "train" / name / "result.json").read_text())["step"] for name in ("unet", "sfno")
    }
    assert steps["sfno"] > steps["unet"] > 0
    assert (folder / "eval" / "compare" / "compare.csv").is_file()
    assert "persistence" in capsys.readouterr().out


@pytest.mark.slow
def test_a_tuned_sweep_takes_the_best_rate_for_all_seeds(tmp_path, capsys, warm_trials):
    steps = ["training.steps=20", "training.validate_every=20"]
    words = [*SETTINGS, *steps, "optimizer.lr=1e-12,3e-3", "seed=0,1", "sweep.name=t", f"output={tmp_path}"]
    assert main([*words, "sweep.tune=optimizer.lr"]) == 0
    folder = tmp_path / "sweep" / "t"
    rows = list(csv.DictReader(open(folder / "results.csv")))
    assert [(row["optimizer.lr"], row["step"]) for row in rows] == [("0.003", "20")] * 2
    assert {row["step"] for row in csv.DictReader(open(folder / "tuning" / "results.csv"))} == {"4"}
    (row,) = csv.DictReader(open(folder / "seeds.csv"))
    assert float(row["low"]) < float(row["score"]) < float(row["high"])
    assert "too few to judge" in capsys.readouterr().out
    with pytest.raises(ValueError, match="a key with several values"):
        main([*words, "sweep.tune=optimizer.eps"])


def test_what_tuning_cannot_know_is_said():
    settings = SweepSettings(tune="optimizer.lr")
    rates, models = ("3e-4", "1e-3", "3e-3"), ("unet", "met2net", "vit")
    axes = {"model": Axis(models), "optimizer.lr": Axis(rates), "seed": Axis(("0", "1"))}
    scores = {
        ("unet", "3e-4"): 0.3,
        ("unet", "1e-3"): 0.4,
        ("met2net", "1e-3"): math.nan,
        ("vit", "3e-4"): 0.5,
        ("vit", "1e-3"): 0.4,
        ("vit", "3e-3"): math.inf,
    }
    rows = [{"model": model, "optimizer.lr": lr, "score": score} for (model, lr), score in scores.items()]
    best = {"unet": "3e-4", "vit": "1e-3"}
    expected = [{"model": m, "optimizer.lr": rate, "seed": seed} for m, rate in best.items() for seed in ("0", "1")]
    found, notes = tuned(settings, axes, rows)
    assert found == expected
    assert [note.split(":")[0] for note in notes] == [
        "unet is best at optimizer.lr=3e-4, the end of the values tried",
        "met2net is left out",
    ]
    with pytest.raises(ValueError, match="no short trial has a finite score"):
        tuned(settings, axes, [row for row in rows if not math.isfinite(row["score"])])


def test_a_dry_run_lists_the_trials_and_the_script_and_starts_nothing(tmp_path, capsys):
    words = ["data=lorenz96", "model=linear", "seed=1,2", f"output={tmp_path}", "--dry-run"]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert [line.split()[-1] for line in text.splitlines() if line.startswith("seed")] == ["waiting", "waiting"]
    assert main([*words, "hardware=slurm", "hardware.accelerator=cpu", "hardware.precision=32"]) == 0
    assert "#SBATCH --array=0,1" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_commands_of_slurm_are_looked_for_before_anything_is_submitted(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.write_text("#!/bin/sh\necho 1")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    words = ["data=lorenz96", "model=linear", "seed=1,2", f"output={tmp_path / 'outputs'}", "hardware=slurm"]
    with pytest.raises(ValueError, match="needs squeue"):
        main([*words, "hardware.accelerator=cpu", "hardware.precision=32"])
    assert not (tmp_path / "outputs").exists()
