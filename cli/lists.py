"""`emul models`, `emul losses`, ... and `emul options`: what there is in a group, and what can be set."""

from __future__ import annotations

import re
import shlex

from data_pipelines.conventions.suggestions import suggestion
from data_pipelines.options.documentation import description, matching_options, options
from data_pipelines.options.folders import option_files, options_of
from emul.checks.networks import ModelSize, measured_sizes, shipped_sizes
from emul.terminal.console import console, next_command, show_rows, table
from emul.terminal.verbs import LISTS


def main(arguments: list[str]) -> int:
    """Run `emul options`, or list the group that the first argument names; see `list_group`."""
    verb, rest = arguments[0], arguments[1:]
    return list_options(rest) if verb == "options" else list_group(verb, rest)


def list_options(arguments: list[str]) -> int:
    """List the options of a key, of all below it, or of a part such as `model.sfno`; without a key, of the verbs."""
    if len(arguments) > 1:
        raise ValueError(f"emul options takes one key, such as training.batch_size; got {' '.join(arguments)}.")
    matches = matching_options(options(), arguments[0] if arguments else "")
    distinct = {(option.key, option.default, option.comment): option for option in matches}
    table(["option", "default", "what it is"], [[o.key, o.default or "", o.comment] for o in distinct.values()])
    return 0


def list_group(verb: str, arguments: list[str]) -> int:
    """List the parts of a group; of models their sizes, or the one that the first argument names."""
    if verb == "models":
        name = arguments[0] if arguments and "=" not in arguments[0] else None
        return describe_model(name, arguments[1:]) if name else list_models(arguments)
    if arguments:
        raise ValueError(f"emul {verb} takes nothing more; got {' '.join(arguments)}.")
    group = LISTS[verb]
    table([group, "what it is"], [[name, description(file)] for name, file in option_files(group).items()])
    return 0


def list_models(overrides: list[str]) -> int:
    """List the models, a line for the sizes of each; overrides set the World, as in data=..."""
    sizes = model_sizes(options_of("model"), overrides)
    rows = []
    for name, size in sizes.items():
        if name.endswith("_small") and name.removesuffix("_small") in sizes:
            continue
        small = sizes.get(f"{name}_small")
        operations = "-" if size.operations is None else f"{size.operations:,g}"
        cited = re.sub(r",? ?(arXiv|doi) .*", "", size.paper) or size.paper
        rows.append([name, count_text(size), count_text(small) if small else "", operations, cited])
    table(["model", "parameters", "_small", "GFLOP", "paper"], rows, right=("parameters", "_small", "GFLOP"))
    console().print("`emul models NAME` describes one; GFLOP: of a forecast step on 64x128 points.", style="quiet")
    next_command("emul models sfno")
    return 0


def describe_model(name: str, overrides: list[str]) -> int:
    """Describe a model: what it is, its paper, sizes, demands and keys."""
    files = option_files("model")
    if name not in files:
        raise ValueError(f"There is no model '{name}'; {suggestion(name, files)}")
    size = model_sizes([name], overrides)[name]
    rows = {
        "paper": size.paper,
        "parameters": "does not fit" if size.parameters is None else f"{size.parameters:,}",
        "operations": "" if size.operations is None else f"{size.operations:,g} GFLOP a step on 64x128 points",
        "states": size.states,
        "output": size.step,
        "grids": size.grid,
        "compared with": size.parity,
    }
    show_rows(f"model={name}: {description(files[name])}", {key: value for key, value in rows.items() if value})
    keys = [option for option in options() if option.file == f"model/{name}"]
    table(["option", "default", "what it is"], [[option.key, option.default, option.comment] for option in keys])
    next_command(shlex.join(["emul", "check", f"model={name}", *overrides]))
    return 0


def model_sizes(names: list[str], overrides: list[str]) -> dict[str, ModelSize]:
    """Return the sizes that ship with the package, and measure what they lack: other data, models of the user's own."""
    shipped = {} if overrides else shipped_sizes()
    absent = [name for name in names if name not in shipped]
    measured = measured_sizes(absent, overrides) if absent else {}
    return {name: measured.get(name) or shipped[name] for name in names}


def count_text(size: ModelSize) -> str:
    """Trainable parameters in thousands, millions or 10^9; a dash for none, words where the model does not fit."""
    if size.parameters is None:
        return "no fit"
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if size.parameters >= 0.1 * factor:
            return f"{size.parameters / factor:.3g} {unit}"
    return "-"
