"""Parts of one's own outside the package: written, tested, listed, trained, resumed, forecast, swept, submitted."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import warm_starts
from data_pipelines.files.checkpoints import load
from data_pipelines.options.folders import options_of
from emul.config.compose import compose
from emul.contracts import check_folder
from emul.main import main
from emul.terminal.completion import candidates
from places import ROOT

KINDS = ("loss", "model", "metric", "constraint", "dataset")
TINY = ["data=planet_tiny", "training.batch_size=2", "training.validation_cases=1", "training.validate_every=2"]


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """A folder with one part of each kind, as `emul new` writes them; nothing of it stays in this process."""
    folder = tmp_path / "my parts"
    monkeypatch.setenv("EMUL_CONF", "")
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder.mkdir()
    for kind in KINDS:
        assert main(["new", kind, f"own_{kind}", "--config-dir", str(folder)]) == 0
    yield folder
    for kind in KINDS:
        sys.modules.pop(f"own_{kind}", None)


def run(folder: Path, *words: str) -> subprocess.CompletedProcess:
    return warm_starts.run(*words, folder=folder)


def test_templates_keep_their_contracts(parts, capsys):
    check_folder(parts)
    assert main(["new", "loss", "own_loss", "--config-dir", str(parts)]) == 2
    assert "There is a loss 'own_loss' already" in capsys.readouterr().err
    assert main(["new", "los", "x"]) == 2
    assert "emul new loss my_loss" in capsys.readouterr().err


def test_a_broken_contract_is_named(parts):
    file = parts / "own_loss.py"
    file.write_text(file.read_text().replace("error.abs()", "(error.abs() + 1)"))
    with pytest.raises(AssertionError, match=r"loss=own_loss: .*zero at the truth"):
        check_folder(parts)


def test_lists_completion_and_check_know_them(parts, capsys):
    own = ["--config-dir", str(parts)]
    assert main(["losses", *own]) == 0
    assert "own_loss" in capsys.readouterr().out
    assert main(["completion", "candidates", *own, "train", "loss=[own"]) == 0
    assert capsys.readouterr().out.split() == ["loss=[own_loss"]
    assert "loss=[own_loss" not in candidates(["train", "loss=[own"]), "only where the folder is given"
    assert main(["check", *own, *TINY, "loss=[own_loss]", "model=own_model", "loss.own_loss.powr=2"]) == 2
    assert "write loss.own_loss.power=2" in capsys.readouterr().out
    assert main(["new", "loss", "broken_loss", *own]) == 0
    file = parts / "broken_loss.py"
    file.write_text(file.read_text().replace("return self.weights.mean(", "return torch.sum("))
    assert main(["check", *own, *TINY, "loss=[broken_loss]", "model=own_model"]) == 2
    assert "loss.broken_loss: Expected one number for each of 2 cases" in capsys.readouterr().out


def test_a_folder_that_is_not_there(tmp_path, capsys):
    assert main(["losses", "--config-dir", str(tmp_path / "nowhere")]) == 2
    assert "Expected a folder of options" in capsys.readouterr().err


@pytest.mark.slow
def test_sweeps_and_jobs_carry_the_folder_on(parts, tmp_path):
    done = run(tmp_path, "train", "--config-dir", str(parts), *TINY, "model=own_model", "hardware=slurm", "--dry-run")
    assert f"export EMUL_CONF='{parts}'" in done.stdout, done.stderr


@pytest.mark.slow
def test_trained_found_again_and_forecast_from_other_folders(parts, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir(), there.mkdir()
    words = [*TINY, "model=own_model", "loss=[own_loss]", "constraint=[own_constraint]", "metric=[rmse,own_metric]"]
    words += [f"output={tmp_path}/out", "name=mine"]
    done = run(here, "train", "--config-dir", "../my parts", *words, "training.steps=2")
    assert done.returncode == 0, done.stderr
    done = run(there, "train", "--config-dir", str(parts), *words, "training.steps=2")
    assert "is trained already, 2 steps" in " ".join(done.stdout.split()), done.stderr
    trained = f"run={tmp_path}/out/train/mine"
    done = run(there, "forecast", trained, f"output={tmp_path}/out", "lead=1d")
    assert "mine" in done.stdout, done.stderr
    assert run(there, "eval", trained, f"output={tmp_path}/out", "pictures=false").returncode == 0


@pytest.mark.slow
def test_a_training_of_own_parts_resumes_exactly_after_a_kill(parts, tmp_path):
    words = [*TINY, "model=own_model", "loss=[own_loss]", "constraint=[own_constraint]", "hardware.threads=1"]
    words += ["training.steps=60", "training.checkpoint_every=10", "training.validate_every=30", f"output={tmp_path}"]
    words += ["--config-dir", str(parts)]
    killed, saved = tmp_path / "train" / "killed", tmp_path / "train" / "killed" / "checkpoints" / "last.ckpt"
    process = warm_starts.begin("train", *words, "name=killed", folder=tmp_path)
    warm_starts.wait_until(saved.exists, process)
    process.kill()
    process.wait()
    assert 0 < load(saved)["emul"]["step"] < 60
    for name in ("killed", "whole"):
        done = run(tmp_path, "train", *words, f"name={name}")
        assert done.returncode == 0, done.stderr
    ends = [
        load(folder / "checkpoints" / "best.ckpt")["emul"]["weights"] for folder in (killed, killed.parent / "whole")
    ]
    assert all(torch.equal(ends[0][name], value) for name, value in ends[1].items())


@pytest.mark.slow
def test_a_sweep_over_own_parts_is_taken_up_again(parts, tmp_path):
    words = ["sweep", *TINY, "model=own_model", "loss=[own_loss]", "loss.own_loss.power=2.0,3.0", "training.steps=2"]
    words += [f"output={tmp_path}", "sweep.name=own", "--config-dir", str(parts)]
    results = tmp_path / "sweep" / "own" / "results.csv"
    done = run(tmp_path, *words)
    assert done.returncode == 0, done.stderr + done.stdout
    before = results.read_text()
    assert "power2.0" in before
    assert "power3.0" in before
    assert "running" not in run(tmp_path, *words).stdout
    assert results.read_text() == before


def test_an_installed_package_names_its_folder(tmp_path, monkeypatch):
    site = tmp_path / "site"
    (site / "curved" / "conf" / "loss").mkdir(parents=True)
    (site / "curved" / "__init__.py").write_text("raise ImportError('only its folder is looked for')\n")
    yaml = (ROOT / "conf" / "loss" / "mae.yaml").read_text().replace("\nmae:", "\ncurved:")
    (site / "curved" / "conf" / "loss" / "curved.yaml").write_text(yaml)
    (site / "curved-1.dist-info").mkdir()
    (site / "curved-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: curved\nVersion: 1\n")
    (site / "curved-1.dist-info" / "entry_points.txt").write_text("[emul.conf]\nparts = curved.conf\n")
    assert "curved" not in options_of("loss")
    monkeypatch.syspath_prepend(site)
    assert "curved" in options_of("loss")
    assert list(compose("train", ["loss=[curved]"]).loss) == ["curved"]
