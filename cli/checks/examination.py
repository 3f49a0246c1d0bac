"""Examine a configuration: collect every finding about its data and parts before anything runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from emul.checks.data import Facts, open_source, split_findings, variable_findings
from emul.checks.memory import memory_findings
from emul.checks.networks import world_from_template
from emul.checks.parts import (
    absent_gpu,
    batch_findings,
    describe_world,
    interval_findings,
    length_findings,
    loss_findings,
    network_findings,
    order_findings,
    part_findings,
    training_findings,
)
from emul.config.build import untrusted
from emul.config.declared_keys import faults
from emul.config.overrides import plain_mapping
from emul.terminal.console import console
from emul.terminal.findings import ConfigErrors, Finding, refusal

if TYPE_CHECKING:
    from omegaconf import DictConfig


ON_WORLD = ("objective", "loss", "constraint")  # groups whose parts are built on the World
ALONE = ("metric", "optimizer", "schedule", "training", "loader", "hardware", "writer")


def findings(config: DictConfig) -> list[Finding]:
    """Return every fault of a composed configuration."""
    return examine(config)[0]


def value_findings(config: DictConfig) -> list[Finding]:
    """Return the faults that show without the data: names, types, and values of parts that need no World."""
    if found := untrusted(config):  # before any part is built
        return found
    found = faults(config)
    for group in ALONE:
        if group not in _groups(found):
            found += part_findings(group, config[group], None)
    if not {"training", "hardware"} & _groups(found):
        found += batch_findings(config)
    return found


def _groups(found: Iterable[Finding]) -> set[str]:
    """The groups that have a finding."""
    return {finding.key.partition(".")[0].partition("[")[0] for finding in found}


def refuse_values(config: DictConfig, here: bool) -> None:
    """Raise ConfigErrors for faults that show without the data. here: a missing GPU is one."""
    found = value_findings(config) or (absent_gpu(config) if here else [])
    if found:
        raise ConfigErrors(found)


def refuse_faults(config: DictConfig) -> None:
    """Raise ConfigErrors where there are findings; those that need no data come first and alone."""
    refuse_values(config, here=False)
    console(stderr=True).print("Looking at the data ...", style="quiet")
    found = findings(config)
    if found:
        raise ConfigErrors(found)


def examine(config: DictConfig) -> tuple[list[Finding], Facts]:
    """Check names and types, then what data and parts need of each other, where the first found no fault."""
    found, facts = untrusted(config), Facts()
    if found:  # before any part is built
        return found, facts
    found = value_findings(config)
    faulty = _groups(found)
    if faulty & {"data", "history"}:
        return found, facts
    source, template = open_source(config.data, found)
    if template is None:
        return found, facts
    found += split_findings(source.splits, template["time"].values, facts)
    wrong = [] if "variables" in faulty else variable_findings(plain_mapping(config.variables), template)
    found += wrong
    if "variables" in faulty or wrong:
        return found, facts
    try:
        world = world_from_template(config, template)
    except (ValueError, KeyError) as error:
        return [*found, refusal("variables", "variables that make a world", error)], facts
    facts.rows["world"] = describe_world(world)
    if not faulty & {"model", "step"}:
        found += network_findings(config, world, facts)
    for group in ON_WORLD:
        if group not in faulty:
            found += part_findings(group, config[group], world)
    if not any(finding.key.startswith("constraint") for finding in found):
        found += order_findings(config, world)
    for group, verb in (("loss", "losses"), ("metric", "metrics")):
        if not config[group]:
            found.append(Finding(group, "at least one part", "none", f"`emul {verb}` lists what there is"))
    faulty = _groups(found)
    if not {"training", "loss"} & faulty:
        found += loss_findings(config, world)
    if not {"model", "step", "objective", "hardware"} & faulty:
        found += training_findings(config, world)
    if not {"objective", "constraint", "loss"} & faulty:
        found += interval_findings(config, world)
    if not {"training", "hardware", "objective", "data", "loader"} & faulty:
        found += length_findings(config, world, source.splits, template["time"].values)
        if facts.network is not None and "training" not in _groups(found):
            found += memory_findings(config, world, facts.network)
    return found, facts
