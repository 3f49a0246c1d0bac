"""Every shipped option that a training is made of trains two steps on a few days of a coarse planet."""

import csv
import math

import pytest
import torch

from data_pipelines import checkpoints
from emul.build import compose
from emul.folders import options_of
from emul.runs import open_run
from emul.train import train

SMALL = ["data=planet_tiny", "hardware=debug"]
TINY = ["model=sfno", "model.embed=8", "model.layers=1"]
LISTED = {"loss", "constraint"}
NEEDS = {  # variables that the planet has and its usual emulator lacks
    **dict.fromkeys(("moisture_budget", "total_energy", "energy_budget"), ["variables=planet_budgets"]),
    **dict.fromkeys(("hydrostatic", "hydrostatic_balance"), ["variables.diagnostic=[geopotential]"]),
    "prescribed": [
        "variables.diagnostic=[skin_temperature]",
        "constraint.prescribed.variables={skin_temperature:sea_surface_temperature}",
    ],
}
LACKING = {
    "zero_mean_moisture_advection": "the planet does not store what the wind brings",
    "shallow_water": "the planet has air",
}
GROUPS = ("model", "objective", "loss", "constraint", "optimizer", "schedule", "experiment", "hardware")
OPTIONS = [(group, option) for group in GROUPS for option in options_of(group)]


def overrides(group: str, option: str) -> list[str]:
    chosen = f"{group}=[{option}]" if group in LISTED else f"{group}={option}"
    shape = [] if group in ("model", "experiment") else TINY
    if group == "model" and option.startswith("sfno_"):
        shape = ["model.embed=16", "model.layers=2"]  # the published ones would take gigabytes
    steps = [
        "training.steps=2",
        "training.batch_size=2",
        "training.validation_cases=2",
        "training.validation_lead=1",
        "training.log_every=1",
    ]
    needs = NEEDS.get(option, []) if group in LISTED else []
    return [*SMALL[: 1 if group == "hardware" else 2], *shape, chosen, *needs, *(steps if group == "hardware" else [])]


@pytest.mark.slow
@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=[f"{group}/{option}" for group, option in OPTIONS])
def test_trains_two_steps(group, option, tmp_path):
    if option == "gpu" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here")
    if option in LACKING:
        pytest.skip(LACKING[option])
    folder = train(compose("train", [*overrides(group, option), f"output={tmp_path}", "name=x"]))
    saved = checkpoints.load(folder / "checkpoints" / "last.ckpt")["emul"]
    assert saved["finished"]
    assert all(value.isfinite().all() for value in saved["weights"].values() if value.is_floating_point())
    network = open_run(folder).step.network
    if hasattr(network, "fit") or not list(network.parameters()):
        return  # solved, not descended: there is no loss to log
    with (folder / "metrics.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file) if row.get("loss")]
    assert losses
    assert all(map(math.isfinite, losses))
