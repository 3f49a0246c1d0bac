"""Build the parts that a configuration names: `_target_` and the signature it points to are the schema.

`resolve_target` is the one place where a name in a configuration becomes code, and only names that are trusted do.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import partial
from operator import attrgetter
from types import ModuleType
from typing import Any

from omegaconf import OmegaConf

from data_pipelines.conventions.suggestions import ConfigErrors, Finding
from data_pipelines.options.folders import installed_packages, part_targets, user_folders
from data_pipelines.options.signatures import HYDRA_KEYS, wrapping
from data_pipelines.options.trust import Trusted, finding, hidden, targets, trusted


def resolve_target(target: str) -> Any:
    """Import the class or function at a dotted path. Raises ValueError where there is none, or it is not trusted."""
    allowed = _trusted()
    if why := allowed.refusal(target):
        raise ConfigErrors([finding("_target_", target, why)])
    imported = _imported(target)
    if allowed.foreign(target, imported):
        raise ConfigErrors([finding("_target_", target, "is only imported there")])
    return imported


def target_module(target: str) -> ModuleType:
    """Import the module of a part. Raises ValueError as `resolve_target` does."""
    resolve_target(target)
    return importlib.import_module(target.rpartition(".")[0])


def untrusted(node: Any) -> list[Finding]:
    """Find every `_target_` of a configuration, at every depth, that is not trusted. Imports nothing."""
    plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    allowed = _trusted()
    return [finding(key, value, why) for key, value in targets(plain) if (why := allowed.refusal(value))]


def refuse_untrusted(node: Any) -> None:
    """Raise ConfigErrors where a configuration names parts that are not trusted."""
    if faults := untrusted(node):
        raise ConfigErrors(faults)


def _trusted() -> Trusted:
    return trusted(part_targets(), user_folders(), installed_packages())


def _imported(target: str) -> Any:
    names = target.split(".")
    for count in range(len(names) - 1, 0, -1):
        module = ".".join(names[:count])
        try:
            imported = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise  # the module exists and imports a package that does not
            continue
        try:
            return attrgetter(".".join(names[count:]))(imported)
        except AttributeError:
            raise ValueError(f"_target_: {target}: {module} has no {'.'.join(names[count:])}.") from None
    raise ValueError(f"_target_: {target} cannot be imported; give its folder with --config-dir or EMUL_CONF.")


def build(node: Any, *args: Any, **kwargs: Any) -> Any:
    """Build the object that a node names, from `args` first and the node's keys after; nested nodes are built first."""
    plain = OmegaConf.to_container(node, resolve=True, throw_on_missing=True) if OmegaConf.is_config(node) else node
    refuse_untrusted(plain)
    if faults := hidden(plain):
        raise ConfigErrors(faults)
    return _build(plain, *args, **kwargs)


def _build(plain: Any, *args: Any, **kwargs: Any) -> Any:
    if not isinstance(plain, dict) or "_target_" not in plain:
        return _built(plain)
    target = resolve_target(str(plain["_target_"]))
    values = {str(name): _built(value) for name, value in plain.items() if name not in HYDRA_KEYS} | kwargs
    args = (*args, *_built(plain.get("_args_", [])))
    return partial(target, *args, **values) if plain.get("_partial_") else target(*args, **values)


def _built(value: Any) -> Any:
    """The same plain value, with the nodes in it replaced by what they name."""
    if isinstance(value, list):
        return [_built(item) for item in value]
    if isinstance(value, dict):
        return _build(value) if "_target_" in value else {key: _built(item) for key, item in value.items()}
    return value


def build_all(nodes: Mapping[str, Any] | None, *args: Any) -> dict[str, Any]:
    """Build the objects of a mapping of nodes, by name, in order."""
    return {str(name): build(node, *args) for name, node in (nodes or {}).items()}


def build_network(config: Mapping[str, Any], world: Any) -> Any:
    """Build the network of a configuration, scaled by width and moved by noise where it chooses so."""
    from emulators.layers.noise import condition

    network = build(config["model"], world)
    if config.get("parametrisation"):
        network = _parametrised(network, config, world)
    return condition(network, build(config["noise"], world)) if config.get("noise") else network


def _parametrised(network: Any, config: Mapping[str, Any], world: Any) -> Any:
    """Scale first weights and learning rates of a network by its width over that of a base of the same draws."""
    import torch

    rule = build(config["parametrisation"])
    model = config["model"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.get("seed", 0))
        return rule.apply(network, model, lambda sizes: build({**model, **sizes}, world))


def build_loss_term(node: Mapping[str, Any], *args: Any) -> Any:
    """Build the loss that a node names, with the weight and the steps at which it counts."""
    from emulators.training.plan import Term

    shared = [parameter.name for parameter in wrapping("loss")]
    loss_node = {name: value for name, value in node.items() if name not in shared}
    return Term(build(loss_node, *args), **{name: node[name] for name in shared if name in node})


def build_loss_terms(nodes: Mapping[str, Any] | None, *args: Any) -> dict[str, Any]:
    """Build the losses of a mapping of nodes, by name, in order."""
    return {str(name): build_loss_term(node, *args) for name, node in (nodes or {}).items()}


def sampler_of(config: Mapping[str, Any], world: Any) -> dict[str, Any]:
    """The sampler of a Step that takes one, by its keyword; a training without any has none."""
    return {"sampler": build(config["sampler"], world)} if config.get("sampler") else {}


def part_paths(config: Mapping[str, Any]) -> dict[str, str]:
    """The folders of the trained runs that a step holds, by name."""
    return {str(name): str(path) for name, path in (config.get("parts") or {}).items() if path}
