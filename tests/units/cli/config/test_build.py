"""Signatures read without import, faults told all at once, parts built, Hydra run quietly."""

import re
import sys
import textwrap
from itertools import count

import pytest
from omegaconf import OmegaConf

from data_pipelines.conventions.suggestions import ConfigErrors, nearest_name
from data_pipelines.options.signatures import signature, tree_faults
from data_pipelines.options.source_text import accepts, choices, in_words
from emul.config.build import build, build_all
from emul.config.compose import compose, refuse_early, run_composed
from emul.config.saved import config_faults

NUMBERS = count()
SOURCE = """
    raise ImportError("this module is read, never imported")
    from __future__ import annotations
    from collections.abc import Mapping, Sequence
    from dataclasses import dataclass, field
    from typing import Literal

    Size = Literal["small", "large"]

    class Net:
        def __init__(
            self, world, *, size: Size = "small", width: int, rate: float = 0.1, shape: tuple[int, int] = (1, 2),
            name: str | None = None, on: bool = False, weights: Mapping[str, float] = {}, part=None,
        ) -> None: ...

    class Child(Net):
        pass

    class Open:
        def __init__(self, **anything): ...

    @dataclass(frozen=True)
    class Plan:
        steps: int
        levels: Sequence[float] = ()
        extra: list[str] = field(default_factory=list)

    @dataclass
    class Longer(Plan):
        more: int | None = None

    def made(first: int, *, second: str = "x"): ...
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    name = f"parts_to_read_{next(NUMBERS)}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(SOURCE))
    monkeypatch.syspath_prepend(tmp_path)
    return name


def found(node):
    return {finding.key: finding for finding in tree_faults({"model": node})}


def test_a_sound_node_has_no_faults(module):
    node = {"width": 3, "size": "large", "rate": 1, "shape": [1, 2], "name": None, "weights": {"a": 1}, "on": True}
    assert found({"_target_": f"{module}.Net", **node}) == {}
    assert found({"_target_": f"{module}.Child", **node}) == {}
    assert found({"_target_": f"{module}.Open", "whatever": 1}) == {}
    assert found({"_target_": f"{module}.Longer", "steps": 1, "levels": [1, 2.5], "extra": ["a"], "more": None}) == {}
    assert found({"_target_": f"{module}.made", "_partial_": True}) == {}
    assert module not in sys.modules


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("size", "big", "small or large"),
        ("width", 1.5, "a whole number"),
        ("width", True, "a whole number"),
        ("width", "3", "a whole number"),
        ("rate", "fast", "a number"),
        ("rate", None, "a number"),
        ("shape", [1, 2, 3], "a list of whole numbers"),
        ("shape", 1, "a list of whole numbers"),
        ("name", 3, "text or null"),
        ("on", "yes", "true or false"),
        ("weights", [1], "a mapping to a number"),
    ],
)
def test_a_value_of_another_type(module, key, value, expected):
    finding = found({"_target_": f"{module}.Net", "width": 1, key: value})[f"model.{key}"]
    assert finding.expected == expected
    assert str(finding).startswith(f"model.{key}: expected {expected}, got")


def test_of_a_mapping_the_entry_at_fault_is_named(module):
    entry = found({"_target_": f"{module}.Net", "width": 1, "weights": {"a": "b", "c": 1.0}})
    assert str(entry["model.weights.a"]) == "model.weights.a: expected a number, got the text 'b'."
    assert set(entry) == {"model.weights.a"}


def test_nested_parts_are_not_compared_but_walked(module):
    node = {"_target_": f"{module}.Net", "width": 1, "part": {"_target_": f"{module}.Plan", "step": 1}}
    assert set(found(node)) == {"model.part.step", "model.part.steps"}


def test_unknown_and_missing_keys(module):
    faulty = found({"_target_": f"{module}.Net", "widht": 3})
    assert faulty["model.widht"].fix == "write width"
    assert faulty["model.width"].got == "nothing"
    alone = {finding.key for finding in tree_faults({"training": {"_target_": f"{module}.made"}})}
    assert alone == {"training.first"}, "training is built from the configuration alone"
    assert found({"_target_": f"{module}.made"}) == {}, "a model is handed what stands before the star"


def test_targets_that_are_not_there(module):
    assert found({"_target_": "emulators.models.sfno.SFNOO"})["model._target_"].fix == "write SFNO"
    assert found({"_target_": "emulators.models.sfn.SFNO"})["model._target_"].fix == "write sfno"
    assert "model._target_" in found({"_target_": "no_such_package.thing.Part"})
    assert found({"_target_": "torch.nn.Identity"}) == {}, "parts of other packages are allowed"


def test_signatures_of_the_house():
    assert {"world", "embed", "layers"} <= set(signature("emulators.models.sfno.SFNO").names)
    assert "torch" not in signature.__module__


def test_choices_and_words():
    import ast

    literal = ast.parse("Literal['a', 'b'] | None", mode="eval").body
    assert choices(literal, "typing") == ["a", "b", "null"]
    assert in_words(literal, "typing") == "a or b or null"
    assert accepts(literal, None, "typing")
    assert not accepts(literal, "c", "typing")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("optimiser.lr", "optimizer.lr"), ("lr", "optimizer.lr"), ("training.step", "training.steps"),
        ("sed", "seed"), ("objective.rollouts", "objective.rollout"), ("zzzz", None), ("training.depth", None),
        ("model.rollouts", "objective.rollout"),
    ],
)  # fmt: skip
def test_nearest(wrong, right):
    assert nearest_name(wrong, ["optimizer.lr", "training.steps", "step", "seed", "objective.rollout"]) == right


def test_the_beginning_decides_between_names_as_near():
    assert nearest_name("sfmo", ["smoe", "sfno", "afno"]) == "sfno"
    assert nearest_name("sfmo", ["afno", "sfno", "smoe"]) == "sfno"
    assert nearest_name("sfno_tiny", ["afno_tiny", "sfno", "sfno_ace"]) == "sfno"


def test_every_override_that_does_not_compose_is_told_at_once():
    with pytest.raises(ConfigErrors) as error:
        compose("train", ["optimiser.lr=1", "model=sfnn", "loss=[mse,l7]", "bogus", "training.batchsize=2", "seed=1"])
    fixes = {finding.key: finding.fix for finding in error.value.findings}
    assert fixes["optimiser.lr"] == "write optimizer.lr=1"
    assert fixes["model"] == "write model=sfno"
    assert fixes["training.batchsize"] == "write training.batch_size=2"
    assert {"loss", "bogus"} <= set(fixes)
    assert "seed" not in fixes


def test_faults_of_names_kinds_and_missing_values():
    config = compose("train", ["data=netcdf", "step.output=residul", "seed=soon", "+forecast.led=3"])
    keys = {finding.key: finding for finding in config_faults(config)}
    assert keys["step.output"].fix == "write residual"
    assert keys["seed"].expected == "a whole number"
    assert keys["forecast.led"].fix == "write forecast.lead"
    assert keys["data.path"].got == "nothing"


def test_a_key_of_the_signature_needs_no_plus():
    """Keys that a part takes but its YAML leaves to the default can be set as any other."""
    assert compose("train", ["training.clip=0.5"]).training.clip == 0.5
    refuse_early("train", ["training.clip=0.5"])


def test_a_part_left_out_of_a_list_takes_its_keys_with_it():
    config = compose("train", ["experiment=planet_sfno_conserving", "constraint=[positivity]", "loss=[spectral_mse]"])
    assert (list(config.constraint), list(config.loss)) == (["positivity"], ["spectral_mse"])
    assert not config_faults(config)


def test_an_interpolation_that_leads_nowhere():
    with pytest.raises(ConfigErrors, match="nowhere_at_all"):
        compose("train", ["name=${nowhere_at_all}"])


def test_compose_resolves_and_nests():
    outer = compose("train", ["name=first"])
    assert (outer.name, compose("train").name) == ("first", "planet_sfno")
    assert "hydra" not in outer


def test_part_hands_over_plain_values_and_its_own_errors(monkeypatch):
    monkeypatch.setenv("EMUL_TRUST", "collections")
    node = OmegaConf.create({"_target_": "collections.OrderedDict", "a": [1, {"b": 2}]})
    assert build(node) == {"a": [1, {"b": 2}]}
    assert type(build(node)["a"]) is list
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        build(OmegaConf.create({"_target_": "emulators.training.plan.Plan", "batch_size": 0}))
    assert list(build_all(OmegaConf.create({"x": node, "y": node}))) == ["x", "y"]
    assert build_all(None) == {}


def test_run_with_hydra_restores_the_command_line_and_makes_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    whole = ["emul", "train", "seed=7", "training.clip=0.5"]
    monkeypatch.setattr(sys, "argv", list(whole))
    seen = []

    def task(config):
        assert compose("forecast", ["run=x"]).run == "x", "other verbs are composed inside a task"
        seen.append((config.seed, config.training.clip, config.name, list(sys.argv)))
        return 3

    assert run_composed("train", whole[2:], task) == 3
    assert seen == [(7, 0.5, "planet_sfno", whole)]
    assert sys.argv == whole
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


def test_errors_of_the_task_come_out_as_they_are(capsys):
    def task(config):
        raise FileNotFoundError("no such thing")

    with pytest.raises(FileNotFoundError, match="no such thing"):
        run_composed("train", [], task)
    assert capsys.readouterr().err == ""


def test_a_sweep_gives_every_run_a_name_and_a_command_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["emul"])
    seen = []
    run_composed(
        "train",
        ["--multirun", "seed=1", "optimizer.lr=0.1,0.01", f"output={tmp_path}/out"],
        lambda config: seen.append((config.name, sys.argv[1:4], sys.argv[-1])),
    )
    assert [name for name, *_ in seen] == ["planet_sfno_lr0.1", "planet_sfno_lr0.01"]
    assert seen[0][1] == ["train", "seed=1", "optimizer.lr=0.1"]
    assert seen[0][2] == "++name=planet_sfno_lr0.1"


def test_flags_may_stand_anywhere(capsys):
    assert run_composed("train", ["seed=3", "--cfg", "job", "name=x"], lambda config: 1) == 0
    shown = OmegaConf.create(capsys.readouterr().out)
    assert (shown.seed, shown.name) == (3, "x")


def test_options_from_a_folder_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.setenv("EMUL_CONF", str(tmp_path))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("_target_: emulators.models.persistence.Persistence\n")
    seen = []
    run_composed("train", ["model=mine"], lambda config: seen.append(config.model))
    assert seen == [{"_target_": "emulators.models.persistence.Persistence"}]
    refuse_early("train", ["model=mine"])
    with pytest.raises(ConfigErrors, match=r"model=mine"):
        refuse_early("train", ["model=mind"])


def test_unknown_flag_names_the_key():
    with pytest.raises(ValueError, match=r"No flag --steps .*write training\.steps=100\."):
        run_composed("train", ["--steps", "100"], lambda config: 0)


@pytest.mark.slow
def test_advice_is_what_the_verb_accepts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "train" / "mine").mkdir(parents=True)
    for verb, words, advice in (
        ("train", ["--batch-size", "8"], "write training.batch_size=8"),
        ("train", ["model=sfno", "model.blocks=1"], "there is model.block, model.embed"),
        ("train", ["model=sfon"], "write model=sfno"),
        ("train", ["loss=[mse,mee]"], "write mae in its place"),
        ("train", ["sfno"], "write model=sfno"),
        ("eval", ["mine"], "write run=outputs/train/mine"),
        ("eval", ["nothing"], "`emul eval --cfg job` lists the keys"),
    ):
        with pytest.raises(ValueError, match=re.escape(advice)):
            run_composed(verb, words, lambda config: 0)
