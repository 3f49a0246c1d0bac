"""The entry of `emul`: reads the verb, hands the rest to its file, and says every user error in one sentence.

Only the standard library is imported here, so that help is there at once.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback

from data_pipelines.conventions.suggestions import nearest_name
from emul.config.folders import folders_in_use
from emul.terminal.sentences import sentence
from emul.terminal.verbs import Verb, all_names, explanation, first_of, overview
from emul.trust.remembered import trust

SHARED = ("check", "lists", "training.show")  # modules of several verbs, told which
HELP = ("-h", "--help", "help")
FOLDER = ("--config-dir", "-cd")
TRUST = ("--trust",)


def main(arguments: list[str] | None = None) -> int:
    """The command `emul`; its exit code: 0 done, 2 a fault of the input, 130 stopped by the user, 1 anything else."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        words, trusted = _without_flag(arguments, TRUST)
        words, folders = _without_flag(words, FOLDER)
        trust(trusted)
        folder = folders[-1] if folders else None
        with folders_in_use(folder):
            return _dispatch(words)
    except KeyboardInterrupt:
        _say("Stopped.")
        return 130
    except BrokenPipeError:  # the reader of our output has gone
        sys.stdout = open(os.devnull, "w")
        return 0
    except Exception as error:
        said = sentence(error)
        if os.environ.get("EMUL_TRACEBACK") == "1" or said is None:
            print(_redacted(traceback.format_exc()), end="", file=sys.stderr)
        if said is not None:
            _say(said)
        return 2 if said is not None else 1


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in HELP:
        asked = arguments[1:] if arguments[:1] == ["help"] else []
        print(explanation(_verb(asked)[0]) if asked else overview())
        return 0
    if arguments[0] in ("--version", "-V"):
        arguments = ["version", *arguments[1:]]
    verb, rest = _verb(arguments)
    rest = verb.spelled(rest)
    if any(word in HELP[:2] for word in rest):
        print(explanation(verb))
        return 0
    if verb.name == "version":
        print(_version())
        return 0
    if verb.composes:
        from emul.config.command_line import SHOWING, refuse_early, run_composed

        if any(word.partition("=")[0] in SHOWING for word in rest):
            return run_composed(verb.name, rest, lambda config: None)
        config = refuse_early(verb.name, rest)
        if verb.name in ("train", "run", "plan"):
            from emul.checks.examination import refuse_values

            submitted = config.hardware.slurm is not None or "--dry-run" in rest
            refuse_values(config, here=verb.name != "plan" and not submitted)
    module = importlib.import_module(f"emul.{verb.module}")
    return module.main([verb.name, *rest] if verb.module in SHARED else rest)


def _without_flag(arguments: list[str], flags: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """The arguments without `--flag VALUE` and `--flag=VALUE`, and the values."""
    rest, values, queue = [], [], list(arguments)
    while queue:
        word = queue.pop(0)
        flag, equals, value = word.partition("=")
        if flag not in flags:
            rest.append(word)
        elif equals or queue:
            values.append(value if equals else queue.pop(0))
        else:
            raise ValueError(f"{flag} needs a value: {flag} my_parts.")
    return rest, values


def _verb(words: list[str]) -> tuple[Verb, list[str]]:
    """The verb with which `words` begin, and what follows it."""
    verb, rest = first_of(words)
    if verb is None:
        name = words[0]
        best = nearest_name(name, all_names())
        hint = f"did you mean `emul {best}`?" if best else "`emul --help` lists the verbs."
        raise ValueError(f"There is no verb '{name}'; {hint}")
    return verb, rest


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"emul {version('emul')}"
    except PackageNotFoundError:
        return "emul (not installed; run `pip install -e .`)"


def _say(sentence: str) -> None:
    print(f"emul: {_redacted(sentence)}", file=sys.stderr)


def _redacted(text: str) -> str:
    """The text without the secrets of a configuration; there are none where none was composed."""
    secrets = sys.modules.get("emul.trust.secrets")
    return text if secrets is None else str(secrets.redacted(text))


if __name__ == "__main__":
    sys.exit(main())
