"""Run a verb on the configuration that its command line describes, once or for each job of a sweep."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from data_pipelines.conventions.suggestions import nearest_name
from emul.config.compose import PRIMARY, _composer, compose, resolved
from emul.config.declared_keys import faults
from emul.config.folders import conf_folder
from emul.config.overrides import diagnosed, key_of
from emul.terminal.findings import ConfigErrors

BARE_LIST = re.compile(r"^((?:\w+\.)*init)=([^\[{('\"]*,.*)$")  # initial times in a row are a list, not a sweep


# What Hydra would do by itself and a run does not want: log files, copies of the configuration, dated folders.
QUIET = {
    "hydra/job_logging": "none",
    "hydra/hydra_logging": "none",
    "hydra.output_subdir": "null",
    "hydra.run.dir": ".",
    "hydra.sweep.dir": "${oc.select:output,outputs}/sweep",
    "hydra.sweep.subdir": ".",
}


# Hydra's flags, and what may follow each: nothing, one of these words, or anything (True).
FLAGS: dict[str, bool | tuple[str, ...]] = {
    **dict.fromkeys(("--cfg", "-c", "--package", "-p", "--config-dir", "-cd", "--config-name", "-cn"), True),
    **dict.fromkeys(("--config-path", "-cp", "--experimental-rerun"), True),
    **dict.fromkeys(("--info", "-i"), ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")),
    **dict.fromkeys(("--resolve", "--run", "-r", "--multirun", "-m", "--hydra-help", "--help", "-h"), False),
}


def run_with_hydra(verb: str, arguments: list[str], task: Callable[[DictConfig], Any]) -> int:
    """Composes a verb's configuration from the command line and runs `task` on it, once or, with --multirun, often.

    Returns the exit code: the task's own where it returns a number, else 0. sys.argv is whole again inside the task,
    for launchers that start the same command anew in other processes.
    """
    overrides, flags = _split(arguments)
    try:
        return _run(verb, overrides, flags, task)
    except (HydraException, OmegaConfBaseException) as error:
        swept = {"--multirun", "-m"} & set(flags)
        single = [_first_of_sweep(text) for text in overrides] if swept else overrides
        with _composer(verb, _folder_beside(flags)) as composer:
            amended = diagnosed(composer, single)
        if amended == single:
            raise ValueError(str(error).splitlines()[0]) from error
    pairs = zip(overrides, single, amended, strict=True)
    return _run(verb, [text if a == s else f"++{text.lstrip('+')}" for text, s, a in pairs], flags, task)


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Overrides on one side, Hydra's flags with their values on the other; ValueError for a flag Hydra lacks."""
    overrides: list[str] = []
    flags: list[str] = []
    queue = list(arguments)
    while queue:
        word = queue.pop(0)
        name = word.partition("=")[0]
        if not word.startswith("-"):
            overrides.append(BARE_LIST.sub(r"\1=[\2]", word))
            continue
        if name not in FLAGS:
            best = nearest_name(name.lstrip("-"), [flag.lstrip("-") for flag in FLAGS if flag.startswith("--")])
            hint = f"--{best} or " if best else ""
            raise ValueError(f"No flag {name} here: keys are set as key=value; write {hint}{name.lstrip('-')}=... .")
        flags.append(word)
        takes = FLAGS[name]
        if "=" not in word and queue and (takes is True or (takes and queue[0] in takes)):
            flags.append(queue.pop(0))
    return overrides, flags


def _first_of_sweep(override: str) -> str:
    """The first of the values a sweep override stands for; other overrides as they are."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_override(override)
    if not parsed.is_sweep_override():
        return override
    return f"{override.partition('=')[0]}={next(iter(parsed.sweep_string_iterator()))}"


def _run(verb: str, overrides: list[str], flags: list[str], task: Callable[[DictConfig], Any]) -> int:
    """Hands Hydra the tail of the command line; errors of the task come out as they were raised."""
    import hydra

    whole, outcome = list(sys.argv), []
    failures: list[BaseException] = []

    def job(config: DictConfig) -> None:
        mine = HydraConfig.get()
        if mine.mode == RunMode.MULTIRUN:
            jobs_own = [text for text in mine.overrides.task if text not in overrides]
            if "name" in config and not any(key_of(text) == "name" for text in mine.overrides.task):
                config.name = "_".join([str(config.name), *(short(text) for text in jobs_own)])
            sys.argv = [whole[0], verb, *mine.overrides.task, f"++name={config.get('name')}"]
            outcome.append(task(resolved(config, mine.overrides.task)))
            return
        sys.argv = list(whole)
        try:
            outcome.append(task(resolved(config, overrides)))
        except Exception as error:  # kept from Hydra, which would print its own account of it
            failures.append(error)

    given = {key_of(text) for text in overrides}
    quiet = [f"{key}={value}" for key, value in QUIET.items() if key not in given]
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors are raised, not printed
    sys.argv = [whole[0], *overrides, *quiet, *flags]
    try:
        hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=PRIMARY.get(verb, verb))(job)()
    finally:
        sys.argv = whole
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
    if failures:
        raise failures[0]
    return max((code for code in outcome if isinstance(code, int)), default=0)


def short(override: str) -> str:
    """An override as a piece of a run's name: `optimizer.lr=0.001` becomes `lr0.001`."""
    value = re.sub(r"[^A-Za-z0-9.+-]+", "-", override.partition("=")[2]).strip("-")
    return f"{key_of(override).rpartition('.')[2]}{value}"


def refuse_early(verb: str, arguments: list[str]) -> None:
    """Raises ConfigErrors for every fault of names and types on a command line, before anything slow is imported."""
    overrides, flags = _split([word for word in arguments if word != "--dry-run"])  # which is the verb's own
    if {"--config-name", "-cn", "--config-path", "-cp"} & {flag.partition("=")[0] for flag in flags}:
        return  # composed from files that are not ours
    if {"--multirun", "-m"} & set(flags):
        overrides = [_first_of_sweep(text) for text in overrides]
    ours = [text for text in overrides if not key_of(text).startswith("hydra")]
    found = faults(compose(verb, ours, _folder_beside(flags)))
    if found:
        raise ConfigErrors(found)


def _folder_beside(flags: list[str]) -> str | None:
    """The folder that `--config-dir` names."""
    for flag, following in zip(flags, [*flags[1:], ""], strict=False):
        name, _, value = flag.partition("=")
        if name in ("--config-dir", "-cd"):
            return value or following
    return None
