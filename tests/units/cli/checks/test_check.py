"""`emul check`: all findings at once, with key and fix; a sound configuration is told in a few lines."""

import sys

import numpy as np
import pytest
import xarray as xr

from data_pipelines.conventions.suggestions import ConfigErrors
from emul.checks.examination import findings, refuse_faults
from emul.checks.networks import network_on_meta, template_world
from emul.config.build import build_network
from emul.config.compose import compose
from emul.main import main
from emulators.sphere.transform import Tables
from emulators.training.flop_counter import parameter_count, runnable

TINY = ["data=planet_tiny", "model.embed=8", "model.layers=1"]


def found(*overrides):
    return {finding.key: finding for finding in findings(compose("train", [*TINY, *overrides]))}


def test_a_sound_configuration(capsys):
    assert main(["check", *TINY]) == 0
    text = capsys.readouterr().out
    assert "no faults" in text
    assert "gaussian 32x16" in text
    assert "parameters" in text
    assert "\x1b" not in text


def test_everything_wrong_is_told_at_once(capsys):
    code = main(
        [
            "check", *TINY, "bogus.lr=1", "step.output=residul", "optimizer.learning_rate=1", "loss.mse.p=0.5",
            "model.embed=7.5", "training.batch_size=0",
            "variables.prognostic=[temprature,{u_component_of_wind:[500,1]}]",
            "data.splits.test=['1990-01-01','1991-01-01']",
        ]
    )  # fmt: skip
    assert code == 2
    out, err = capsys.readouterr()
    for key in (
        "bogus.lr", "step.output", "optimizer.learning_rate", "model.embed",
        "variables.prognostic[0]", "variables.prognostic[1]", "data.splits.test",
    ):  # fmt: skip
        assert f"{key}: expected" in out
    assert "write temperature" in out
    assert "nothing was run" in err
    assert "\x1b" not in out + err


def test_ranges_are_told_by_the_parts():
    faulty = found("training.batch_size=0", "loss.mse.p=0.5", "objective.rollout=0", "hardware.slurm={tim: 2}")
    assert set(faulty) == {"training", "loss.mse", "objective", "hardware"}
    assert "batch_size must be at least 1" in faulty["training"].got


def test_a_mapping_in_the_place_of_pairs_comes_with_the_pairs():
    finding = found("objective.members={0: 1, 9: 2}")["objective.members"]
    assert finding.expected == "a whole number or a list of lists of whole numbers"
    assert finding.fix == "write objective.members=[[0, 1], [9, 2]]"


def test_what_no_part_can_tell_alone():
    faulty = found("loss=[]", "training.batch_size=7", "training.accumulate=2")
    assert set(faulty) == {"loss", "training.batch_size"}
    assert "Take 8" in faulty["training.batch_size"].got
    assert set(found("objective.rollout=[[0, 1], [5, 200]]")) == {"data.splits.train"}
    assert "IndexError" in found("optimizer.betas=[0.9]")["optimizer"].got
    untold = ["data=planet_tiny", "model=sfno", "model.labels=3"]
    labelled = {finding.key: finding for finding in findings(compose("train", untold))}
    assert "Expected 3 channels of labels" in labelled["model"].got
    narrow = ["data=planet_tiny", "parametrisation=mup", "model=linear"]
    assert "sizes of Linear" in findings(compose("train", narrow))[0].got
    assert not findings(compose("train", [*narrow[:-1], "model=sfno"]))
    assert set(found("training.checkpoint_every=0", "hardware.devices=0")) == {"training", "hardware"}


@pytest.mark.slow
def test_laws_over_steps_without_their_sums_are_found():
    words = ["data=planet_tiny", "variables=planet_budgets", "model=stormer_small", "objective=random_intervals"]
    for part in ("constraint=[moisture_budget]", "constraint=[total_energy]", "loss=[mse,moisture_budget]"):
        faulty = {finding.key: finding for finding in findings(compose("train", [*words, part]))}
        assert set(faulty) == {"objective.intervals"}
        assert "some steps are of 2, 4" in faulty["objective.intervals"].got
        assert not findings(compose("train", [*words, part, "objective.intervals=[1]"]))
    assert not findings(compose("train", [*words, "constraint=[positivity,dry_air_mass]"]))


