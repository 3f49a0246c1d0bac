"""The entry of `emul`: reads the verb, hands the rest to its file, and says every user error in one sentence.

Only the standard library is imported here, so that help is there at once.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
import traceback

from data_pipelines.conventions.suggestions import nearest_name, sentence
from data_pipelines.options.folders import folders_in_use
from data_pipelines.options.trust import redacted, trust
from emul.terminal.verbs import DATA_WORDS, Verb, all_names, explanation, first_of, of_data, overview

SHARED = ("check", "lists", "training.show")  # modules of several verbs, which take the verb as an argument
HELP = ("-h", "--help", "help")
FOLDER = ("--config-dir", "-cd")
TRUST = ("--trust",)


def command() -> int:
    """Run `main` as a process, without collecting garbage while it imports and when it ends, a second each."""
    gc.disable()
    code = main()
    gc.freeze()
    return code


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
        message = sentence(error)
        if os.environ.get("EMUL_TRACEBACK") == "1" or message is None:
            print(redacted(traceback.format_exc()), end="", file=sys.stderr)
        if message is not None:
            _say(message)
        return 2 if message is not None else 1


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in HELP:
        words = arguments[1:] if arguments[:1] == ["help"] else []
        print(_explained(*_verb(words)) if words else overview())
        return 0
    if arguments[0] in ("--version", "-V"):
        arguments = ["version", *arguments[1:]]
    verb, rest = _verb(arguments)
    rest = verb.spelled(rest)
    if any(word in HELP[:2] for word in rest):
        print(_explained(verb, rest))
        return 0
    if verb.name == "version":
        print(_version())
        return 0
    if verb.composes:
        from emul.config.compose import SHOWING, refuse_early, run_composed

        if any(word.partition("=")[0] in SHOWING for word in rest):
            return run_composed(verb.name, rest, lambda config: None)
        config = refuse_early(verb.name, rest)
        if verb.name in ("train", "run", "plan"):
            from emul.checks.examination import refuse_values

            submitted = config.hardware.slurm is not None or "--dry-run" in rest
            refuse_values(config, here=verb.name != "plan" and not submitted)
    module = importlib.import_module(f"emul.{verb.module}")
    gc.enable()
    code: int = module.main([verb.name, *rest] if verb.module in SHARED else rest)
    word = of_data(rest[0]) if verb.name == "data" else verb
    if code == 0 and (command := word.next_command(rest[verb.name == "data" :])):
        from emul.terminal.console import next_command

        next_command(command)
    return code


def _explained(verb: Verb, rest: list[str]) -> str:
    """The help of a verb, or of the word of `emul data` that follows it."""
    word = next((word for word in rest if word in DATA_WORDS), None) if verb.name == "data" else None
    return explanation(verb if word is None else of_data(word))


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
    text = "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in sentence)
    print(f"emul: {redacted(text)}", file=sys.stderr)  # no control characters of a file reach the terminal


if __name__ == "__main__":
    sys.exit(command())
