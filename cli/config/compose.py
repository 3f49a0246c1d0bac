"""Compose the configuration of a verb with Hydra (defaults, then the saved values of a run, options, command line), and
run the verb on it, once or, with --multirun, for each combination of values.
"""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from data_pipelines.conventions.suggestions import ConfigErrors, Finding, nearest_name
from data_pipelines.files.identity import digest, located
from data_pipelines.options.documentation import with_comments
from data_pipelines.options.folders import (
    conf_folder,
    groups,
    key_of,
    options_of,
    remember_folders,
    run_name,
    use_folders,
    use_saved_folders,
    user_folders,
)
from data_pipelines.options.keys import known_keys
from data_pipelines.options.signatures import settings_without_part
from data_pipelines.options.trust import targets, texts
from emul.config.build import refuse_untrusted
from emul.config.overrides import diagnosed, listed
from emul.config.saved import config_faults, plain_mapping, read_saved, remember_settings, resolve, saved_plain

PRIMARY = {"run": "train", "check": "train", "plan": "train"}  # verbs that read the configuration of another
RESOLVERS = {"hydra", "now", "oc.env", "oc.decode", "oc.select", "oc.create", "oc.dict.keys", "oc.dict.values"}
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")  # of Hydra's own loggers
SAVED = "saved"  # group of the layer that holds a run's values: `optional saved: run` in a list of defaults
BARE_MAPPING = re.compile(r"^((?:\w+\.)*(?:regions|fields|baselines))=(\{.*\})$", re.DOTALL)  # for a list of one
Composer = Callable[[list[str]], DictConfig]


