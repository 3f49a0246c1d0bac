"""Forecasts and evaluations compose their options with those of a run: command line, preset, run, defaults."""

import logging
import sys

import pytest
from omegaconf import OmegaConf

from data_pipelines.conventions.suggestions import ConfigErrors
from emul.config.compose import combinations, compose, run_composed
from emul.main import main
from emul.run import follow_up


@pytest.fixture(autouse=True)
def _handlers():
    """Hydra logs several jobs to the output of the test, which later tests no longer have."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


@pytest.fixture
def run(tmp_path):
    """The folder of a run whose config has options of its own."""
    words = ["data=lorenz96", "variables=lorenz96", "metric=[mae]", "forecast.lead=3d", "forecast.device=cpu"]
    config = compose("train", [*words, "eval.regions=[tropics]", "forecast.cascade={5d: other}"])
    folder = tmp_path / "it's a run"
    folder.mkdir()
    OmegaConf.save(config, folder / "config.yaml")
    return folder


def of(run, verb, *words):
    escaped = str(run).replace("'", "\\'")
    return compose(verb, [f"run='{escaped}'", *words])


def test_options_of_the_run_go_before_the_defaults(run):
    config = of(run, "forecast")
    assert (config.lead, config.every, config.name) == ("3d", "5d", run.name)
    assert config.data._target_ == "data_pipelines.sources.lorenz96.Lorenz96"
    assert compose("forecast", ["run=nowhere"]).lead == "10d"


def test_the_command_line_goes_before_the_run(run):
    config = of(run, "forecast", "lead=6h", "data.seed=3", "cascade={7d: third}")
    assert (config.lead, config.data.seed) == ("6h", 3)
    assert config.cascade == {"5d": "other", "7d": "third"}
    assert of(run, "forecast", "data=planet").data._target_.endswith(".Planet")


def test_the_hardware_of_the_command_line_says_the_device(run):
    assert of(run, "forecast").device == "cpu"
    assert of(run, "forecast", "hardware=gpu").device == "auto"


def test_a_preset_goes_before_the_run_and_after_the_command_line(run):
    assert of(run, "eval").regions == ["tropics"]
    assert list(of(run, "eval").metric) == ["mae"]
    config = of(run, "eval", "eval=wb1", "leads=[1d]")
    assert (config.regions, config.leads, list(config.metric)) == (["global"], ["1d"], ["rmse", "mae", "acc"])
    assert list(of(run, "eval", "eval=wb1", "metric=[bias]").metric) == ["bias"]


@pytest.mark.slow
def test_every_option_of_the_defaults_stands_at_the_top():
    for verb in ("forecast", "eval"):
        declared = compose("train")[verb]
        assert {key: compose(verb)[key] for key in declared} == declared


def test_the_verbs_after_a_training_read_its_options(run):
    config = OmegaConf.create({"name": "x", "output": "some where"})
    following = follow_up("forecast", config, run)
    assert (following.run, following.name, following.output, following.lead) == (str(run), "x", "some where", "3d")


def test_the_configuration_shown_is_the_one_used(run, capsys):
    escaped = str(run).replace("'", "\\'")
    assert main(["forecast", f"run='{escaped}'", "--cfg", "job"]) == 0
    shown = OmegaConf.create(capsys.readouterr().out)
    assert shown == of(run, "forecast")
    assert main(["forecast", f"run='{escaped}'", "--cfg", "job", "-p", "data"]) == 0
    assert OmegaConf.create(capsys.readouterr().out) == shown.data
    assert main(["forecast", f"run='{escaped}'", "--info", "defaults"]) == 0
    assert "saved/run" in capsys.readouterr().out


def test_every_combination_of_values():
    words = list(combinations("train", ["model=glob(unet*)", "seed=range(2)", "name=x"]))
    assert words == [["model=unet", "seed=0", "name=x"], ["model=unet", "seed=1", "name=x"]]
    with pytest.raises(ValueError, match="emul sweep"):
        list(combinations("train", ["optimizer.lr=interval(0,1)"]))


def test_each_job_reads_the_run_it_names(run, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["emul"])
    seen = []
    escaped = str(run).replace("'", "\\'")
    run_composed("forecast", ["-m", f"run='{escaped}',nowhere"], lambda config: seen.append(config.lead))
    assert seen == ["3d", "10d"]


def test_a_mapping_of_ones_own_keys_takes_new_ones():
    loss = compose("train", ["experiment=planet_sfno", "loss.mse.variable_weights={temperature: 2}"]).loss.mse
    assert loss.variable_weights == {"specific_humidity": 1.5, "temperature": 2}


def test_a_curriculum_takes_the_place_of_another():
    assert compose("train", ["experiment=planet_ensemble"]).objective.rollout[1] == [1860, 2]
    config = compose("train", ["experiment=planet_ensemble", "objective.rollout=[[0, 1], [700, 2]]"])
    assert config.objective.rollout == [[0, 1], [700, 2]]


@pytest.mark.parametrize(("override", "fix"), [
    ("training={stepss: 2}", "expected a key that exists, got training.stepss; write training.steps=2"),
    ("optimizer={lrr: 2}", "expected a key that exists, got optimizer.lrr; write optimizer.lr=2"),
])  # fmt: skip
def test_a_misspelt_key_in_a_mapping_is_named(override, fix):
    with pytest.raises(ConfigErrors) as caught:
        compose("train", ["experiment=planet_sfno", override])
    assert fix in str(caught.value)
