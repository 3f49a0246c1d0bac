"""Every loss in conf/loss: zero at the truth, positive elsewhere, one number a lead element, right gradients."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from data_pipelines.options.signatures import wrapping
from emul.contracts import built
from emulators.contracts.example_worlds import column_world
from emulators.contracts.parts import LOSS
from places import CONF

TERM = {parameter.name for parameter in wrapping("loss")}
FILES = sorted((CONF / "loss").glob("*.yaml"))


@pytest.mark.parametrize("contract", LOSS, ids=lambda contract: contract.__name__)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_contract(file, contract):
    ((name, options),) = OmegaConf.load(file).items()
    assert name == file.stem
    assert set(options) >= TERM, f"{file} says nothing of {TERM - set(options)}"
    world = column_world()
    contract(built(options, world), world)