def test_a_model_that_does_not_fit_comes_with_some_that_do():
    told = findings(compose("train", ["data=lorenz96"]))[0]
    assert "model=unet 'model.channels=[48]', or model=linear 'model.bands=1'" in told.fix
    assert not str(told).startswith("model: expected")
    fitting = ["data=lorenz96", "model=unet", "model.channels=[48]"]
    assert not findings(compose("train", fitting))
    assert (
        str(findings(compose("train", ["data=planet", "data.days=-3"]))[0])
        == "data: The planet's days must be at least 1; got -3."
    )


def test_losses_at_every_step():
    assert "step 500 of 1000" in found("loss.mse.end=0.5")["loss"].got
    assert "weight of a loss" in found("loss.mse.weight=-1")["loss.mse"].got
    assert found("loss.mse.start=0.1", "loss=[mse,amse]", "loss.amse.end=100", "loss.amse.weight=0.1") == {}
    with pytest.raises(ConfigErrors, match=r"write loss\.mse\.start=1"):
        found("loss.mse.strat=1")
    assert "without one" in found("+loss.amse.weight=0.1")["loss.amse"].got


def test_variables_and_levels():
    faulty = found(
        "variables.prognostic=[temperature,{surface_pressure:[500]}]",
        "variables.forcing=[sin_yaer,sea_surface_temperature]",
        "variables.diagnostic=[total_precipitation]",
        "variables.static=[sin_latitude,soil_type]",
    )
    assert set(faulty) == {
        "variables.prognostic[1]", "variables.forcing[0]", "variables.diagnostic[0]", "variables.static[1]",
    }  # fmt: skip
    assert faulty["variables.forcing[0]"].fix == "write sin_year"
    assert faulty["variables.diagnostic[0]"].fix == "write total_precipitation_6hr"
    assert "variables.prognostic" in found("variables.prognostic=[]")


@pytest.mark.parametrize(
    ("period", "said"),
    [
        ("['1990-01-01','1991-01-01']", "holds none"),
        ("['2001-01-01','2011-01-01']", "2001-01-01 to 2011-01-01"),
        ("['2001-01-09','2001-01-03']", "before"),
        ("[yesterday,today]", "yesterday"),
    ],
)
def test_splits(period, said):
    assert said in found(f"data.splits.train={period}")["data.splits.train"].got


def test_overlapping_splits_are_a_warning(capsys):
    assert main(["check", *TINY, "data.splits.test=['2001-01-05','2001-01-08']"]) == 0
    assert "test overlaps data.splits.train: its scores will flatter" in capsys.readouterr().err
    assert main(["check", *TINY, "data.splits.test=['2001-02-04','2001-02-12']"]) == 0
    told = capsys.readouterr().err
    assert "test overlaps data.splits.validation, which chooses the best weights: its scores will flatter" in told
    assert "data.splits.train" not in told
    assert main(["check", *TINY]) == 0
    assert "overlaps" not in capsys.readouterr().err


def test_loggers_whose_package_is_absent_are_found_before_a_training(monkeypatch):
    monkeypatch.setattr("emul.checks.examination.find_spec", lambda name: None)
    faulty = found("logger=[csv,wandb,mlflow]")
    assert set(faulty) == {"logger.wandb", "logger.mlflow"}
    assert faulty["logger.wandb"].fix == "pip install 'emul[wandb]'"
    monkeypatch.setattr("emul.checks.examination.find_spec", lambda name: name)
    assert not found("logger=[csv,wandb,mlflow]")


def test_a_grid_that_the_network_cannot_take():
    config = compose("train", ["data=planet_tiny", "model=unet", "model.channels=[8,8,8,8,8,8,8]"])
    assert [finding.key for finding in findings(config)] == ["model"]


