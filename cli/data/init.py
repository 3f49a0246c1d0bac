"""`emul init DATA`: look at data and write an experiment for them, with variables, splits, model and size for here.

On a terminal it asks, and Enter takes what is proposed; elsewhere it takes what the arguments say. The result is an
ordinary experiment, `<folder>/experiment/<name>.yaml`, every key with a comment, in which `emul check` finds no fault.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from omegaconf import OmegaConf
from rich.markup import escape

from data_pipelines.conventions.dialects import variable_hint
from data_pipelines.conventions.suggestions import ConfigErrors, nearest_name, suggestion
from data_pipelines.files.atomic import write_text
from data_pipelines.files.identity import name_fault
from data_pipelines.inspection.proposals import (
    entry_names,
    experiment_name,
    experiment_text,
    group_and_place,
    proposal_summary,
    split_size,
)
from data_pipelines.options.folders import folder_words, options_of, use_folders, user_folders
from emul.checks.examination import examine
from emul.checks.networks import propose_model, world_from_template
from emul.config.compose import compose
from emul.config.overrides import assignment
from emul.config.settings import read_settings
from emul.data.arguments import paths_and_rest, prepared_source
from emul.terminal.console import console, next_command, show_rows

if TYPE_CHECKING:
    import xarray as xr

    from data_pipelines.inspection.proposals import Proposal


@dataclass(frozen=True)
class InitSettings:
    """Hold the settings of `emul init`.

    name: of the experiment and its results. folder: of your own options; null: that of --config-dir or EMUL_CONF, else
    my_parts. predict: prognostic variables. model: an option of `emul models`. hours: that a training may take here.
    """

    name: str | None = None
    folder: str | None = None
    predict: list[str] | None = None
    model: str | None = None
    hours: float = 1.0


def main(arguments: list[str]) -> int:
    """Run `emul init` on the words after it; exit code 2 where the experiment has faults that data.* keys may mend."""
    settings, rest = read_settings(InitSettings, arguments)
    paths, others = paths_and_rest(rest)
    for word in others:
        if not word.startswith("data.") or word.startswith("data.path="):
            accepted = "name=, folder=, predict=[...], model=, hours= and data.KEY=value"
            raise ValueError(f"emul init takes the place of the data, {accepted}; got {word}.")
    if settings.hours <= 0:
        raise ValueError(f"hours: expected the time that a training may take, above 0; got {settings.hours:g}.")
    if settings.model is not None and settings.model not in options_of("model"):
        raise ValueError(f"There is no model '{settings.model}'; {suggestion(settings.model, options_of('model'))}")
    paths = paths or [_asked("Where are the data (a file, a folder, a pattern, a Zarr store or its address)?", "")]
    if not paths[0]:
        raise ValueError("Expected where the data are; write emul init era5/, or another folder, file or store.")
    folder = Path(settings.folder) if settings.folder else next(iter(user_folders()), Path("my_parts"))
    if settings.name:
        _free(folder, settings.name)
    return _init(paths, others, settings, folder)


def _init(paths: list[str], overrides: list[str], settings: InitSettings, folder: Path) -> int:
    from data_pipelines.inspection.proposals import propose

    group, place = group_and_place(paths)
    keys = {key: value for key, _, value in (word.removeprefix("data.").partition("=") for word in overrides)}
    console().print("Looking at the data ...", style="quiet")
    data_words = [f"data={group}", assignment("data.path", place) if isinstance(place, str) else f"data.path={place}"]
    source, config = prepared_source([*data_words, "variables.prognostic=[]", *overrides])
    template = source.template()
    on_gpu = _has_gpu()
    _refuse_absent(settings.predict, template)
    proposal = propose(template, settings.predict, few_levels=not on_gpu)
    show_rows("Data", proposal_summary(template, proposal))
    proposal = _agreed_variables(proposal, template, settings, on_gpu)
    OmegaConf.update(config, "variables", {"_target_": "data_pipelines.batches.world.VariableRoles", **proposal.roles})
    world = world_from_template(config, template)
    model = propose_model(
        config, world, split_size(template, proposal, "train"), settings.model, settings.hours, on_gpu
    )
    if settings.model is None:
        answer = _agreed("Model?", model.name, lambda name: "" if name in options_of("model") else _no_model(name))
        if answer != model.name:
            model = propose_model(
                config, world, split_size(template, proposal, "train"), answer, settings.hours, on_gpu
            )
    name = settings.name or _agreed(
        "Name of the experiment?", experiment_name(place, model.name), lambda n: _taken(folder, n)
    )
    _free(folder, name)
    file = folder / "experiment" / f"{name}.yaml"
    source_keys = {"path": place, **{k: yaml.safe_load(v) for k, v in keys.items()}}
    write_text(file, experiment_text(name, group, source_keys, template, proposal, model, folder))
    console().print(f"wrote [key]{escape(str(file))}[/]", soft_wrap=True)
    return _checked(folder, name, on_gpu)


def _checked(folder: Path, name: str, on_gpu: bool) -> int:
    """Check the experiment as `emul check` does, and say what follows."""
    conf_words = folder_words(folder)
    use_folders([folder])
    faults, facts = examine(compose("train", [f"experiment={name}"]))
    if faults:
        raise ConfigErrors(faults)
    show_rows("Checked: no faults", facts.rows)
    hardware = ["hardware=gpu"] if on_gpu else []
    next_command(shlex.join(["emul", "run", *conf_words, f"experiment={name}", *hardware]))
    return 0


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _agreed_variables(proposal: Proposal, template: xr.Dataset, settings: InitSettings, on_gpu: bool) -> Proposal:
    """The proposal, with the prognostic variables that the user names instead."""
    from data_pipelines.inspection.proposals import propose

    if settings.predict is not None:
        return proposal
    proposed = ",".join(entry_names(proposal.roles["prognostic"]))

    def fault(answer: str) -> str:
        absent = [name for name in answer.split(",") if name.strip() not in template.data_vars]
        return f"No variable '{absent[0]}'; {variable_hint(absent[0], template.data_vars)}" if absent else ""

    answer = _agreed("Which variables are predicted?", proposed, fault)
    if answer == proposed:
        return proposal
    return propose(template, [name.strip() for name in answer.split(",")], few_levels=not on_gpu)


def _refuse_absent(predict: Sequence[str] | None, template: xr.Dataset) -> None:
    """Raise ValueError for a variable that the data do not hold."""
    for name in predict or ():
        if name not in template.data_vars:
            raise ValueError(f"predict: no variable '{name}' in the data; {variable_hint(name, template.data_vars)}")


def _asked(question: str, proposed: str) -> str:
    """The answer on a terminal, what is proposed elsewhere and for an empty answer."""
    if not sys.stdin.isatty():
        return proposed
    hint = f" \\[{escape(proposed)}]" if proposed else ""
    console().print(f"{escape(question)}{hint} ", end="", style="key", soft_wrap=True)
    try:
        return input().strip() or proposed
    except EOFError:
        raise KeyboardInterrupt from None


def _agreed(question: str, proposed: str, fault: Any) -> str:
    """An answer without fault; asked again, with the fault said, until there is one."""
    while reason := fault(answer := _asked(question, proposed)):
        if answer == proposed and not sys.stdin.isatty():
            raise ValueError(reason)
        console().print(escape(reason), style="warning", soft_wrap=True)
    return answer


def _no_model(name: str) -> str:
    best = nearest_name(name, options_of("model"))
    return f"There is no model '{name}'; " + (f"did you mean '{best}'?" if best else "`emul models` lists them.")


def _taken(folder: Path, name: str) -> str:
    """Return what is wrong with a name; empty for a good and free one."""
    if fault := name_fault(name) or ("a name with a slash" if "/" in name else ""):
        return f"name: expected a name such as era5_sfno; got {fault}."
    file = folder / "experiment" / f"{name}.yaml"
    if file.exists():
        return f"{file} exists; remove it, or write name={name}_2."
    ours = name in options_of("experiment")
    return f"There is an experiment '{name}' already; write name={name}_2." if ours else ""


def _free(folder: Path, name: str) -> None:
    """Raise ValueError for a name that cannot be taken."""
    if fault := _taken(folder, name):
        raise ValueError(fault)
