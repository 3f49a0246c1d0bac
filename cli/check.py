"""`emul check`: every fault of a configuration at once, before anything is made, read or trained.

First names and types, from source text alone; then, with the metadata of the data, what the parts say of each other:
variables, levels, splits, the shape a network takes, what losses and constraints need.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from emul.build import faults, part, parts, run_with_hydra, term, terms
from emul.findings import Faults, Finding, nearest
from emul.folders import conf_folder
from emul.overrides import plain_mapping

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr
    from omegaconf import DictConfig
    from torch import nn

    from emulators.world import World

ON_WORLD = ("objective", "loss", "constraint")  # groups whose parts are built on the World
# Models of few demands, offered where another does not fit; what follows the name is for worlds of few rows.
PLAIN: tuple[tuple[str, dict[str, Any]], ...] = (("unet", {"channels": [48]}), ("linear", {"bands": 1}))
ALONE = ("metric", "optimizer", "schedule", "training", "loader", "hardware", "writer")


def main(arguments: list[str]) -> int:
    """Prints the findings and returns 2, or a line of what would be done and returns 0."""
    flags = [word for word in arguments if word.startswith("-")]
    if flags and not {flag.partition("=")[0] for flag in flags} <= {"--config-dir", "-cd"}:
        raise ValueError(f"emul check takes key=value and --config-dir only; got {', '.join(flags)}.")
    from emul.console import show_findings, warn

    try:
        return run_with_hydra("check", arguments, check)
    except Faults as error:
        found = list(error.findings)
        if error.rest is not None:
            found += [finding for finding in findings(error.rest) if finding not in found]
        show_findings(found)
        warn(f"{len(found)} fault{'s' if len(found) > 1 else ''}; nothing was run.")
        return 2


def check(config: DictConfig) -> int:
    """Prints what a sound configuration would do; Faults where it is not sound."""
    from emul.console import plan, warn

    found, facts = _examined(config)
    if found:
        raise Faults(found)
    for sentence in facts.warnings:
        warn(sentence)
    plan(f"{config.name}: no faults", facts.rows)
    return 0


def findings(config: DictConfig) -> list[Finding]:
    """Every fault of a composed configuration."""
    return _examined(config)[0]


def refuse_faults(config: DictConfig) -> None:
    """Raises Faults where there are findings."""
    found = findings(config)
    if found:
        raise Faults(found)


@dataclass
class Facts:
    """What was learnt on the way: rows for the plan, warnings for what is allowed but seldom meant."""

    rows: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def _examined(config: DictConfig) -> tuple[list[Finding], Facts]:
    """Findings of both phases; the second leaves out groups in which the first found something."""
    found, facts = faults(config), Facts()
    faulty = {finding.key.partition(".")[0].partition("[")[0] for finding in found}
    if faulty & {"data", "history"}:
        return found, facts
    source, template = _source(config.data, found)
    if template is None:
        return found, facts
    found += _split_findings(source.splits, template["time"].values, facts)
    wrong = [] if "variables" in faulty else variable_findings(plain_mapping(config.variables), template)
    found += wrong
    if "variables" in faulty or wrong:
        return found, facts
    try:
        world = _world(config, template)
    except (ValueError, KeyError) as error:
        return [*found, _told("variables", "variables that make a world", error)], facts
    facts.rows["world"] = _world_in_words(world)
    if not faulty & {"model", "step"}:
        found += _network_findings(config, world, facts)
    for group in (*ON_WORLD, *ALONE):
        if group not in faulty:
            found += _part_findings(group, config[group], world if group in ON_WORLD else None)
    if not any(finding.key.startswith("constraint") for finding in found):
        found += _order_findings(config, world)
    for group, verb in (("loss", "losses"), ("metric", "metrics")):
        if not config[group]:
            found.append(Finding(group, "at least one part", "none", f"`emul {verb}` lists what there is"))
    faulty = {finding.key.partition(".")[0] for finding in found}
    if not {"training", "loss"} & faulty:
        found += _loss_findings(config, world)
    if not {"model", "step", "objective", "hardware"} & faulty:
        found += _training_findings(config, world)
    if not {"training", "hardware", "objective", "data"} & faulty:
        found += _portion_findings(config)
        found += _length_findings(config, world, source.splits, template["time"].values)
    return found, facts


def _told(key: str, expected: str, error: Exception, fix: str = "") -> Finding:
    """A finding in the words of the part that refused."""
    said = error.args[0] if isinstance(error, KeyError) and error.args else error
    if not isinstance(error, ValueError | KeyError | OSError | ImportError):  # not meant for a reader
        said = f"{type(error).__name__}: {error}"
    return Finding(key, expected, " ".join(str(said).split()).rstrip("."), fix, said=True)


# --- data --------------------------------------------------------------------------------------------------------


def _source(node: Any, found: list[Finding]) -> tuple[Any, xr.Dataset | None]:
    """The data source and its template; a finding is added where either cannot be had."""
    try:
        source = part(node)
        template = source.template()
        if "time" in template.dims:
            return source, template
        found.append(Finding("data", "fields at several times", f"{[*template.data_vars]} without any"))
    except (ValueError, OSError, KeyError) as error:
        key = "data.path" if isinstance(error, FileNotFoundError) and "path" in node else "data"
        found.append(_told(key, "data that can be opened", error))
    except ImportError as error:
        found.append(_told("data", f"the package {error.name}", error))
    return None, None


def _split_findings(splits: Mapping[str, Any], times: np.ndarray, facts: Facts) -> list[Finding]:
    """Splits that are no periods, lie outside the data, or hold nothing; overlaps are warnings."""
    import numpy as np

    from data_pipelines.archive import bounds

    times = times.astype("datetime64[s]")
    first, last = times.min(), times.max()
    slack = max(np.timedelta64(1, "D"), *np.diff(times[:2]))
    span = f"{first} to {last}"
    found, periods = [], {}
    for name, period in splits.items():
        key = f"data.splits.{name}"
        try:
            start, end = periods[name] = bounds(period)
        except ValueError as error:
            found.append(_told(key, "a period [start, end]", error))
            continue
        inside = int(((times >= start) & (times <= end)).sum())
        got = f"{period[0]} to {period[1]}"
        if not inside:
            found.append(Finding(key, f"times of the data, {span}", f"{got}, which holds none"))
        elif start < first - slack or end > last + slack:
            found.append(Finding(key, f"a period within {span}", got, "shorten it"))
        facts.rows[name] = f"{got}, {inside} times"
    for name in ("validation", "test"):
        if name in periods and "train" in periods:
            (a, b), (c, d) = periods["train"], periods[name]
            if a <= d and c <= b:
                facts.warnings.append(f"data.splits.{name} overlaps data.splits.train: its scores will flatter.")
    missing = [name for name in ("train", "validation", "test") if name not in splits]
    return found + [Finding(f"data.splits.{name}", "a period [start, end]", "nothing", "add it") for name in missing]


def variable_findings(roles: Mapping[str, Any], template: xr.Dataset) -> list[Finding]:
    """Entries of the roles that the data do not hold and that cannot be computed."""
    from data_pipelines import forcings

    if roles.get("prognostic") is None and "roles" in template.attrs:  # as stored
        return []
    computed = {"forcing": forcings.MOVING, "static": forcings.FIXED}
    found = []
    for role in ("prognostic", "forcing", "diagnostic", "static"):
        for index, entry in enumerate(roles.get(role) or ()):
            finding = _entry_finding(f"variables.{role}[{index}]", entry, template, computed.get(role, ()))
            if finding:
                found.append(finding)
    if not roles.get("prognostic"):
        found.append(Finding("variables.prognostic", "at least one variable", "none", "list what is to be predicted"))
    return found


def _entry_finding(key: str, entry: Any, template: xr.Dataset, computed: Iterable[str]) -> Finding | None:
    name, levels = (entry, None) if isinstance(entry, str) else next(iter(dict(entry).items()))
    known = [*map(str, template.data_vars), *computed]
    if name not in known:
        best = nearest(str(name), known)
        fix = f"write {best}" if best else f"there is {', '.join(known[:20])}"
        return Finding(key, "a variable of the data" + (" or a computed one" if computed else ""), str(name), fix)
    if not levels:
        return None
    if name not in template.data_vars or "level" not in template[name].dims:
        return Finding(key, f"{name} alone, which has no levels", f"levels {levels}", f"write {name}")
    there = [float(level) for level in template["level"].values]
    absent = [level for level in levels if float(level) not in there]
    if absent:
        closest = [f"{min(there, key=lambda other: abs(other - float(level))):g}" for level in absent]
        listed = ", ".join(f"{level:g}" for level in there)
        got = ", ".join(f"{float(level):g}" for level in absent)
        return Finding(key, f"levels of {name}: {listed}", got, f"write {', '.join(closest)}")
    return None


# --- parts -------------------------------------------------------------------------------------------------------


def _world(config: DictConfig, template: xr.Dataset) -> World:
    """The World of a template, with scales of 0 and 1, which no shape depends on."""
    from data_pipelines.worlds import world
    from emulators.world import Scale

    made = world(template, part(config.variables), history=config.history)
    sets = (made.prognostic, made.diagnostic, made.forcing, made.static)
    return replace(made, scales={channel: Scale(0.0, 1.0, 1.0) for one in sets for channel in one.channels})


def template_world(config: DictConfig) -> World:
    """The World a configuration describes, from metadata alone; ValueError where it describes none."""
    return _world(config, part(config.data).template())


def _world_in_words(world: World) -> str:
    from data_pipelines.worlds import duration_text

    channels = f"{world.input_channels} channels in, {world.output_channels} out"
    return f"{world.grid}, every {duration_text(world.timestep)}, {channels}"


def network_on_meta(node: Any, world: World) -> nn.Module:
    """A network without numbers: shapes and parameter counts only. ValueError where it does not fit the World."""
    import torch

    try:
        with torch.device("meta"):
            return part(node, world).to("meta")
    except (RuntimeError, NotImplementedError, TypeError):  # tables made in numpy need a real device
        return part(node, world).to("meta")


def parameter_count(network: nn.Module) -> int:
    """Trainable numbers of a network; a complex one counts two."""
    return sum(p.numel() * (2 if p.is_complex() else 1) for p in network.parameters() if p.requires_grad)


def _fitting(world: World) -> str:
    """A fix in words: the plain models that fit a world which another does not."""
    fit = []
    for name, narrow in PLAIN:
        for keys in ({}, narrow):
            node = OmegaConf.load(conf_folder() / "model" / f"{name}.yaml")
            node.update(keys)
            try:
                network_on_meta(node, world)
            except Exception:  # a part may refuse in any way
                continue
            words = [f"'model.{key}={value}'".replace(" ", "") for key, value in keys.items()]
            fit.append(" ".join([f"model={name}", *words]))
            break
    return f"what fits: {', or '.join(fit)}" if fit else ""


def _network_findings(config: DictConfig, world: World, facts: Facts) -> list[Finding]:
    import torch

    try:
        network = network_on_meta(config.model, world)
    except Exception as error:  # a part may refuse in any way
        return [_told("model", "a model that fits this world", error, _fitting(world))]
    facts.rows["model"] = f"{config.model._target_.rpartition('.')[2]}, {parameter_count(network):,} parameters"
    fields = torch.empty(1, world.input_channels, *world.grid.shape, device="meta")
    try:
        with torch.no_grad():
            shape = tuple(network(fields, torch.empty(1, dtype=torch.int64, device="meta")).shape)
    except ValueError as error:
        return [_told("model", "a model that fits this world", error)]
    except Exception:  # what cannot run without numbers is seen at the first step
        shape = (1, world.output_channels, *world.grid.shape)
    expected = (1, world.output_channels, *world.grid.shape)
    if shape != expected:
        return [Finding("model", f"an output of shape {expected}", str(shape))]
    try:
        part(config.step, world, network, {})
    except (ValueError, KeyError) as error:
        return [_told("step", "a step that fits this world", error)]
    return []


def _order_findings(config: DictConfig, world: World) -> list[Finding]:
    """A constraint that would break what an earlier one has put right."""
    from emulators.step import refuse_disorder

    try:
        refuse_disorder(parts(config.constraint, world))
    except ValueError as error:
        return [_told("constraint", "an order in which every law holds in the end", error)]
    return []


def _portion_findings(config: DictConfig) -> list[Finding]:
    """A batch that the devices and passes cannot share evenly."""
    hardware = part(config.hardware)
    try:
        part(config.training).portion(hardware.devices * hardware.nodes)
    except ValueError as error:
        return [_told("training.batch_size", "a batch that divides evenly", error)]
    return []


def _loss_findings(config: DictConfig, world: World) -> list[Finding]:
    """Steps at which no loss counts."""
    from emulators.terms import refuse_gaps

    try:
        refuse_gaps(terms(config.loss, world), config.training.steps)
    except ValueError as error:
        return [_told("loss", "a loss at every step", error)]
    return []


def _training_findings(config: DictConfig, world: World) -> list[Finding]:
    """A network that the objective cannot train, as it is laid out."""
    step = part(config.step, world, network_on_meta(config.model, world), {})
    objective = part(config.objective, world)
    try:
        if hasattr(objective, "begin"):
            objective.begin(step)
    except ValueError as error:
        told = ", ".join(_told_the_interval())
        fix = f"told it are {told}; or take objective=forecast" if "not told the interval" in str(error) else ""
        return [_told("objective", "a network that can be trained so", error, fix)]
    if hasattr(objective, "follow") and config.hardware.strategy == "fsdp":
        fix = "take hardware=ddp, or another objective"
        return [Finding("hardware.strategy", "whole networks, of which the objective keeps copies", "fsdp", fix)]
    return []


def _told_the_interval() -> list[str]:
    """The models whose networks are told the interval of a step."""
    from inspect import signature

    from hydra.utils import get_class

    found = []
    for file in sorted((conf_folder() / "model").glob("*.yaml")):
        node: Any = OmegaConf.load(file)
        network: Any = get_class(node.get("model", node)._target_)
        if "interval" in signature(network.forward).parameters:
            found.append(file.stem)
    return found


def _length_findings(config: DictConfig, world: World, splits: Mapping[str, Any], times: np.ndarray) -> list[Finding]:
    """Splits that are shorter than one example."""
    from data_pipelines.archive import bounds

    found = []
    lengths = {"train": part(config.objective, world).longest, "validation": config.training.validation_lead}
    for name, rollout in lengths.items():
        start, end = bounds(splits[name])
        held, needed = int(((times >= start) & (times <= end)).sum()), world.history + rollout
        if held < needed:
            expected = f"at least {needed} times, {world.history} known and {rollout} forecast"
            found.append(Finding(f"data.splits.{name}", expected, f"{held}", "lengthen it, or shorten the rollout"))
    return found


def _part_findings(group: str, node: Any, world: World | None) -> list[Finding]:
    """Builds the part, or the named parts, of a group."""
    if node is None:
        return []
    args = () if world is None else (world,)
    nodes = {group: node} if "_target_" in node else {f"{group}.{name}": one for name, one in node.items()}
    found, build = [], term if group == "loss" else part
    for key, one in nodes.items():
        try:
            build(one, *args)
        except ImportError as error:
            found.append(_told(key, f"the package {error.name}", error))
        except Exception as error:  # a part may refuse in any way
            found.append(_told(key, "a part that can be built", error))
    return found
