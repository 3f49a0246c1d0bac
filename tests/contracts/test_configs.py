"""Every shipped configuration composes, names real parts with keys they take, and every experiment is sound."""

import re
from pathlib import Path

import pytest

from emul.checks.examination import findings
from emul.config.compose import compose
from emul.config.declared_keys import faults
from emul.config.folders import conf_folder, groups, options_of
from emul.config.options import options
from emul.lists import description

OPTIONS = [(group, option) for group in groups() for option in options_of(group)]
NAMES = [f"{group}/{option}" for group, option in OPTIONS]
LISTED = {"loss", "constraint", "metric", "logger"}
PRIMARIES = sorted(path.stem for path in conf_folder().glob("*.yaml"))


def path_of(group: str, option: str) -> Path:
    return conf_folder() / group / f"{option}.yaml"


def chosen(group: str, option: str) -> list[str]:
    return [f"{group}=[{option}]" if group in LISTED else f"{group}={option}"]


def unasked(found: list) -> list:
    """Findings other than values that only the user can give (`???` in the YAML)."""
    return [finding for finding in found if (finding.expected, finding.got) != ("a value", "nothing")]


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=NAMES)
def test_option_composes_without_faults(group: str, option: str) -> None:
    config = compose("train", chosen(group, option))
    assert unasked(faults(config)) == []
    if group in LISTED:
        assert list(config[group]) == [option], "the YAML's one top key is the option's own name"


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=NAMES)
def test_option_says_what_it_is(group: str, option: str) -> None:
    assert len(description(path_of(group, option))) > 10


def test_every_option_has_a_comment() -> None:
    found = options()
    assert len(found) > 600
    assert [f"{option.file}: {option.key}" for option in found if not option.comment] == []


@pytest.mark.parametrize("verb", PRIMARIES)
def test_primary_composes_without_faults(verb: str) -> None:
    assert unasked(faults(compose(verb))) == []


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
