"""Compose the configuration of a verb with Hydra, for use inside a process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from emul.config.declared_keys import partless
from emul.config.folders import conf_folder
from emul.config.overrides import diagnosed, key_of, plain_mapping
from emul.terminal.findings import ConfigErrors, Finding

PRIMARY = {"run": "train", "check": "train", "plan": "train"}  # verbs that read the configuration of another


def compose(verb: str, overrides: Sequence[str] = (), folder: str | Path | None = None) -> DictConfig:
    """The resolved configuration of a verb, for use inside a process; ConfigErrors names all that cannot be composed.

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
    """The same configuration with every `${...}` replaced by its value; ConfigErrors where one leads nowhere.

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
        raise ConfigErrors([Finding(key, "an interpolation that leads somewhere", said)]) from error
    return config
