"""Every shipped configuration composes, names real parts with keys they take, and every experiment is sound."""

import re
from itertools import zip_longest
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from data_pipelines.options.documentation import description, options
from data_pipelines.options.folders import conf_folder, groups, options_of
from emul.checks.examination import findings
from emul.config.compose import compose
from emul.config.saved import config_faults

OPTIONS = [(group, option) for group in groups() for option in options_of(group)]
NAMES = [f"{group}/{option}" for group, option in OPTIONS]
ALONE = {
    "experiment",
    "study",
    "scenarios",
    "projection",
}  # groups that choose of many others, or belong to another verb
LISTED = {"loss", "constraint", "metric", "logger", "projection"}
PRIMARIES = sorted(path.stem for path in conf_folder().glob("*.yaml"))


def path_of(group: str, option: str) -> Path:
    return conf_folder() / group / f"{option}.yaml"


def chosen(group: str, option: str) -> list[str]:
    return [f"{group}=[{option}]" if group in LISTED else f"{group}={option}"]


def says_step(model: str) -> bool:
    return "step" in OmegaConf.load(path_of("model", model))


def unasked(found: list) -> list:
    """Findings other than values that only the user can give (`???` in the YAML)."""
    return [finding for finding in found if (finding.expected, finding.got) != ("a value", "nothing")]


def together() -> list[list[tuple[str, str]]]:
    """All options, as few configurations: one of each group in each; experiments and studies stand alone."""
    alone = [[(group, option)] for group, option in OPTIONS if group in ALONE]
    others = [[(group, option) for option in options_of(group)] for group in groups() if group not in ALONE]
    rounds = [[one for one in row if one is not None] for row in zip_longest(*others)]
    return alone + rounds


@pytest.mark.parametrize("options", together(), ids=lambda options: "+".join(option for _, option in options))
def test_options_compose_without_faults(options: list[tuple[str, str]]) -> None:
    verb = {"study": "scaling", "scenarios": "project", "projection": "project"}.get(options[0][0], "train")
    config = compose(verb, [word for group, option in options for word in chosen(group, option)])
    assert unasked(config_faults(config)) == []
    for group, option in options:
        if group in LISTED:
            assert list(config[group]) == [option], "the YAML's one top key is the option's own name"


@pytest.mark.parametrize(
    "model", [name for name in options_of("model") if "step" in OmegaConf.load(path_of("model", name))]
)
def test_what_a_model_says_of_its_step_holds(model: str) -> None:
    says = OmegaConf.load(path_of("model", model)).step
    step = compose("train", [f"model={model}"]).step
    assert {key: step[key] for key in says} == dict(says)


def test_every_option_is_composed() -> None:
    assert sorted(one for options in together() for one in options) == sorted(OPTIONS)


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=NAMES)
def test_option_says_what_it_is(group: str, option: str) -> None:
    assert len(description(path_of(group, option))) > 10


def test_every_option_has_a_comment() -> None:
    found = options()
    assert len(found) > 600
    assert [f"{option.file}: {option.key}" for option in found if not option.comment] == []


@pytest.mark.parametrize("verb", PRIMARIES)
def test_primary_composes_without_faults(verb: str) -> None:
    assert unasked(config_faults(compose(verb))) == []


@pytest.mark.slow
@pytest.mark.parametrize("experiment", options_of("experiment"))
def test_experiment_is_sound_and_citable(experiment: str) -> None:
    config = compose("train", [f"experiment={experiment}"])
    assert findings(config) == []
    assert config.name == experiment
    text = path_of("experiment", experiment).read_text(encoding="utf-8")
    for word in ("Purpose:", "Reference:", "Cost:"):
        assert word in text
    assert re.search(r"doi 10\.|arXiv \d{4}\.\d{4,5}", text), "a reference has a DOI or an arXiv number"


def test_no_constraint_leaves_an_empty_mapping() -> None:
    assert compose("train", ["constraint=[]"]).constraint == {}
    assert compose("train", ["loss=[]"]).get("loss") in (None, {})


def test_later_words_go_before_earlier_ones() -> None:
    """The command line, then hardware, then the experiment, then the options, then the primary."""
    config = compose("train", ["experiment=planet_sfno", "hardware=debug", "training.batch_size=3"])
    assert (config.training.steps, config.training.batch_size, config.name) == (2, 3, "planet_sfno")
    assert compose("train", ["model=unet"]).name == "planet_unet"
