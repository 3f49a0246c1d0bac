"""Options are documented by the comments beside them, and shown with their defaults."""

import pytest
from omegaconf import OmegaConf

from data_pipelines.options.documentation import options_in_file, scanned, with_comments
from emul.main import main

EXAMPLE = """# A network.
_target_: somewhere.Net
width: 3  # channels
text: "a # b"  # quoted
long: null  # goes on
            # below
inner:  # a mapping
  one: [1, 2]  # of its keys
listed:  # a list
  - a
  - b
"""


def test_a_file_is_scanned(tmp_path):
    file = tmp_path / "net.yaml"
    file.write_text(EXAMPLE)
    assert scanned(file) == [
        ("width", "3", "channels", "somewhere.Net"),
        ("text", '"a # b"', "quoted", "somewhere.Net"),
        ("long", "null", "goes on below", "somewhere.Net"),
        ("inner", "", "a mapping", "somewhere.Net"),
        ("inner.one", "[1, 2]", "of its keys", None),
        ("listed", "a, b", "a list", "somewhere.Net"),
    ]
    keys = [option.key for option in options_in_file("model", file)]
    assert keys == ["model.width", "model.text", "model.long", "model.inner", "model.inner.one", "model.listed"]


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("training.batch_size", ["training.batch_size", "8", "samples an optimiser step"]),
        ("model.sfno", ["model.embed", "channels"]),
        ("training", ["training.steps", "optimiser steps"]),
    ],
)
def test_options_are_shown(word, shown, capsys):
    assert main(["options", word]) == 0
    printed = capsys.readouterr().out
    assert all(text in printed for text in shown)


def test_the_nearest_option_is_offered(capsys):
    assert main(["options", "training.batchsize"]) == 2
    assert "did you mean training.batch_size?" in capsys.readouterr().err
    assert main(["options", "trainig"]) == 2
    assert "did you mean training?" in capsys.readouterr().err


def test_a_composed_configuration_keeps_the_comments(capsys):
    assert main(["train", "model=unet", "--cfg", "job"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if line.startswith("  batch_size:")).startswith("  batch_size: 8  # samples")
    assert main(["forecast", "run=x", "--cfg", "job"]) == 0
    assert "every: 5d  # between two initial times" in capsys.readouterr().out
    text = "seed: 1\n"
    assert OmegaConf.create(with_comments(text, "train")) == OmegaConf.create(text)
