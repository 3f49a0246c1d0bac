"""Continual training as a user runs it: on new data with the old ones rehearsed, and held to what matters for them."""

from __future__ import annotations

import pytest
import torch

from data_pipelines.conventions.suggestions import ConfigErrors
from data_pipelines.files import checkpoints
from emul.config.compose import compose
from emul.train import train
from emul.training.runs import open_run

SMALL = [
    "experiment=lorenz96_unet", "data.days=40", "data.trajectories=3", "data.splits.train=[2001-01-01,2001-02-09]",
    "data.splits.validation=[2001-02-21,2001-04-01]", "data.splits.test=[2001-04-12,2001-05-20]", "model.channels=[8]",
    "training.batch_size=8", "training.validate_every=4", "training.validation_cases=4", "logger=[csv]",
]  # fmt: skip
TUNED = [
    "data.forcing=10", "rehearsal.share=0.5", "tuning.anchor=0.1", "tuning.importance=fisher",
    "tuning.importance_samples=6",
]  # fmt: skip


def trained(folder, name, *words):
    return train(compose("train", [*SMALL, f"output={folder}", f"name={name}", *words]))


def weights(folder):
    return checkpoints.load(folder / "checkpoints" / "last.ckpt")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("continual"), "base", "training.steps=4")


@pytest.mark.slow
def test_old_data_are_rehearsed_and_important_weights_are_held_also_after_an_interruption(base, tmp_path, capsys):
    words = [f"from_checkpoint={base}", *TUNED]
    whole = weights(trained(tmp_path, "whole", *words, "training.steps=8"))
    output = "".join(capsys.readouterr().out.split())
    assert "rehearsed50%ofthesamples,from159windowsoftheolddata" in output
    importance = torch.cat([v.flatten() for k, v in whole["state_dict"].items() if "anchor.importance_" in k])
    assert importance.mean().item() == pytest.approx(1.0, rel=1e-4)
    assert importance.std() > 0.1
    assert whole["emul"]["data"]["rehearsed"] == weights(base)["emul"]["data"]["times_digest"]

    with pytest.raises(OSError, match="power cut"):
        stop_after(tmp_path, words, 4)
    resumed = weights(trained(tmp_path, "parts", *words, "training.steps=8"))
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][name]), name
    alone = weights(trained(tmp_path, "alone", f"from_checkpoint={base}", "data.forcing=10", "training.steps=8"))
    assert any(not torch.equal(value, whole["state_dict"][name]) for name, value in alone["state_dict"].items())


def stop_after(folder, words, steps):
    """Train under the name `parts` and raise OSError once so many steps are validated."""
    with pytest.MonkeyPatch.context() as patch:
        from emulators.training.lightning_module import Training

        ended = Training.on_validation_epoch_end

        def end(self):
            ended(self)
            if self.global_step == steps:
                raise OSError("power cut")

        patch.setattr(Training, "on_validation_epoch_end", end)
        trained(folder, "parts", *words, "training.steps=8", "training.checkpoint_every=1")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rehearsal.share=0.2"], r"rehearsal\.run"),
        (["rehearsal.share=1.2"], r"rehearsal\.share"),
        (["objective.replay=0.2", "rehearsal.share=0.2", "rehearsal.run=x"], r"objective\.replay"),
        (["tuning.anchor=0.1", "tuning.importance=fisher"], r"tuning\.importance"),
        (["tuning.importance=fisher"], "anchor above 0"),
        (["tuning.importance=fischer"], "fischer"),
    ],
)
def test_what_cannot_be_rehearsed_is_refused(tmp_path, words, message):
    with pytest.raises(ConfigErrors, match=message):
        trained(tmp_path, "refused", *words)
    assert not (tmp_path / "train").exists()


@pytest.mark.slow
def test_scales_that_a_finer_grid_adds_are_carried_by_what_was_measured(tmp_path, capsys):
    planet = [
        "data=planet_tiny", "data.days=4", "data.trajectories=3", "data.spinup_days=1", "model=sfno", "model.embed=8",
        "data.splits.train=[2001-01-01,2001-01-04]", "data.splits.validation=[2001-01-15,2001-01-18]",
        "data.splits.test=[2001-01-29,2001-02-01]", "model.layers=1", "training.batch_size=4",
        "training.validate_every=2", "training.validation_cases=2",
    ]  # fmt: skip

    def taken(name, *words):
        config = compose("train", [*planet, f"output={tmp_path}", f"name={name}", *words])
        return open_run(train(config))

    coarse = taken("coarse", "training.steps=2")
    fine = ["data.truncation=15", f"from_checkpoint={coarse.folder}", "training.steps=0"]
    damped = taken("damped", *fine, "transfer.small_scales=damped").step.small_scales
    assert "smallscalesdamped,abovedegree10" in "".join(capsys.readouterr().out.split())
    kept, change = damped.slopes[:, 11:]
    assert (kept < 1).float().mean() > 0.9
    assert (change == 0).float().mean() > 0.9  # all but rain's, which is not in the state before
    tuned = taken("tuned", *fine, "training.steps=2")
    again = taken("again", *fine, f"from_checkpoint={tuned.folder}", "training.steps=2")
    assert coarse.step.small_scales is taken("alone", *fine, "transfer.small_scales=network").step.small_scales is None
    for run in (tuned, again):
        assert run.world.learned == 10
        assert (run.step.small_scales.slopes[1, 11:] != 0).all()
