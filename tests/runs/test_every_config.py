"""Every shipped option that a training is made of trains two steps on a few days of a coarse planet, or of its own."""

import csv
import math

import numpy as np
import pytest
import torch

from data_pipelines.files import checkpoints
from data_pipelines.options.folders import options_of
from emul.config.build import build
from emul.config.compose import compose
from emul.train import train
from emul.training.runs import open_run

SMALL = ["data=planet_tiny", "hardware=debug"]
TINY = ["model=sfno", "model.embed=8", "model.layers=1"]
LISTED = {"constraint"}
NEEDS = {  # variables that the planet has and its usual emulator lacks
    **{key: ["variables=planet_budgets"] for key in ("moisture_budget", "total_energy", "energy_budget")},
    **{key: ["variables.diagnostic=[geopotential]"] for key in ("hydrostatic", "hydrostatic_balance")},
    "prescribed": [
        "variables.diagnostic=[skin_temperature]",
        "constraint.prescribed.variables={skin_temperature:sea_surface_temperature}",
    ],
    "slab_ocean": [
        "variables=planet_slab",
        "data.ocean=slab",
        "constraint.slab_ocean.temperature=sea_surface_temperature",
        "constraint.slab_ocean.correction=surface_heat_supply_6hr",
        "constraint.slab_ocean.mask=land_sea_mask",
        "constraint.slab_ocean.invert=true",
    ],
    "masked": [
        "variables.diagnostic=[skin_temperature]",
        "constraint.masked.variables={skin_temperature:[land_sea_mask,280]}",
    ],
}
ELSEWHERE = {"ddp", "fsdp", "slurm"}  # start processes of their own: tests/runs/test_processes.py and test_slurm.py
LACKING = {
    "lorenz96_flow": "its forecast is trained first: tests/runs/test_generative.py",
    "planet_ladcast": "its autoencoder is trained first: tests/runs/test_latents.py",
    "latent_diffusion": "its autoencoder is trained first: tests/runs/test_latents.py",
    "planet_coupled": "its components are trained first: tests/runs/test_components.py",
    "planet_water": "its data are those of a day: tests/runs/test_components.py",
    "coupled": "its components are trained first: tests/runs/test_components.py",
    "planet_seeds": "its ensemble is simulated first: tests/runs/test_seeds.py",
    "seeds": "its ensemble is simulated first: tests/runs/test_seeds.py",
    "zero_mean_moisture_advection": "the planet does not store what the wind brings",
    "shallow_water": "the planet has air",
    "planet_lam_globe": "its planet is one of its own: tests/runs/test_limited_area.py",
    "planet_lam_hi_lam": "its planet is one of its own: tests/runs/test_limited_area.py",
    "ocean_samudra": "an ocean takes a year of the planet: tests/runs/test_ocean.py",
}
KINDS = {  # objectives and steps for networks of a kind
    "all_to_all": "poseidon_small",
    "autoencoding": "dcae_small",
    "emission": "climode_small",
    "masked_forecast": "prithvi_small",
    "random_intervals": "stormer_small",
    "two_stage": "met2net_small",
}
HIGH = ("temperature_25", "v_component_of_wind_25", "v_component_of_wind_95")  # levels that the coarse planet lacks
EXPERIMENTS = {
    "planet_flow": ["data.splits.train=[2001-01-31,2001-02-06T18]"],
    "planet_sfno_conserving": [f"~loss.mse.variable_weights.{channel}" for channel in HIGH],
    "planet_som": [
        *(f"~loss.mse.variable_weights.{channel}" for channel in HIGH),
        "data.ocean=slab",
        "data.co2=[[1,1,1],[2,2,2]]",
    ],
    "bakeoff": ["training.flops=2e10"],  # a few steps
}
FIRST = {"planet_flow": ("forecast", "planet_sfno")}  # part that is trained first, two steps as well, and what it is
COMPANIONS = {  # experiments on other data than the planet's: a few days of these
    "quasigeostrophic_unet": ["data.days=4", "data.spinup_days=1"],
    "shallow_water_sfno": ["data.days=2", "data.truncation=21"],
    "lorenz96_diffusion": ["data.days=6", "data.spinup_days=20"],
    "lorenz96_mean": ["data.days=6", "data.spinup_days=20"],
    "lorenz96_unet": ["data.days=6", "data.spinup_days=20"],
    "kuramoto_sivashinsky_refiner": ["data.days=6", "data.spinup_days=30"],
    "kuramoto_sivashinsky_unet": ["data.days=6", "data.spinup_days=30"],
}
SAMPLED = ["step=denoising", "objective=diffusion"]
FEW = [*SAMPLED, "sampler.levels=3"]
INTERPOLATED = ["step=dyffusion", "objective=dyffusion", "history=2"]
LATENT = ["step=latent", "objective=variational", "objective.members=1"]
HEALPIX = ["data=regridded", "data@data.source=planet_tiny", "data.grid=healpix:16"]
TOGETHER = {  # options that need others
    "model/dlwp_hpx_small": HEALPIX,
    "objective/diffusion": SAMPLED,
    "step/denoising": SAMPLED,
    "objective/dyffusion": INTERPOLATED,
    "step/dyffusion": INTERPOLATED,
    "objective/variational": LATENT,
    "step/latent": LATENT,
    **{f"sampler/{option}": FEW for option in options_of("sampler")},
    "sampler/refinement": [*SAMPLED, "step.process=vp", "objective.distribution=sampler"],
    "sampler/flow_euler": [
        *FEW,
        "step.process=flow",
        "objective.distribution=logitnormal",
        "objective.log_mean=0.0",
    ],
}
GROUPS = (
    "model",
    "step",
    "sampler",
    "objective",
    "constraint",
    "optimizer",
    "parametrisation",
    "schedule",
    "experiment",
    "hardware",
)
OPTIONS = [(group, option) for group in GROUPS for option in options_of(group) if option not in ELSEWHERE]
LOSSES: dict[tuple[str, ...], list[str]] = {}  # those that need the same variables are trained together
for _option in options_of("loss"):
    LOSSES.setdefault(tuple(NEEDS.get(_option, [])), []).append(_option)


