"""The one door between configuration and parts: compose it, find its faults, build what it names.

`_target_` and the signature it points to are the schema; nothing is imported to look for faults.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from emul.config.signatures import wrapping


def build(node: Any, *args: Any, **kwargs: Any) -> Any:
    """The object a node names, built with `args` first and the node's keys after; errors are the part's own."""
    from hydra.utils import instantiate

    try:
        return instantiate(node, *args, _convert_="all", **kwargs)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, Exception):
            raise cause from None
        raise ValueError(str(error).replace("\nfull_key:", " At key")) from error


def build_all(nodes: Mapping[str, Any] | None, *args: Any) -> dict[str, Any]:
    """The objects of a mapping of nodes, by name, in order."""
    return {str(name): build(node, *args) for name, node in (nodes or {}).items()}


def build_loss_term(node: Mapping[str, Any], *args: Any) -> Any:
    """The loss a node names, with the weight and the steps at which it counts."""
    from emulators.training.loss_terms import Term

    shared = [parameter.name for parameter in wrapping("loss")]
    own = {name: value for name, value in node.items() if name not in shared}
    return Term(build(OmegaConf.create(own), *args), **{name: node[name] for name in shared if name in node})


def build_loss_terms(nodes: Mapping[str, Any] | None, *args: Any) -> dict[str, Any]:
    """The losses of a mapping of nodes, by name, in order."""
    return {str(name): build_loss_term(node, *args) for name, node in (nodes or {}).items()}
