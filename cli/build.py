"""The one door between configuration and parts: compose it, find its faults, build what it names.

`_target_` and the signature it points to are the schema; nothing is imported to look for faults.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from emul.declared import partless, strangers
from emul.findings import Faults, Finding, nearest
from emul.folders import conf_folder
from emul.overrides import diagnosed, key_of, plain_mapping
from emul.signatures import tree_faults, wrapping

PRIMARY = {"run": "train", "check": "train", "plan": "train"}  # verbs that read the configuration of another
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


def compose(verb: str, overrides: Sequence[str] = (), folder: str | Path | None = None) -> DictConfig:
    """The resolved configuration of a verb, for use inside a process; Faults names all that cannot be composed.

    folder: a further folder of options, laid beside ours.
    """
    with _composer(verb, folder) as composer:
        try:
            return resolved(composer(list(overrides)), overrides)
        except (HydraException, OmegaConfBaseException):
            return resolved(composer(diagnosed(composer, list(overrides))), overrides)


def swept(verb: str, overrides: Sequence[str]) -> list[str]:
    """What a configuration itself gives several values, hydra.sweeper.params, as words: `model=sfno,unet`."""
    with _composer(verb) as composer:
        composer(list(overrides))
        chosen = HydraConfig.get().sweeper.get("params") or {}
        return [f"{key}={value}" for key, value in chosen.items()]


@contextmanager
def _composer(verb: str, folder: str | Path | None = None) -> Iterator[Callable[[list[str]], DictConfig]]:
    """A function from overrides to the configuration of one verb; Hydra's global state is left as it was found."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    before, outer = HydraConfig.instance().cfg, GlobalHydra.instance().hydra
    beside = [] if folder is None else [f"hydra.searchpath=[file://{Path(folder).resolve()}]"]

    def composed(overrides: list[str]) -> DictConfig:
        config = hydra.compose(PRIMARY.get(verb, verb), [*beside, *overrides], return_hydra_config=True)
        HydraConfig.instance().set_config(config)  # for ${hydra:...}
        plain = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        OmegaConf.set_struct(plain, True)
        return plain

    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
            yield composed
    finally:
        HydraConfig.instance().cfg, GlobalHydra.instance().hydra = before, outer


def resolved(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The same configuration with every `${...}` replaced by its value; Faults where one leads nowhere.

    What an experiment says of a part that its list has no more, as under constraint=[], goes with the part; what the
    overrides say of it stays, and is a fault.
    """
    given = [key_of(text) for text in overrides]
    for finding in partless(plain_mapping(config)):
        group, _, name = finding.key.partition(".")
        if not any(key.startswith(f"{finding.key}.") for key in given):
            with open_dict(config[group]):
                del config[group][name]
    try:
        OmegaConf.resolve(config)
    except OmegaConfBaseException as error:
        key, said = str(error.full_key or "a key"), str(error).splitlines()[0]
        raise Faults([Finding(key, "an interpolation that leads somewhere", said)]) from error
    return config


def part(node: Any, *args: Any, **kwargs: Any) -> Any:
    """The object a node names, built with `args` first and the node's keys after; errors are the part's own."""
    from hydra.utils import instantiate

    try:
        return instantiate(node, *args, _convert_="all", **kwargs)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, Exception):
            raise cause from None
        raise ValueError(str(error).replace("\nfull_key:", " At key")) from error


def parts(nodes: Mapping[str, Any] | None, *args: Any) -> dict[str, Any]:
    """The objects of a mapping of nodes, by name, in order."""
    return {str(name): part(node, *args) for name, node in (nodes or {}).items()}


def term(node: Mapping[str, Any], *args: Any) -> Any:
    """The loss a node names, with the weight and the steps at which it counts."""
    from emulators.terms import Term

    shared = [parameter.name for parameter in wrapping("loss")]
    own = {name: value for name, value in node.items() if name not in shared}
    return Term(part(OmegaConf.create(own), *args), **{name: node[name] for name in shared if name in node})


def terms(nodes: Mapping[str, Any] | None, *args: Any) -> dict[str, Any]:
    """The losses of a mapping of nodes, by name, in order."""
    return {str(name): term(node, *args) for name, node in (nodes or {}).items()}


def faults(config: DictConfig) -> list[Finding]:
    """Every fault of names and types in a configuration: keys against signatures, values against annotations."""
    plain = plain_mapping(config)
    return [*strangers(plain), *partless(plain), *tree_faults(plain)]


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
            best = nearest(name.lstrip("-"), [flag.lstrip("-") for flag in FLAGS if flag.startswith("--")])
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
    """Raises Faults for every fault of names and types on a command line, before anything slow is imported."""
    overrides, flags = _split([word for word in arguments if word != "--dry-run"])  # which is the verb's own
    if {"--config-name", "-cn", "--config-path", "-cp"} & {flag.partition("=")[0] for flag in flags}:
        return  # composed from files that are not ours
    if {"--multirun", "-m"} & set(flags):
        overrides = [_first_of_sweep(text) for text in overrides]
    ours = [text for text in overrides if not key_of(text).startswith("hydra")]
    found = faults(compose(verb, ours, _folder_beside(flags)))
    if found:
        raise Faults(found)


def _folder_beside(flags: list[str]) -> str | None:
    """The folder that `--config-dir` names."""
    for flag, following in zip(flags, [*flags[1:], ""], strict=False):
        name, _, value = flag.partition("=")
        if name in ("--config-dir", "-cd"):
            return value or following
    return None
