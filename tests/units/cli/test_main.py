"""The command as it is typed: help, verbs, errors in one sentence, exit codes, completion."""

import dataclasses
import importlib
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
import types

import pytest
import yaml

from data_pipelines.options.folders import conf_folder, options_of
from data_pipelines.packing.pack import PackingSettings
from emul.checks.networks import measured_sizes, shipped_sizes
from emul.main import main
from emul.terminal.completion import candidates
from emul.terminal.verbs import DATA_WORDS, LISTS, all_names, find, of_data

SAFE = all_names()


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_every_verb(arguments, capsys):
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in all_names())
    assert max(map(len, text.splitlines())) <= 110


@pytest.mark.parametrize("verb", all_names())
@pytest.mark.parametrize("form", ["{} --help", "{} -h", "help {}"])
def test_help_of_a_verb(verb, form, capsys):
    assert main(form.format(verb).split()) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"emul {verb} - ")
    assert "Examples:" in text


def test_unknown_verb_names_the_nearest(capsys):
    assert main(["trian"]) == 2
    assert capsys.readouterr().err == "emul: There is no verb 'trian'; did you mean `emul train`?\n"
    assert main(["xyzzy"]) == 2
    assert "`emul --help` lists the verbs" in capsys.readouterr().err


def test_version(capsys):
    assert main(["version"]) == main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("emul 0.")


@pytest.mark.parametrize("words", ["losses", "models", "options optimizer.lr", "new loss mine", "list", "sources"])
def test_what_follows_is_said_and_accepted(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs/train/one/checkpoints").mkdir(parents=True)
    (tmp_path / "outputs/train/one/config.yaml").write_text("{}")
    assert main(words.split()) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("Next: emul ")
    if " check " not in last:  # which reads data
        assert main(shlex.split(last)[2:]) == 0


def test_every_verb_that_does_work_says_what_follows():
    """In verbs.toml, or in its module; a script of completion, a version and what lies on SLURM end without."""
    words = [of_data(word) for word in DATA_WORDS]
    verbs = [verb for verb in (*map(find, all_names()), *words) if verb.name not in ("data", "completion", "version")]
    for verb in verbs:
        module = importlib.import_module(
            f"emul.{verb.name.replace(' ', '.')}" if verb in words else f"emul.{verb.module}"
        )
        assert verb.follows or "next_command(" in inspect.getsource(module), verb.name


@pytest.mark.parametrize("verb", sorted(set(LISTS) - {"models"}))
def test_lists(verb, capsys):
    assert main([verb]) == 0
    text = capsys.readouterr().out
    assert all(option in text for option in options_of(LISTS[verb]))
    assert "\x1b" not in text


def test_models_are_listed_with_their_sizes(capsys):
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line for line in lines[1:-2]}
    names = options_of("model")
    smaller = {name for name in names if name.endswith("_small") and name.removesuffix("_small") in names}
    assert set(rows) == set(names) - smaller
    assert max(map(len, lines)) <= 80
    assert re.search(r"sfno +\d+ k|sfno +[\d.]+ M", rows["sfno"])
    assert " M" not in rows["persistence"]


def test_a_model_is_described(capsys):
    assert main(["models", "sfno_ace"]) == 0
    text = capsys.readouterr().out
    assert "parameters" in text
    assert "compared with" in text
    assert text.endswith("Next: emul check model=sfno_ace\n")
    assert main(["models", "sfon"]) == 2
    assert "did you mean 'sfno'?" in capsys.readouterr().err


@pytest.mark.slow
def test_the_sizes_that_ship_are_those_measured(capsys):
    assert set(shipped_sizes()) == set(options_of("model"))
    assert measured_sizes(options_of("model")) == shipped_sizes(), "run python -m emul.checks.networks"
    assert main(["models", "linear", "data=planet_tiny"]) == 0
    assert f"{shipped_sizes()['linear'].parameters:,}" not in capsys.readouterr().out


