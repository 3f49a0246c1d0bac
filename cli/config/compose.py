"""Compose the configuration of a verb with Hydra: defaults, then the saved values of a run, options, command line."""

from __future__ import annotations

import re
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

from emul.config.build import refuse_untrusted
from emul.config.declared_keys import settings_without_part
from emul.config.folders import conf_folder, groups, use_folders, use_saved_folders, user_folders
from emul.config.overrides import diagnosed, key_of, plain_mapping
from emul.config.places import located, run_name
from emul.terminal.findings import ConfigErrors, Finding
from emul.trust.saved import read_saved, remember_settings, texts
from emul.trust.secrets import resolve
from emul.trust.targets import targets

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
    chosen = [text for text in overrides if key_of(text) in {"run", *groups()}]
    try:
        config = composed(chosen) if any(key_of(text) == "run" for text in chosen) else None
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
    use_saved_folders(saved.get("config_dir"))
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
    """Replace every `${...}` by its value in place, but those of the environment (`emul.trust.secrets`).

    Raises ConfigErrors where one cannot be resolved, and for parts that are not trusted.

    Settings of a part that is no longer chosen (constraint=[]) are dropped, unless the overrides themselves give them:
    that is an error.
    """
    given = [key_of(text) for text in overrides]
    for finding in settings_without_part(plain_mapping(config)):
        group, _, name = finding.key.partition(".")
        if not any(key.startswith(f"{finding.key}.") for key in given):
            with open_dict(config[group]):
                del config[group][name]
    refuse_resolvers(plain_mapping(config))
    try:
        resolve(config)
    except OmegaConfBaseException as error:
        key, said = str(error.full_key or "a key"), str(error).splitlines()[0]
        raise ConfigErrors([Finding(key, "an interpolation that leads somewhere", said)]) from error
    refuse_untrusted(config)
    remember_settings(config)
    return config


def refuse_resolvers(plain: dict[str, Any]) -> None:
    """Raise ConfigErrors for `${name:...}` with another resolver than those of RESOLVERS: it could run anything."""
    found = [
        Finding(key, f"a resolver of {', '.join(sorted(RESOLVERS))}", text)
        for key, text in texts(plain)
        if "${${" in text or set(re.findall(r"\$\{\s*([\w.]+)\s*:", text)) - RESOLVERS
    ]
    if found:
        raise ConfigErrors(found)


def _refuse_hooks(hydra: DictConfig) -> None:
    """Raise ConfigErrors for code that the node `hydra` names, such as callbacks: it is not checked as parts are."""
    plain = OmegaConf.to_container(hydra, resolve=False)
    own = "hydra._internal.core_plugins."
    found = [
        Finding(f"hydra.{key}", "no part of the node hydra", str(target), "leave it out")
        for key, target in targets(plain)
        if not str(target).startswith(own)
    ]
    found += [
        Finding(f"hydra.{key}", "no factory", text)
        for key, text in texts(plain)
        if key.rpartition(".")[2] == "()" or (text.startswith("ext://") and text not in STREAMS)
    ]
    if found:
        raise ConfigErrors(found)
