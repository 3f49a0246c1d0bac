"""Run a verb on the configuration that its command line describes, once or, with --multirun, for each combination."""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from data_pipelines.conventions.suggestions import nearest_name
from data_pipelines.files.identity import digest
from emul.config.compose import PRIMARY, compose, composer, declared_sweep, search_path
from emul.config.declared_keys import faults
from emul.config.folders import conf_folder, options_of
from emul.config.options import with_comments
from emul.config.overrides import key_of, known_keys, listed, plain_mapping
from emul.terminal.findings import ConfigErrors
from emul.trust.secrets import saved_plain

LONGEST_PIECE = 40  # characters of a value in a name
MOST_CHECKED = 64  # combinations of --multirun that are checked before the first runs
BARE_LIST = re.compile(r"^((?:\w+\.)*init)=([^\[{('\"]*,.*)$")  # initial times in a row are a list, not a sweep

# Flags, and what may follow each: nothing, one of these words, or anything (True).
FLAGS: dict[str, bool | tuple[str, ...]] = {
    **dict.fromkeys(("--cfg", "-c", "--package", "-p"), True),
    **dict.fromkeys(("--info", "-i"), ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")),
    **dict.fromkeys(("--resolve", "--multirun", "-m", "--hydra-help"), False),
}
SHOWING = {"--cfg", "-c", "--info", "-i", "--hydra-help"}  # these flags print something and run nothing


def run_composed(verb: str, arguments: list[str], task: Callable[[DictConfig], Any]) -> int:
    """Compose a verb's configuration and run `task` on it, once or, with --multirun, for each combination of values.

    Returns the exit code: the largest number that the task returned, else 0. With --multirun, sys.argv is the command
    of each job while it runs, for launchers that start the same command again in other processes.
    """
    overrides, flags = _split(verb, arguments)
    names = {flag.partition("=")[0] for flag in flags}
    if names & SHOWING:
        _show(verb, overrides, flags)
        return 0
    if not names & {"--multirun", "-m"}:
        return _exit_code(task(compose(verb, overrides)))
    whole, codes = list(sys.argv), [0]
    taken: dict[str, str] = {}
    try:
        for words in combinations(verb, overrides):
            config = compose(verb, words)
            if "name" in config and not any(key_of(text) == "name" for text in words):
                varied = [text for text in words if text not in overrides]
                base = [str(config.name)] if config.name else []
                config.name = distinct_name("_".join([*base, *map(name_piece, varied)]), varied, taken)
            sys.argv = [whole[0], verb, *words, f"++name={config.get('name')}"]
            codes.append(_exit_code(task(config)))
    finally:
        sys.argv = whole
    return max(codes)


def _exit_code(returned: Any) -> int:
    return returned if isinstance(returned, int) else 0


def _split(verb: str, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate overrides from flags with their values. Raises ValueError for an unknown flag."""
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
            raise ValueError(f"No flag {name} here: keys are set as key=value; {_instead_of(verb, word, queue)}.")
        flags.append(word)
        takes = FLAGS[name]
        if "=" not in word and queue and (takes is True or (takes and queue[0] in takes)):
            flags.append(queue.pop(0))
    return overrides, flags


def _instead_of(verb: str, word: str, following: Sequence[str]) -> str:
    """Suggest the flag or the assignment that an unknown flag stands for."""
    name, equals, value = word.lstrip("-").partition("=")
    flag = nearest_name(name, [known.lstrip("-") for known in FLAGS if known.startswith("--")])
    key = nearest_name(name.replace("-", "_"), known_keys(plain_mapping(compose(verb))))
    if not equals and following and not re.search("^-|=", following[0]):
        value = following[0]
    suggestions = [*([f"--{flag}"] if flag else []), *([f"{key}={value or '...'}"] if key else [])]
    return f"write {' or '.join(suggestions)}" if suggestions else listed(verb)


def _value_of(flags: Sequence[str], *names: str) -> str | None:
    """The value of a flag, written `--flag value` or `--flag=value`."""
    for flag, following in zip(flags, [*flags[1:], ""], strict=False):
        name, _, value = flag.partition("=")
        if name in names:
            return value or following
    return None


def values_of(override: str) -> list[str]:
    """The values that an override such as `model=sfno,unet` or `seed=range(4)` stands for, each as an override."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Glob, IntervalSweep

    parsed = OverridesParser.create().parse_override(override)
    if not parsed.is_sweep_override():
        return [override]
    key, values = override.partition("=")[0], parsed.value()
    if isinstance(values, IntervalSweep):
        raise ValueError(f"{override} is an interval, from which `emul sweep` draws; give values here.")
    if isinstance(values, Glob):
        return [f"{key}={name}" for name in values.filter(options_of(key_of(override)))]
    return [f"{key}={value}" for value in parsed.sweep_string_iterator()]


def combinations(verb: str, overrides: Sequence[str]) -> Iterator[list[str]]:
    """Every combination of values of the overrides and of the sweep that the configuration itself declares."""
    given = {key_of(text) for text in overrides}
    first = [values_of(text)[0] for text in overrides]
    declared = [text for text in declared_sweep(verb, first) if key_of(text) not in given]
    for words in itertools.product(*map(values_of, [*overrides, *declared])):
        yield list(words)


def name_piece(override: str) -> str:
    """An override as a piece of a run's name: `optimizer.lr=0.001` becomes `lr0.001`, `data.forcing=-8` `forcing-8`."""
    value = override.partition("=")[2]
    piece = re.sub(r"[^A-Za-z0-9.+-]+", "-", value.strip())
    piece = piece.strip("-") if not re.match(r"-[0-9.]", piece) else piece.rstrip("-")
    piece = piece if len(piece) <= LONGEST_PIECE else f"{piece[:LONGEST_PIECE]}-{digest(value)[:6]}"
    return f"{key_of(override).rpartition('.')[2]}{piece}"


def distinct_name(name: str, words: Sequence[str], taken: dict[str, str]) -> str:
    """The name of a run of several, with a digest of its words where another run of other words has the name.

    taken: the digests of words by name; the run is added.
    """
    own = digest(sorted(words))
    if taken.setdefault(name, own) != own:
        name = f"{name}-{own[:6]}"
        taken[name] = own
    return name


def refuse_early(verb: str, arguments: list[str]) -> DictConfig:
    """Return the first configuration of a command line, before anything slow is imported.

    Raises ConfigErrors for every fault of names and types, with --multirun for those of each combination.
    """
    overrides, flags = _split(verb, [word for word in arguments if word != "--dry-run"])  # which is the verb's own
    several = bool({"--multirun", "-m"} & set(flags))
    configs = []
    for words in itertools.islice(combinations(verb, overrides), MOST_CHECKED) if several else [overrides]:
        configs.append(compose(verb, words))
        found = faults(configs[-1])
        if found:
            raise ConfigErrors(found)
    return configs[0]


def _is_yaml_of(text: str, config: DictConfig) -> bool:
    """Whether a text with comments still reads as a configuration; not where a long value spans several lines."""
    try:
        return bool(OmegaConf.create(text) == config)
    except YAMLError:
        return False


def _show(verb: str, overrides: list[str], flags: list[str]) -> None:
    """Print the composed configuration, or what Hydra says of how it came about."""
    if _value_of(flags, "--cfg", "-c") == "job":
        config, package = compose(verb, overrides), _value_of(flags, "--package", "-p")
        config = OmegaConf.create(saved_plain(config))
        shown = OmegaConf.select(config, package) if package else config
        text = OmegaConf.to_yaml(shown)
        commented = text if package else with_comments(text, PRIMARY.get(verb, verb))
        print(commented if _is_yaml_of(commented, shown) else text, end="")
        return
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    whole, before = list(sys.argv), os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors are raised, not printed
    sys.argv = [whole[0], search_path(), *overrides, *flags]
    try:
        with composer(verb, overrides) as composed:
            composed(overrides)  # refuses what Hydra would run
            GlobalHydra.instance().clear()
            primary = PRIMARY.get(verb, verb)
            hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=primary)(lambda config: None)()
    finally:
        sys.argv = whole
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
