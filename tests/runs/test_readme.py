"""Every command in README.md is one that works: its verb exists, its keys compose, and the cheap ones run."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from emul.config.command_line import refuse_early
from emul.config.compose import compose
from emul.contracts import check_folder
from emul.main import main
from emul.new import KINDS
from emul.terminal.verbs import DATA_WORDS, LISTS, first_of
from places import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8") if (ROOT / "README.md").is_file() else ""


def commands(text: str) -> list[str]:
    """The commands of the fenced shell blocks; lines that end in a backslash are joined, comments left out."""
    found = []
    for block in re.findall(r"^```(?:bash|sh|shell|console)\n(.*?)^```", text, re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            command = shlex.join(shlex.split(line, comments=True)).removeprefix("'$' ").strip()
            if command:
                found.append(command)
    return found


COMMANDS = commands(README)
EMUL = [c for c in COMMANDS if shlex.split(c)[0].rpartition("/")[2] == "emul"]
MAKE = [c for c in COMMANDS if shlex.split(c)[0] == "make"]


@pytest.fixture(autouse=True)
def own_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of one's own parts that the README shows, in use."""
    folder = tmp_path / "my_parts"
    for name, text in re.findall(r"^```(?:python|yaml)\n# my_parts/([\w/.]+)[^\n]*\n(.*?)^```", README, re.M | re.S):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    monkeypatch.setenv("EMUL_CONF", str(folder))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "curvature", raising=False)  # of another test's folder, which is not trusted here
    return folder


def test_the_parts_of_the_readme_keep_their_contracts(own_parts: Path) -> None:
    assert {path.name for path in own_parts.rglob("*.*")} == {"curvature.py", "curvature.yaml", "test_parts.py"}
    check_folder(own_parts)


def test_readme_shows_the_road() -> None:
    verbs = {shlex.split(command)[1] for command in EMUL}
    assert {"train", "forecast", "eval", "check"} <= verbs
    assert "make demo" in COMMANDS


@pytest.mark.parametrize("command", MAKE)
def test_make(command: str) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert shlex.split(command)[1] in targets


@pytest.mark.parametrize("command", EMUL)
def test_emul(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, *arguments = shlex.split(command)[1:]
    if name.startswith("-"):
        assert main([name]) == 0
        return
    verb, arguments = first_of([name, *arguments])
    assert verb is not None, f"there is no verb {name}"
    if verb.name in LISTS or verb.name in ("completion", "version") or "--help" in arguments:
        assert main([name, *arguments]) == 0
        assert capsys.readouterr().out
    elif verb.composes:
        refuse_early(name, verb.spelled(arguments))
    elif verb.name == "check":
        compose("check", arguments)
    elif verb.name == "data":
        assert arguments[0] in DATA_WORDS
        keys = [a for a in arguments[1:] if a.partition("=")[0].partition(".")[0] in ("data", "variables")]
        compose("train", [a for a in keys if "=" in a])
    elif verb.name == "new":
        assert arguments[0] in KINDS


def test_commands_are_found_in_shell_blocks() -> None:
    text = "```bash\nmake demo   # all of it\nemul train \\\n  model=unet 'loss=[mse]'\n```\n```python\nemul = 1\n```\n"
    assert commands(text) == ["make demo", "emul train model=unet 'loss=[mse]'"]