def companion(option: str, folder) -> list[str]:
    """An experiment on two short trajectories of its own data, one to train on and one to validate with."""
    few = [f"experiment={option}", *COMPANIONS[option], "data.trajectories=2", f"data.folder={folder}"]
    series = build(compose("train", few).data).trajectories
    first, second = ([str(times[0]), str(times[-1])] for times in np.split(series.times, 2))
    return [*few, f"data.splits={{train: {first}, validation: {second}, test: {second}}}", "hardware=debug"]


def overrides(group: str, option: str) -> list[str]:
    chosen = f"{group}=[{option}]" if group in LISTED else f"{group}={option}"
    shape = [] if group in ("model", "experiment") else TINY
    if option in KINDS:
        shape = [f"model={KINDS[option]}"]
    if group == "model" and option.startswith("sfno_"):
        shape = ["model.embed=16", "model.layers=2"]  # the published ones would take gigabytes
    steps = [
        "training.steps=2",
        "training.batch_size=2",
        "training.validation_cases=2",
        "training.validation_lead=1",
        "training.log_every=1",
    ]
    needs = NEEDS.get(option, []) if group in LISTED else EXPERIMENTS.get(option, [])
    needs = [*needs, *TOGETHER.get(f"{group}/{option}", [])]
    return [*SMALL[: 1 if group == "hardware" else 2], *shape, *needs, chosen, *(steps if group == "hardware" else [])]


@pytest.mark.slow
@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=[f"{group}/{option}" for group, option in OPTIONS])
def test_trains_two_steps(group, option, tmp_path):
    if option == "gpu" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here")
    if group == "model" and f"{option}_small" in options_of("model"):
        pytest.skip(f"as large as published; {option}_small trains")
    if option in LACKING:
        pytest.skip(LACKING[option])
    texts = companion(option, tmp_path) if option in COMPANIONS else overrides(group, option)
    if option in FIRST:
        part, experiment = FIRST[option]
        first = train(compose("train", [*overrides(group, experiment), f"output={tmp_path}", "name=first"]))
        texts = [*texts, f"parts.{part}={first}"]
    assert_trains([*texts, f"output={tmp_path}"], ["loss"])


@pytest.mark.slow
@pytest.mark.parametrize("needs", LOSSES, ids=lambda needs: ",".join(LOSSES[needs]))
def test_losses_train_two_steps(needs, tmp_path):
    names = LOSSES[needs]
    assert_trains([*SMALL, *TINY, *needs, f"loss=[{','.join(names)}]", f"output={tmp_path}"], [f"{n}_1" for n in names])


def assert_trains(texts: list[str], columns: list[str]) -> None:
    """Train; the weights and the logged values of the columns are finite."""
    folder = train(compose("train", [*texts, "name=x"]))
    saved = checkpoints.load(folder / "checkpoints" / "last.ckpt")["emul"]
    assert saved["finished"]
    assert all(value.isfinite().all() for value in saved["weights"].values() if value.is_floating_point())
    network = open_run(folder).step.network
    if hasattr(network, "fit") or not list(network.parameters()):
        return  # solved, not descended: there is no loss to log
    with (folder / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("loss")]
    assert rows
    for column in columns:
        assert all(math.isfinite(float(row[column])) for row in rows), column
