"""The verbs of the command `emul` and their help, read from verbs.toml."""

from __future__ import annotations

import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Rows = list[list[str]]


@dataclass(frozen=True)
class Verb:
    """Hold one verb, as verbs.toml describes it."""

    name: str
    module: str
    summary: str
    usage: str = ""
    keys: Any = ()
    more: Any = ()
    examples: Any = ()
    note: str = ""
    composes: bool = False
    stand_ins: Any = ()
    follows: str = ""

    def spelled(self, arguments: list[str]) -> list[str]:
        """The arguments with the stand-ins in place of the keys that they stand for."""
        for key, full_key in self.stand_ins:
            arguments = [
                f"{full_key}{word.removeprefix(key)}" if word.startswith(f"{key}=") else word for word in arguments
            ]
        return with_seeds(arguments) if self.name == "forecast" else arguments

    def next_command(self, arguments: list[str]) -> str:
        """The command that follows, with these arguments in it; empty where there is none, or the module says it."""
        data_words = [word for word in arguments if word.startswith("data")]
        return self.follows.format(words=shlex.join(arguments), data=shlex.join(data_words)).rstrip()


def with_seeds(arguments: list[str]) -> list[str]:
    """Write run=[a,b,c] as the first run and `seeds`, the others; the name is that of the first and their count."""
    run_word = next((word for word in arguments if word.startswith("run=[") and word.endswith("]")), None)
    if run_word is None:
        return arguments
    runs = [run.strip().strip("'\"") for run in run_word[len("run=[") : -1].split(",") if run.strip()]
    if len(runs) < 2:
        raise ValueError(f"run: expected a folder, or several in a list; got {run_word[len('run=') :]}.")
    has_name = any(word.startswith("name=") for word in arguments)
    rest = [word for word in arguments if word != run_word]
    name = [] if has_name else [f"name={Path(runs[0]).name}_{len(runs)}_seeds"]
    return [f"run={runs[0]}", f"seeds=[{','.join(runs[1:])}]", *name, *rest]


TEXTS: dict[str, Any] = tomllib.loads(Path(__file__).with_name("verbs.toml").read_text(encoding="utf-8"))
VERBS = tuple(Verb(**row) for row in TEXTS["verbs"])
LISTS: dict[str, str] = TEXTS["lists"]  # plural -> group of conf/: the verbs that list what there is
DATA_WORDS = tuple(next(verb for verb in VERBS if verb.name == "data").usage.split(">")[0].lstrip("<").split("|"))


DATA_KEYS: dict[str, Rows] = TEXTS["data_keys"]


def of_data(word: str) -> Verb:
    """One word of `emul data` as a verb; its examples are those of `emul data` with that word."""
    texts = next(row for row in TEXTS["data"] if row["name"] == word)
    shared = [row for name in texts["takes"] for row in DATA_KEYS[name]]
    data_verb = next(verb for verb in VERBS if verb.name == "data")
    examples = [row for row in data_verb.examples if row[0].startswith(f"emul data {word} ")]
    keys, more = texts.get("keys", ()), [*shared, *texts.get("more", ())]
    follows = texts.get("follows", "")
    return Verb(
        f"data {word}", "data.arguments", texts["summary"], "[key=value ...]", keys, more, examples, follows=follows
    )


def all_names() -> list[str]:
    """Every verb, lists included."""
    return [verb.name for verb in VERBS] + list(LISTS)


def find(name: str) -> Verb | None:
    """The verb of that name; a list's verb is made on the spot."""
    for verb in VERBS:
        if verb.name == name:
            return verb
    if name not in LISTS:
        return None
    examples = [[f"emul {name}", f"every option of `{LISTS[name]}=`"]]
    if name == "models":
        examples += [["emul models sfno", "describe one"], ["emul models data=netcdf ...", "sizes on other data"]]
    follows = "" if name == "models" else f"emul options {LISTS[name]}"  # of models: lists.py says it
    return Verb(name, "lists", f"List what there is for `{LISTS[name]}=`.", examples=examples, follows=follows)


def first_of(words: list[str]) -> tuple[Verb | None, list[str]]:
    """The verb, of two words or of one, with which a command begins, and the words after it."""
    double = find(" ".join(words[:2])) if len(words) > 1 else None
    return (double, words[2:]) if double else (find(words[0]) if words else None, words[1:])


def overview() -> str:
    """The text of `emul --help`."""
    lines = [
        "emul - train, forecast with, and verify machine-learning emulators of weather and climate",
        "",
        "Usage: emul <verb> [key=value ...]",
        "",
        *_columns([[verb.name, verb.summary] for verb in VERBS]),
        "",
        "What there is to choose from:",
        *_wrapped(list(LISTS)),
        "",
        "Examples:",
        *_columns(TEXTS["overview"]["examples"]),
        "",
        "`emul <verb> --help` explains a verb. Everything lands in outputs/<verb>/<name>.",
        "Set EMUL_TRACEBACK=1 to see where an error comes from.",
    ]
    return "\n".join(lines)


def explanation(verb: Verb) -> str:
    """The text of `emul <verb> --help`."""
    lines = [f"emul {verb.name} - {verb.summary}", "", f"Usage: emul {verb.name} {verb.usage}".rstrip()]
    keys_verb = find(verb.keys) if isinstance(verb.keys, str) else verb
    main = "Main keys" if verb.composes else "Keys"
    if keys_verb and keys_verb.keys:
        lines += ["", f"{main}, with their defaults:", *_columns(keys_verb.keys)]
    if keys_verb and keys_verb.more:
        lines += ["", f"{main} without a default, with an example:", *_columns(keys_verb.more)]
    if verb.composes:
        lines += [
            "",
            f"Every key, its value and what it is: `emul {verb.name} --cfg job`; of all verbs: `emul options`.",
        ]
    lines += ["", "Examples:", *_columns(verb.examples)]
    if verb.note:
        lines += ["", verb.note]
    if verb.composes:
        lines += ["", "Flags:", *_columns(TEXTS["flags"]["rows"])]
    return "\n".join(lines)


LONGEST = 46  # characters of the left column; what is longer has a line of its own


def _columns(rows: Rows) -> list[str]:
    width = max((len(left) for left, _ in rows if len(left) <= LONGEST), default=0) + 2
    lines = []
    for left, right in rows:
        lines += [f"  {left:<{width}}{right}"] if len(left) <= LONGEST else [f"  {left}", f"  {'':<{width}}{right}"]
    return [line.rstrip() for line in lines]


def _wrapped(words: list[str], width: int = 96) -> list[str]:
    lines = ["  " + words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) + 2 > width:
            lines.append("  " + word)
        else:
            lines[-1] += f", {word}"
    return lines
