"""Light decoders are trained on a frozen network that comes out of another run."""

from pathlib import Path

import pytest
import torch

from data_pipelines.conventions.suggestions import ConfigErrors
from emul.config.compose import compose
from emul.forecast import forecast
from emul.train import train
from emul.training.runs import Run, open_run

RAIN = "total_precipitation_6hr"
TINY = [
    "data=planet_tiny", "model=aurora_small", "model.embed=16", "model.encoder_depths=[1,1]", "history=2",
    "model.decoder_depths=[1,1]", "variables=listed", "variables.prognostic=[temperature,surface_pressure]",
    "hardware.threads=1", "training.batch_size=2", "training.validation_cases=2", "training.validation_lead=1",
    "forecast.lead=12h", "forecast.every=5d",
]  # fmt: skip
LIGHT = [f"variables.diagnostic=[{RAIN}]", f"model.light=[{RAIN}]", "model.light_hidden=8", "model.frozen=true"]


def trained(tmp_path: Path, *words: str) -> Run:
    return open_run(train(compose("train", [*TINY, f"output={tmp_path}", *words])))


@pytest.mark.slow
def test_light_decoders_learn_on_a_frozen_run(tmp_path):
    before = trained(tmp_path, "training.steps=2", "name=before")
    begun = [*LIGHT, f"from_checkpoint={before.folder}", "optimizer.lr=0.02"]
    after = trained(tmp_path, *begun, "training.steps=20", "training.validate_every=5", "name=after")
    last = open_run(after.folder, "last")
    untrained = trained(tmp_path, *begun, "training.steps=0", "name=untrained")
    for run in (after, last, untrained):
        network, kept = run.step.network.state_dict(), before.step.network.state_dict()
        assert all(torch.equal(network[name], value) for name, value in kept.items())
        assert set(network) - set(kept) == {name for name in network if name.startswith("light.")}
    learned = [name for name, _ in last.step.network.light.named_parameters()]
    weights, first = last.step.network.light.state_dict(), untrained.step.network.light.state_dict()
    assert learned
    assert not any(torch.equal(weights[name], first[name]) for name in learned)
    assert 0 < after.card["validation"]["score"] < untrained.card["validation"]["score"]  # of rain alone
    assert len(torch.load(last.folder / "checkpoints" / "last.ckpt")["optimizer_states"][0]["state"]) == len(learned)
    assert (forecast(compose("forecast", [f"run={after.folder}", f"output={tmp_path}"])) / "manifest.json").is_file()


@pytest.mark.slow
def test_only_the_additions_may_be_absent(tmp_path):
    before = trained(tmp_path, "training.steps=0", "name=before")
    with pytest.raises(ConfigErrors, match="expected weights of the same network, got decoder"):
        trained(tmp_path, *LIGHT, f"from_checkpoint={before.folder}", "model.embed=32")
    whole = trained(tmp_path, *LIGHT, f"from_checkpoint={before.folder}", "training.steps=0", "name=whole")
    bare = trained(tmp_path, f"from_checkpoint={whole.folder}", "training.steps=0", "name=bare")
    weights = before.step.network.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in bare.step.network.state_dict().items())