def test_a_missing_file_and_a_file(tmp_path):
    own = ["data=netcdf", "variables.prognostic=[t]", "data.splits={train:[a,b],validation:[a,b],test:[a,b]}"]
    faulty = {f.key: f for f in findings(compose("train", [*own, f"data.path={tmp_path}/no.nc"]))}
    assert set(faulty) == {"data.path"}
    times = np.arange("2001-01-01", "2001-01-11", 6, dtype="datetime64[h]").astype("datetime64[ns]")
    grid = {"latitude": np.linspace(80, -80, 8), "longitude": np.arange(0, 360, 22.5)}
    field = (("time", *grid), np.zeros((times.size, 8, 16), np.float32))
    xr.Dataset({"2m_temperature": field}, {"time": times, **grid}).to_netcdf(tmp_path / "yes.nc")
    splits = "data.splits={train:['2001-01-01','2001-01-06'],validation:['2001-01-07','2001-01-08']}"
    config = compose("train", [*own[:1], f"data.path={tmp_path}/yes.nc", splits, "variables.prognostic=[t2m]"])
    faulty = {f.key: f for f in findings(config)}
    assert set(faulty) == {"data.splits.test", "variables.prognostic[0]"}


def test_refusal_holds_every_finding():
    with pytest.raises(ConfigErrors) as error:
        refuse_faults(compose("train", [*TINY, "step.output=x", "training.batch_size=0"]))
    assert {finding.key for finding in error.value.findings} == {"step.output", "training"}


def test_a_network_on_meta_holds_no_numbers():
    config = compose("train", TINY)
    network = network_on_meta(config.model, template_world(config))
    assert all(p.is_meta for p in network.parameters())
    assert parameter_count(network) > 0


def test_check_generates_nothing(tmp_path):
    assert main(["check", *TINY, f"data.folder={tmp_path}/cache", "output=" + str(tmp_path / "out")]) == 0
    assert list(tmp_path.iterdir()) == []


def test_flags_of_other_verbs_are_refused(capsys):
    assert main(["check", "--multirun"]) == 2
    assert "--multirun" in capsys.readouterr().err


def test_a_terminal_gets_a_table(monkeypatch, capsys):
    from rich.console import Console

    from emul.terminal import console

    monkeypatch.setattr(
        console, "_made", lambda stderr: Console(file=sys.stdout, force_terminal=True, theme=console.THEME)
    )
    console.show_findings(list(found("step.output=residul").values()))
    assert "step.output" in capsys.readouterr().out


def test_laws_that_lack_data_or_stand_in_the_wrong_order():
    faulty = found("constraint=[moisture_budget,total_energy]")
    assert set(faulty) == {"constraint.moisture_budget", "constraint.total_energy"}
    assert "evaporation_6hr" in faulty["constraint.moisture_budget"].got
    faulty = found("variables=planet_budgets", "constraint=[total_energy,dry_air_mass]")
    assert "list dry_air_mass before total_energy" in faulty["constraint"].got
    assert not found("variables=planet_budgets", "constraint=[positivity,dry_air_mass,moisture_budget,total_energy]")


def test_a_batch_that_does_not_fit_is_refused():
    assert "windows of data.splits.train" in found("training.batch_size=100000")["training.batch_size"].expected
    small = found("hardware.gigabytes=0.001")["training.batch_size"]
    assert "1 MB" in small.expected
    assert "activations" in small.got


def test_faults_of_values_are_told_without_opening_data():
    config = compose(
        "train",
        ["data=netcdf", "data.path=absent.nc", "variables.prognostic=[x]", "optimizer.lr=-1", "training.batch_size=0"],
    )
    with pytest.raises(ConfigErrors) as caught:
        refuse_faults(config)
    assert {finding.key for finding in caught.value.findings} == {"optimizer", "training"}


def test_a_tried_network_leaves_the_tables_of_the_process_alone():
    """Transforms made later, of a training or of the planet, have the same tables as the network that was tried."""
    config = compose("train", TINY)
    world = template_world(config)
    tried = runnable(network_on_meta(config.model, world), world)
    tables = [part for part in tried.modules() if isinstance(part, Tables)]
    assert tables
    for part in tables:
        assert all(table.any() for table in part.buffers(recurse=False))
    assert not any(parameter.any() for parameter in tried.parameters())


def test_a_network_tried_without_draws_has_the_parameters_of_a_drawn_one():
    config = compose("train", ["data=planet_tiny", "model.embed=8"])
    world = template_world(config)
    tried, drawn = network_on_meta(config.model, world), build_network({"model": config.model, "noise": None}, world)
    drawn_weights = drawn.state_dict()
    assert tried.state_dict().keys() == drawn_weights.keys()
    for name, weight in tried.state_dict().items():
        assert (weight.shape, weight.dtype) == (drawn_weights[name].shape, drawn_weights[name].dtype), name
