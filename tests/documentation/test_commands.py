"""Every command of the README and of the documentation works: it composes, and runs in a short form."""

import ast
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from documentation.pages import Block, blocks, commands, pages
from documentation.user_files import climate_data_store, forecasts_and_truth

from emul.config.compose import compose, refuse_early
from emul.contracts import check_folder
from emul.main import main
from emul.new import KINDS
from emul.terminal.verbs import DATA_WORDS, LISTS, first_of
from places import ROOT

PAGES = {name: path.read_text(encoding="utf-8") for name, path in pages().items()}
COMMANDS = sorted({(name, command) for name, text in PAGES.items() for command in commands(text)})
EMUL = [(name, command) for name, command in COMMANDS if shlex.split(command)[0] == "emul"]
OTHERS = {"make", "python", ".", "pip", "export", "mkdir", "eval", "srun", "torchrun", "git", "cd"}


# --- the short form of a command ---------------------------------------------------------------------------------

ELSEWHERE = {  # what is not run, and why
    r"gs://|data=weatherbench2|era5_5p625|era5_1p5": "needs the network; tests/runs/test_realdata.py reads such stores",
    r"^(srun|torchrun)|hardware=(ddp|gpu)|hardware=slurm(?!.*--dry-run)": "tests/runs/test_processes.py, tests/slurm",
    r"^(make|python|pip|git|cd|eval|\.) ": "the shell's",
    r"stormer\.ckpt": "weights of the full size; tests/runs/test_published.py",
    r"heights\.nc|cam_|era5_\*|data=packed": "other files; tests/runs/test_realdata_road.py, test_packed.py",
    r"nudging=|increments=": "tests/runs/forecasts/test_nudging.py",
    r"perfect_model": "tests/runs/test_perfect_model.py",
    r"data=ocean": "tests/runs/test_ocean.py",
    r"tuning.trainable=\[(atmosphere|ocean)": "tests/runs/test_components.py",
    r"writer=grib|planet_grib|data=gefs": "needs eccodes; tests/runs/forecasts/test_services.py, test_today.py",
    r"emul scaling ": "tests/runs/test_scaling.py",
    r"on_(cells|healpix)": "tests/runs/test_grids.py",
    r"planet_seeds|inits=2001": "tests/runs/test_seeds.py",
    r"experiment=planet_lam|run=outputs/train/planet_lam": "tests/runs/test_limited_area.py",
    r"keep=(monthly|annual)": "tests/runs/forecasts/test_means.py",
    r"scenarios=climatebench|gaussian_process": "other files and packages; tests/units/emulators/test_projections.py",
    r"data (predictability|picture)|data=planet_pressure": "tests/runs/test_data_verb.py, test_planet_pressure.py",
    r"experiment=(bakeoff|quasi|shallow|kuramoto)": "tests/runs/test_every_config.py",
    r"(train|run|check) .*experiment=planet_(\w+_conserving|slab)": "tests/runs/test_every_config.py",
}
OWN_DATA = ("data=netcdf", "experiment=era5", "experiment=first", "experiment=lorenz96")
SHORT = ["hardware=debug", "forecast.lead=24h", "forecast.every=5d", "training.validation_cases=1"]
LATER = {"lorenz96_unet": "forecast.every=100d"}  # experiments on data of their own, which are made in seconds
FILES: dict[str, Callable[[Path], None]] = {
    "tutorials/own_data": lambda folder: climate_data_store(folder / "era5"),
    "README": lambda folder: climate_data_store(folder / "era5"),
    "tutorials/score_forecasts": forecasts_and_truth,
}


def is_elsewhere(command: str) -> bool:
    """Whether a command is not run here."""
    return any(re.search(pattern, command) for pattern in ELSEWHERE)