def failing(monkeypatch, error):
    """`emul data` raises `error`."""
    module = types.ModuleType("emul.data.arguments")
    monkeypatch.setitem(sys.modules, "emul.data.arguments", module)

    def main(arguments):
        raise error

    module.main = main


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ValueError("Expected 3, got 4."), 2, "emul: Expected 3, got 4.\n"),
        (FileNotFoundError("No file x.nc."), 2, "emul: No file x.nc.\n"),
        (OSError(28, "No space left on device"), 2, "emul: [Errno 28] No space left on device\n"),
        (KeyError("No variable 'x' here; there are y."), 2, "emul: No variable 'x' here; there are y.\n"),
        (KeyboardInterrupt(), 130, "emul: Stopped.\n"),
    ],
)
def test_errors_of_the_user_are_one_sentence(error, code, said, monkeypatch, capsys):
    failing(monkeypatch, error)
    assert main(["data"]) == code
    assert capsys.readouterr().err == said


def test_errors_of_ours_show_where_they_come_from(monkeypatch, capsys):
    failing(monkeypatch, TypeError("ours"))
    assert main(["data"]) == 1
    assert "Traceback" in capsys.readouterr().err
    failing(monkeypatch, ValueError("theirs"))
    monkeypatch.setenv("EMUL_TRACEBACK", "1")
    assert main(["data"]) == 2
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert said.endswith("emul: theirs\n")


def test_faults_of_a_configuration_stop_a_verb_before_it_is_loaded(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "emul.train", None)  # importing it is an error
    assert main(["train", "optimizer.learning_rate=1", "step.output=x"]) == 2
    said = capsys.readouterr().err
    assert "emul: 1 fault in the configuration:" in said or "2 faults" in said
    assert "optimizer.learning_rate" in said
    assert "step.output: expected residual or absolute" in said


def test_a_reader_that_goes_away_is_no_error():
    done = subprocess.run(f"{sys.executable} -m emul.main train --cfg job | head -1", shell=True, capture_output=True)
    assert done.stderr == b""


# --- completion ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tr"], ["train"]),
        (["train", "mode"], ["model=", "model."]),
        (["train", "model=unet", "optimizer.l"], ["optimizer.lr="]),
        (["train", "step.output=r"], ["step.output=residual"]),
        (["train", "hardware=gpu", "hardware.compile="], ["hardware.compile=true", "hardware.compile=false"]),
        (["train", "loss=[mse,hu"], ["loss=[mse,huber"]),
        (["train", "--c"], ["--cfg", "--config-dir"]),
        (["train", "--cfg", "j"], ["job"]),
        (["check", "experiment=planet_am"], ["experiment=planet_amse"]),
        (["data", "m"], ["make"]),
        (["help", "fore"], ["forecast"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["models", ""], []),
        (["forecast", "chec"], ["checkpoint="]),
    ],
)
def test_candidates(words, expected):
    assert candidates(words) == expected


def test_paths_are_completed(tmp_path, monkeypatch):
    (tmp_path / "outputs" / "train" / "x").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert candidates(["forecast", "run=outputs/train/"]) == ["run=outputs/train/x/"]


@pytest.mark.parametrize("verb", SAFE)
def test_every_verb_is_completed(verb):
    assert verb in candidates([verb[:2]])