def compose(verb: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Return the resolved configuration of a verb. Raises ConfigErrors that name every fault of the overrides.

    With `run=<folder>` the values of that run's config.yaml replace the defaults of `forecast` and `eval`.
    """
    words = [BARE_MAPPING.sub(r"\1=[\2]", word) for word in overrides]
    with composer(verb, words) as composed:
        try:
            return resolved(composed(words), words)
        except (HydraException, OmegaConfBaseException):
            return resolved(composed(diagnosed(verb, composed, words)), words)


@contextmanager
def composer(verb: str, overrides: Sequence[str] = ()) -> Iterator[Composer]:
    """Yield a function from overrides to the unresolved configuration of a verb, and restore Hydra's global state."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    before, outer = HydraConfig.instance().cfg, GlobalHydra.instance().hydra
    use_folders()

    def composed(words: list[str]) -> DictConfig:
        config = hydra.compose(PRIMARY.get(verb, verb), [search_path(), *words], return_hydra_config=True)
        _refuse_hooks(config.hydra)
        HydraConfig.instance().set_config(config)  # for ${hydra:...}
        plain = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        OmegaConf.set_struct(plain, True)
        return plain

    GlobalHydra.instance().clear()
    try:
        with (
            hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"),
            saved_values(verb, overrides, composed),
        ):
            yield composed
    finally:
        HydraConfig.instance().cfg, GlobalHydra.instance().hydra = before, outer


def search_path() -> str:
    """The override that adds the user's folders to Hydra's search path."""
    places = (f"file://{folder}".replace("'", "\\'") for folder in user_folders())
    return "hydra.searchpath=[" + ",".join(f"'{place}'" for place in places) + "]"


@contextmanager
def saved_values(verb: str, overrides: Sequence[str], composed: Composer) -> Iterator[None]:
    """Offer Hydra the values of the run that `run=` names as the layer `saved/run`."""
    choices = [text for text in overrides if key_of(text) in {"run", *groups()}]
    try:
        config = composed(choices) if any(key_of(text) == "run" for text in choices) else None
    except (HydraException, OmegaConfBaseException):  # reported when the whole is composed
        config = None
    layer = None if config is None else _layer(verb, config, [key_of(text) for text in overrides])
    if layer is None:
        yield
        return
    store = ConfigStore.instance()
    store.store(group=SAVED, name="run", node=layer, package="_global_")
    try:
        yield
    finally:
        del store.repo[SAVED]


def _layer(verb: str, config: DictConfig, given: Sequence[str]) -> dict[str, Any] | None:
    """Values of a run's config.yaml for the verb, without groups that `config`, composed without it, has chosen."""
    file = Path(str(config.run)) / "config.yaml"
    if OmegaConf.is_missing(config, "run") or config.run is None or not file.is_file():
        return None
    saved = plain_mapping(read_saved(file, given))
    use_saved_folders(saved)
    options = _options(verb)
    layer = {
        "name": run_name(file.parent, config.output),
        **{key: value for key, value in (saved.get(verb) or {}).items() if key in options},
    }
    layer |= {group: saved[group] for group in ("data", "metric") if config.get(group) == {} and saved.get(group)}
    if "data" in layer:
        places = saved.get("places") or {}
        layer["data"] = located(layer["data"], places, file.parent, places.get("run"))
    if config.get("hardware"):  # chosen on the command line: it says which device
        layer.pop("device", None)
    return layer


@cache
def _options(verb: str) -> frozenset[str]:
    """Names of the options that a run may set for a verb; not `output` or `name`, which say where results go."""
    file = conf_folder() / verb / "default.yaml"
    return frozenset(map(str, OmegaConf.load(file))) - {"output", "name"} if file.is_file() else frozenset()


def declared_sweep(verb: str, overrides: Sequence[str]) -> list[str]:
    """Return the sweep that a configuration itself declares as hydra.sweeper.params, as overrides."""
    with composer(verb) as composed:
        composed(list(overrides))
        declared = HydraConfig.get().sweeper.get("params") or {}
        return [f"{key}={value}" for key, value in declared.items()]


def resolved(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Replace every `${...}` by its value in place, but those of the environment (`emul.config.saved`).

    Raises ConfigErrors where one cannot be resolved, and for parts that are not trusted.

    Settings of a part that is no longer chosen (constraint=[]) are dropped, unless the overrides themselves give them:
    that is an error.
    """
    keys = [key_of(text) for text in overrides]
    for finding in settings_without_part(plain_mapping(config)):
        group, _, name = finding.key.partition(".")
        if not any(key.startswith(f"{finding.key}.") for key in keys):
            with open_dict(config[group]):
                del config[group][name]
    refuse_resolvers(plain_mapping(config))
    try:
        resolve(config)
    except OmegaConfBaseException as error:
        key, reason = str(error.full_key or "a key"), str(error).splitlines()[0]
        raise ConfigErrors([Finding(key, "an interpolation that leads somewhere", reason)]) from error
    refuse_untrusted(config)
    remember_settings(config)
    remember_folders(plain_mapping(config))
    return config


def refuse_resolvers(plain: dict[str, Any]) -> None:
    """Raise ConfigErrors for `${name:...}` with another resolver than those of RESOLVERS: it could run anything."""
    faults = [
        Finding(key, f"a resolver of {', '.join(sorted(RESOLVERS))}", text)
        for key, text in texts(plain)
        if "${${" in text or set(re.findall(r"\$\{\s*([\w.]+)\s*:", text)) - RESOLVERS
    ]
    if faults:
        raise ConfigErrors(faults)


def _refuse_hooks(hydra: DictConfig) -> None:
    """Raise ConfigErrors for code that the node `hydra` names, such as callbacks: it is not checked as parts are."""
    plain = OmegaConf.to_container(hydra, resolve=False)
    prefix = "hydra._internal.core_plugins."
    faults = [
        Finding(f"hydra.{key}", "no part of the node hydra", str(target), "leave it out")
        for key, target in targets(plain)
        if not str(target).startswith(prefix)
    ]
    faults += [
        Finding(f"hydra.{key}", "no factory", text)
        for key, text in texts(plain)
        if key.rpartition(".")[2] == "()" or (text.startswith("ext://") and text not in STREAMS)
    ]
    if faults:
        raise ConfigErrors(faults)


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
        config = _checked.pop((verb, *overrides), None)
        return _exit_code(task(compose(verb, overrides) if config is None else config))
    argv, codes = list(sys.argv), [0]
    taken: dict[str, str] = {}
    try:
        for words in combinations(verb, overrides):
            config = compose(verb, words)
            if "name" in config and not any(key_of(text) == "name" for text in words):
                varied = [text for text in words if text not in overrides]
                base = [str(config.name)] if config.name else []
                config.name = distinct_name("_".join([*base, *map(name_piece, varied)]), varied, taken)
            sys.argv = [argv[0], verb, *words, f"++name={config.get('name')}"]
            codes.append(_exit_code(task(config)))
    finally:
        sys.argv = argv
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
    flag = nearest_name(name, [option.lstrip("-") for option in FLAGS if option.startswith("--")])
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
    given_keys = {key_of(text) for text in overrides}
    first = [values_of(text)[0] for text in overrides]
    declared = [text for text in declared_sweep(verb, first) if key_of(text) not in given_keys]
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
    words_digest = digest(sorted(words))
    if taken.setdefault(name, words_digest) != words_digest:
        name = f"{name}-{words_digest[:6]}"
        taken[name] = words_digest
    return name


_checked: dict[tuple[str, ...], DictConfig] = {}  # by verb and overrides: what `refuse_early` has composed already


def refuse_early(verb: str, arguments: list[str]) -> DictConfig:
    """Return the first configuration of a command line, before anything slow is imported.

    Raises ConfigErrors for every fault of names and types, with --multirun for those of each combination.
    """
    _checked.clear()
    overrides, flags = _split(verb, [word for word in arguments if word != "--dry-run"])  # which is the verb's own
    several = bool({"--multirun", "-m"} & set(flags))
    configs = []
    for words in itertools.islice(combinations(verb, overrides), MOST_CHECKED) if several else [overrides]:
        configs.append(compose(verb, words))
        faults = config_faults(configs[-1])
        if faults:
            raise ConfigErrors(faults)
    if not several:
        _checked[verb, *overrides] = configs[0]
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
        selected = OmegaConf.select(config, package) if package else config
        text = OmegaConf.to_yaml(selected)
        commented = text if package else with_comments(text, PRIMARY.get(verb, verb))
        print(commented if _is_yaml_of(commented, selected) else text, end="")
        return
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    argv, before = list(sys.argv), os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors are raised, not printed
    sys.argv = [argv[0], search_path(), *overrides, *flags]
    try:
        with composer(verb, overrides) as composed:
            composed(overrides)  # refuses what Hydra would run
            GlobalHydra.instance().clear()
            primary = PRIMARY.get(verb, verb)
            hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=primary)(lambda config: None)()
    finally:
        sys.argv = argv
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