def shortened(command: str, pictures: bool = True) -> list[str] | None:
    """The words of a command after `emul` for a few days of a coarse planet and two steps; None where it is not run.

    pictures: whether evaluations draw.
    """
    if is_elsewhere(command):
        return None
    verb, *rest = shlex.split(command)[1:]
    own = [
        word
        for word in rest
        if word.startswith(("experiment=era5", "experiment=first", "data=netcdf", "experiment=lorenz96"))
    ]
    if "--cfg" in rest:
        return [verb, *rest]
    blind = [] if pictures else ["pictures=false" if verb == "eval" else "eval.pictures=false"]
    if verb in ("train", "run", "plan"):
        named = [word.partition("=")[2] for word in rest if word.startswith(("name=", "experiment="))]
        name = named[-1] if named else compose("train", [word for word in rest if not word.startswith("--")]).name
        every = [LATER[word.partition("=")[2]] for word in own if word.partition("=")[2] in LATER]
        kept = [word for word in rest if word.partition("=")[0] not in ("training.steps", "objective.rollout", "data")]
        steps = [f"training.steps={len(shlex.split(command))}"] if "resume=changed" in rest else []
        small = SHORT[1:] if "--dry-run" in rest else SHORT
        tiny = [word for word in rest if word == "data=limited_area"]
        tiny = [*tiny, "data@data.source=planet_tiny"] if tiny else ["data=planet_tiny"]
        tiny = ["data@data.source=planet_tiny"] if "experiment=planet_water" in rest else tiny
        rest = [*kept, *([] if own else tiny), *small, *every, *steps, f"name={name}"]
        rest += blind if verb == "run" else []
        rest = list({word.partition("=")[0] if "=" in word else word: word for word in rest}.values())
    elif verb == "sweep":
        small = [] if "hardware=slurm" in rest else ["hardware=debug"]
        kept = [word for word in rest if not word.startswith("training.steps")]
        rest = [*kept, "data=planet_tiny", *small, *SHORT[1:], *(["hardware.slurm.gpus=0"] if not small else [])]
        rest += blind if "sweep.verb=run" in rest else []
    elif verb == "forecast":
        rest = [word for word in rest if word.partition("=")[0] not in ("init", "lead", "segment")]
        rest += ["lead=24h", "segment=2"]
    elif verb == "eval" and rest[0] != "compare":
        rest += blind
    elif verb == "project":
        rest += ["scenarios.rows=8", "scenarios.members=6", "draws=20"]
    elif verb == "data":
        tiny = {"data=planet": "data=planet_tiny", "members=16": "members=2", "lead=10d": "lead=1d"}
        few = ["hours=[0]", "fields=[surface_pressure]"] if {"climatology", "data=planet"} <= {*rest} else []
        rest = [*(tiny.get(word, word) for word in rest), *few]
    return [verb, *rest]


def python_shortened(text: str) -> str:
    """A block of Python with fewer steps and dates."""
    text = text.replace("training.steps=200", "training.steps=2").replace("2003-02-05/2d", "2003-01-07/2d")
    return text.replace('"2004-03-11", "2d"', '"2001-02-10", "12h"')


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """reader(page): an empty folder to work in, with the parts of one's own that the page shows, in use."""

    def begin(name: str, in_use: bool = True) -> Path:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.setenv("EMUL_CONF", "")
        for block in blocks(PAGES[name]):
            if block.kind == "file":
                path = tmp_path / block.file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text, encoding="utf-8")
                monkeypatch.delitem(sys.modules, path.stem, raising=False)  # of another test's folder
        if in_use and (tmp_path / "my_parts").is_dir():
            monkeypatch.setenv("EMUL_CONF", str(tmp_path / "my_parts"))
        return tmp_path

    return begin


# --- every command composes --------------------------------------------------------------------------------------


def test_the_road_is_shown() -> None:
    verbs = {shlex.split(command)[1] for page, command in EMUL if page == "README"}
    assert {"run", "init", "train", "forecast", "eval", "check"} <= verbs
    assert "make demo" in commands(PAGES["README"])


@pytest.mark.parametrize("name", PAGES)
def test_words_of_the_shell(name: str) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    for command in commands(PAGES[name]):
        first, *rest = shlex.split(command)
        assert first in {"emul", *OTHERS}, command
        if first == "make":
            assert rest[0] in targets


@pytest.mark.parametrize("name", PAGES)
def test_python_is_sound(name: str) -> None:
    for block in blocks(PAGES[name]):
        if block.kind == "python" or block.file.endswith(".py"):
            assert ast.parse(block.text).body, block.text


def marked() -> list:
    """Each command once; those of the README, and those that no test runs, are quick enough for every day."""
    once = {command: name for name, command in reversed(EMUL)}
    quick = {command for name, command in EMUL if name == "README" or is_elsewhere(command)}
    slow = {command: () if command in quick else pytest.mark.slow for command in once}
    return [pytest.param(name, command, marks=slow[command]) for command, name in once.items()]


