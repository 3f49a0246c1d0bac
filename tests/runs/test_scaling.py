"""Scaling studies as a user runs them: branches equal whole runs, a study from plan to recommendation, refusals."""

import json

import pytest
import torch
from browser import AXE, BROWSER, accessibility
from omegaconf import OmegaConf

from data_pipelines.files import checkpoints
from data_pipelines.files.fingerprints import write_json
from emul.config.compose import compose
from emul.main import main
from emul.train import train
from emulators.scaling.study import Cost, Study
from places import CONF

TINY = ["data=planet_tiny", "model=sfno", "model.embed=8", "model.layers=1", "hardware.threads=1", "logger=[csv]"]
SHORT = [
    "training.batch_size=2", "training.validate_every=100", "training.validation_cases=2", "training.validation_lead=2",
    "schedule=warmup_stable_decay", "schedule.warmup=2",
]  # fmt: skip
LONG = ["training.steps=12", f"schedule.cooldown={4 / 12!r}", "objective.rollout=[[0, 1], [8, 2]]"]
TRUNK = ["training.steps=8", "schedule.cooldown=0", "training.keep=[4,8]", "objective.rollout=[[0, 1], [100000, 2]]"]


def trained(tmp_path, name, *words):
    return train(compose("train", [*TINY, *SHORT, f"output={tmp_path}", f"name={name}", *words]))


def state(folder, name="last"):
    return checkpoints.load(folder / "checkpoints" / f"{name}.ckpt")


@pytest.mark.slow
def test_a_branch_equals_a_whole_run_bit_for_bit(tmp_path):
    """Also where the objective changes in the cooldown."""
    whole = state(trained(tmp_path, "whole", *LONG))
    trunk = trained(tmp_path, "trunk", *TRUNK)
    kept = trunk / "checkpoints" / "step_8.ckpt"
    branch = state(trained(tmp_path, "branch", *LONG, f"continue_from={kept}"))
    assert branch["emul"]["step"] == whole["emul"]["step"] == 12
    assert branch["emul"]["validation"] == whole["emul"]["validation"]
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, branch["state_dict"][name]), name
    moments = [one["optimizer_states"][0]["state"] for one in (whole, branch)]
    for index, values in moments[0].items():
        for name, value in values.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(moments[1][index][name])), name
    assert state(trunk, "step_4")["emul"]["step"] == 4
    with pytest.raises(ValueError, match=r"seed was 0, is 1"):
        trained(tmp_path, "other", *LONG, f"continue_from={kept}", "seed=1")
    with pytest.raises(ValueError, match="leaves none"):
        trained(tmp_path, "short", *LONG[1:], "training.steps=8", f"continue_from={kept}")