BASH = """
eval "$({python} -m emul.main completion bash)"
emul() {{ {python} -m emul.main "$@"; }}
COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; COMP_WORDBREAKS=$' \\t\\n"\\'><=;|&(:'
_emul
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("emul forec", ["forecast"]),
        ("emul train model=sfno_a", ["sfno_ace", "sfno_ace2", "sfno_ace2_noise"]),  # bash has split the word at "="
        ("emul train optimizer.l", ["optimizer.lr="]),
    ],
)
def test_bash_completes(line, expected):
    script = BASH.format(python=sys.executable, line=line)
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env={**os.environ})
    assert done.stdout.split() == expected, done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_a_script(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "completion candidates" in script
    if shutil.which(shell):
        assert subprocess.run([shell, "-n"], input=script, text=True).returncode == 0


def test_unknown_shell(capsys):
    assert main(["completion", "bsh"]) == 2
    assert "write emul completion bash" in capsys.readouterr().err


# --- keys in the help ---------------------------------------------------------------------------------------------


def told_keys(rows) -> dict[str, str]:
    """Keys and values in rows of help: `lead=10d`, `leads=[1d] inits=...`."""
    words = [word for left, _ in rows for word in re.split(r" (?=\w+(?:\.\w+)*=)", left) if "=" in word]
    return dict(word.split("=", 1) for word in words)


def defaults_of(verb: str) -> dict[str, object]:
    """The default of every key of a verb: of its YAML files and of the choices in its list of defaults."""
    files = {"train": ["train"], "forecast": ["forecast/default", "forecast"], "eval": ["eval/default", "eval"]}[verb]
    found: dict[str, object] = {"optimizer.lr": 1e-3}
    for file in files:
        text = yaml.safe_load((conf_folder() / f"{file}.yaml").read_text())
        chosen = {
            key: value for entry in text.pop("defaults", []) if isinstance(entry, dict) for key, value in entry.items()
        }
        found |= {
            f"{key}.{name}": value
            for key, told in text.items()
            if isinstance(told, dict)
            for name, value in told.items()
        }
        found |= text | {key: value for key, value in chosen.items() if "@" not in key}
    return found


@pytest.mark.parametrize("verb", ["train", "forecast", "eval"])
def test_what_help_calls_a_default_is_one(verb):
    known, said = defaults_of(verb), find(verb)
    for key, value in told_keys(said.keys).items():
        assert yaml.safe_load(value) == known[key] or value in (str(known[key]), "1e-3"), key
    for key in told_keys(said.more):
        if "." not in key and key != "forecast":
            assert known[key] in (None, "???", [], {}) or str(known[key]).startswith("${"), key


SETTINGS = {
    "eval compare": ["evaluation.compare.CompareSettings"],
    "sweep": ["sweep.SweepSettings"],
    "init": ["data.init.InitSettings"],
    "data predictability": ["data.predictability.TwinSettings"],
    "data ensemble": ["data.ensemble.EnsembleSettings"],
    "data climatology": ["data.climatology.ClimatologySettings"],
    "data statistics": ["data.statistics.StatisticsSettings"],
    "data convert": ["data.convert.Target", "data.convert.PackingSettings"],
    "data inspect": ["data.arguments.OpenOptions"],
    "data check": ["data.arguments.OpenOptions", "data.check.CheckSettings"],
    "data regrid": ["data.arguments.OpenOptions", "data.regrid.RegridSettings"],
    "data download": ["data.arguments.OpenOptions", "data.download.DownloadSettings"],
}


@pytest.mark.parametrize("verb", SETTINGS)
def test_help_lists_every_key_with_its_default(verb):
    said = of_data(verb.removeprefix("data ")) if verb.startswith("data ") else find(verb)
    keys, more = (
        {key.removeprefix("sweep."): value for key, value in told_keys(rows).items()} for rows in (said.keys, said.more)
    )
    known = {}
    for name in SETTINGS[verb]:
        module, _, settings = name.rpartition(".")
        found = getattr(importlib.import_module(f"emul.{module}"), settings, None) or PackingSettings
        known |= {field.name: field.default for field in dataclasses.fields(found)}
    assert {key: yaml.safe_load(value) for key, value in keys.items()} == {
        key: value for key, value in known.items() if value is not None
    }
    assert set(more) >= {key for key, value in known.items() if value is None}


@pytest.mark.parametrize("word", DATA_WORDS)
@pytest.mark.parametrize("form", ["data {} --help", "help data {}"])
def test_help_of_a_word_of_data(word, form, capsys):
    assert main(form.format(word).split()) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"emul data {word} - ")
    assert f"emul data {word} " in text.split("Examples:")[1]


@pytest.mark.parametrize("key", ["", "regions", "lead", "training.batch_size", "case", "title"])
def test_options_of_every_verb_are_listed(key, capsys):
    assert main(["options", key] if key else ["options"]) == 0
    text = capsys.readouterr().out
    shown = [line.split()[0] for line in text.splitlines()[1:]]
    if not key:
        assert {"training.steps", "forecast.lead", "eval.regions", "title"} <= set(shown)
        return
    assert any(one == key or one.endswith(f".{key}") or f".{key}." in f".{one}." for one in shown)