@pytest.mark.parametrize(("name", "command"), marked())
def test_command_composes(name: str, command: str, reader: Callable[..., Path], monkeypatch, capsys) -> None:
    reader(name)
    for experiment in re.findall(r"^emul init .*name=(\w+)", "\n".join(commands(PAGES[name])), re.M):  # written there
        path = Path("my_parts/experiment", f"{experiment}.yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# @package _global_\nname: {experiment}\n", encoding="utf-8")
        monkeypatch.setenv("EMUL_CONF", str(Path("my_parts").absolute()))
    words = [word for word in shlex.split(command)[1:] if word not in ("--config-dir", "my_parts")]
    word, *arguments = words
    if word.startswith("-"):
        assert main([word]) == 0
        return
    verb, arguments = first_of([word, *arguments])
    assert verb is not None, f"there is no verb {word}"
    if verb.name in LISTS or verb.name in ("completion", "version", "options") or "--help" in arguments:
        assert main([word, *arguments]) == 0
        assert capsys.readouterr().out
    elif verb.composes:
        refuse_early(verb.name, verb.spelled([a for a in arguments if a != "--dry-run"]))
    elif verb.name == "check":
        compose("check", arguments)
    elif verb.name == "data":
        assert arguments[0] in DATA_WORDS
        keys = [
            a for a in arguments[1:] if a.partition("=")[0].partition(".")[0] in ("data", "variables", "experiment")
        ]
        compose("train", [a for a in keys if "=" in a])
    elif verb.name == "new":
        assert arguments[0] in KINDS


def test_commands_are_found_in_shell_blocks() -> None:
    text = "```bash\nmake demo   # all of it\nemul train \\\n  model=unet 'loss=[mse]'\n```\n```python\nemul = 1\n```\n"
    assert commands(text) == ["make demo", "emul train model=unet 'loss=[mse]'"]


def test_the_parts_of_the_tutorial_keep_their_contracts(reader: Callable[..., Path]) -> None:
    folder = reader("tutorials/custom_parts") / "my_parts"
    assert {path.name for path in folder.rglob("*.*")} == {
        "curvature.py", "curvature.yaml", "ring.py", "ring.yaml", "test_parts.py",
    }  # fmt: skip
    check_folder(folder)


# --- every command runs, in a short form -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, text in PAGES.items() if blocks(text)])
@pytest.mark.usefixtures("warm_trials")
def test_page_runs(name: str, reader: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Do what the page says, in order, in one folder; evaluations draw on the first page."""
    folder = reader(name, in_use=False)
    FILES.get(name, lambda folder: None)(folder)
    names: dict = {"__name__": "page"}
    for block in blocks(PAGES[name]):
        follow(block, name == "README", names, monkeypatch, capsys)


def follow(block: Block, pictures: bool, names: dict, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Do one step of a page."""
    if block.kind == "python":
        exec(compile(python_shortened(block.text), "page", "exec"), names)
    elif block.kind == "command":
        first, *rest = shlex.split(block.text)
        if first == "export":
            key, _, value = rest[0].partition("=")
            monkeypatch.setenv(key, value.replace("$PWD", os.getcwd()))
        elif first == "mkdir":
            Path(rest[-1]).mkdir(parents=True, exist_ok=True)
        elif (words := shortened(block.text, pictures)) is not None:
            code = main(words)
            told = capsys.readouterr()
            assert code == 0, f"emul {shlex.join(words)}\n{told.out[-1500:]}\n{told.err[-1500:]}"
    else:
        assert Path(block.file).is_file()  # written before the page began


# --- messages ----------------------------------------------------------------------------------------------------


def source_strings() -> str:
    """Every string of the package, with `…` for what is put into it."""
    found = []
    for folder in ("cli", "emulators", "data_pipelines"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
                elif isinstance(node, ast.JoinedStr):
                    found.append("".join(v.value if isinstance(v, ast.Constant) else "…" for v in node.values))
    return "\n".join(found)


def test_quoted_messages_exist() -> None:
    quoted = re.findall(r"^### `([^`]*)`$", PAGES["troubleshooting"], re.M)
    assert len(quoted) >= 12
    strings = source_strings()
    for message in quoted:
        for piece in (piece.strip(" .;,()'") for piece in message.split("…")):
            assert piece in strings, f"no message has '{piece}'"