COSTS = {width: Cost(1, 1, 1.0, 1.0, 1.0, 1.0) for width in (8, 16)}
CHANGES = {
    "amse": {"loss": "[mse, amse]", "loss.mse.end": "{start}", "loss.amse.start": "{start}"},
    "crps": {
        "loss": "[mse, crps]", "loss.mse.end": "{start}", "loss.crps.start": "{start}",
        "objective.members": "[[0, 1], [{start}, 2]]",
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("loss", CHANGES)
def test_a_cooldown_with_another_loss_leaves_the_trunk_as_it_is(tmp_path, loss):
    small = [
        word for word in (*TINY, *SHORT) if not word.startswith(("model.embed", "training.validate_every", "schedule"))
    ]
    words = [*small, "loss=[mse]", *(["noise=vector"] if loss == "crps" else [])]
    sizes = {
        "widths": [8, 16],
        "shape": {"model.embed": "width"},
        "held_out": {"width": 16, "steps": 99},
        "warmup": 2,
        "shortest": 4,
    }
    ends = {}
    for changes in (None, CHANGES[loss]):
        study = Study(training=words, durations=[10], cooldown=0.2, changes=changes, **sizes)
        runs = [run for run in study.planned(COSTS) if run.width == 8]
        for run in runs:
            more = [f"output={tmp_path}", f"name={run.name}_{bool(changes)}"]
            if run.kind == "branch":
                more.append(f"continue_from={tmp_path}/train/{run.trunk}_{bool(changes)}/checkpoints/step_8.ckpt")
            ends[run.kind, bool(changes)] = state(train(compose("train", [*study.words(run), *more])))["state_dict"]
    for name, value in ends["trunk", False].items():
        assert torch.equal(value, ends["trunk", True][name]), name
    assert any(not torch.equal(value, ends["branch", True][name]) for name, value in ends["branch", False].items())


STUDY = {
    "training": [
        "data=planet_tiny", "model=sfno", "model.layers=1", "training.batch_size=2", "training.validation_cases=2",
        "training.validation_lead=2", "training.log_every=1", "logger=[csv]",
    ],
    "widths": [4, 8, 12], "shape": {"model.embed": "width"}, "inside": ["blocks"], "durations": [8, 12, 20],
    "warmup": 2, "held_out": {"width": 16, "steps": 40}, "replicates": 30, "shortest": 4,
}  # fmt: skip


@pytest.mark.slow
def test_a_study_from_plan_to_recommendation(tmp_path, capsys):
    own = OmegaConf.merge(OmegaConf.load(CONF / "study" / "tiny.yaml"), STUDY)
    own.shape = STUDY["shape"]
    (tmp_path / "conf" / "study").mkdir(parents=True)
    OmegaConf.save(own, tmp_path / "conf" / "study" / "short.yaml")
    words = ["study=short", "--config-dir", f"{tmp_path}/conf", "name=test", "hardware.threads=1", f"output={tmp_path}"]
    assert main(["scaling", "plan", *words]) == 0
    assert "13 trainings" in capsys.readouterr().out
    assert main(["scaling", "recommend", *words, "flops=1e12"]) == 2  # nothing is fitted yet
    assert main(["scaling", "run", *words]) == 0
    folder = tmp_path / "scaling" / "test"
    said = capsys.readouterr().out
    assert "held-out run:" in said
    prediction = (folder / "prediction.json").read_text()
    assert json.loads(prediction)["run"] == "w0016_s0_t0000040"
    for name in ("points.csv", "points.nc", "fits.json", "report.html", "frontier.png", "residuals.png", "curves.png"):
        assert (folder / name).is_file(), name
    if BROWSER and AXE:
        assert not accessibility(folder / "report.html", tmp_path, "--window-size=390,900")
    assert main(["scaling", "run", *words]) == 0  # all is there: nothing is trained, the prediction stays
    assert (folder / "prediction.json").read_text() == prediction
    capsys.readouterr()
    assert main(["scaling", "recommend", *words, "flops=1e12"]) == 0
    assert "times beyond" in capsys.readouterr().err
    assert main(["scaling", "plan", *words, "study.hours=1e-9"]) == 2
    assert "study.hours" in capsys.readouterr().err


def test_a_plan_for_gpus_of_slurm_knows_no_hours_and_keeps_no_memory(tmp_path, capsys, monkeypatch):
    own = OmegaConf.merge(OmegaConf.load(CONF / "study" / "tiny.yaml"), STUDY)
    own.shape, own.widths, own.hours = STUDY["shape"], [4, 8], 1e-9
    (tmp_path / "conf" / "study").mkdir(parents=True)
    OmegaConf.save(own, tmp_path / "conf" / "study" / "short.yaml")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    words = ["study=short", "--config-dir", f"{tmp_path}/conf", "name=test", f"output={tmp_path}"]
    record = tmp_path / "scaling" / "test" / "costs.json"
    assert main(["scaling", "plan", *words, "hardware=slurm"]) == 0
    assert "not known here" in capsys.readouterr().out
    kept = json.loads(record.read_text())
    assert {*kept["facts"]} == {"points", "samples", "batch"}
    write_json(record, kept | {"facts": kept["facts"] | {"samples": 1}})
    assert main(["scaling", "plan", *words, "hardware=slurm"]) == 0  # reads what was measured
    assert json.loads(record.read_text())["facts"]["samples"] == 1
    assert main(["scaling", "plan", *words, "hardware.threads=1"]) == 2  # here: measured anew, and too long
    assert "study.hours" in capsys.readouterr().err
    assert json.loads(record.read_text())["facts"]["samples"] == kept["facts"]["samples"]


@pytest.mark.slow
def test_learning_rates_over_width(tmp_path, capsys):
    own = OmegaConf.merge(OmegaConf.load(CONF / "study" / "tiny.yaml"), STUDY)
    own.shape = STUDY["shape"]
    own.rates = {
        "widths": [8, 16], "shape": {"model.embed": "width"}, "factors": [0.5, 2.0, 1e9], "steps": 4,
        "parametrisations": ["standard", "mup"], "seeds": 1,
    }  # fmt: skip
    (tmp_path / "conf" / "study").mkdir(parents=True)
    OmegaConf.save(own, tmp_path / "conf" / "study" / "short.yaml")
    words = ["study=short", "--config-dir", f"{tmp_path}/conf", "name=test", "hardware.threads=1", f"output={tmp_path}"]
    assert main(["scaling", "rates", *words]) == 0
    folder = tmp_path / "scaling" / "test"
    found = json.loads((folder / "rates.json").read_text())["by"]
    assert [*found] == ["standard", "mup"]
    for part in found.values():
        assert [*part["best"]] == [*part["noise"]] == ["8", "16"]
        assert all(scale > 0 for scale in part["noise"].values())
        assert set(part["sizes"]) == {"blocks.0"}
        assert min(part["sensitivity"].values()) > 0  # the largest rate diverges
    assert (folder / "rates.png").is_file()
    assert len((folder / "rates.csv").read_text().splitlines()) == 1 + 2 * 2 * 4
    assert main(["scaling", "rates", *words[:-2], "study.rates=null", *words[-2:]]) == 2
    assert "study.rates" in capsys.readouterr().err


def test_what_scaling_refuses(capsys, tmp_path):
    for words, said in (
        ([], "expected one of plan"),
        (["dance"], "got dance"),
        (["plan", "study.widths=[4]", f"output={tmp_path}"], "two different widths"),
        (["plan", "study.widthz=[4]", f"output={tmp_path}"], "widthz"),
    ):
        assert main(["scaling", *words]) == 2
        assert said in capsys.readouterr().err
