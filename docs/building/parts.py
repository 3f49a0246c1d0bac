"""Write the reference of verbs, options and parts, found by the listings of the product itself."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from building.markdown import anchor, code, fenced, inline, prose, table
from data_pipelines.options.documentation import SETTINGS, Option, description, opening_comment, options
from data_pipelines.options.folders import conf_folder, groups, option_files
from data_pipelines.options.signatures import signature, wrapping
from data_pipelines.options.source_text import definition, in_words, module_tree
from emul.checks.networks import shipped_sizes
from emul.lists import count_text
from emul.terminal.verbs import LISTS, VERBS, explanation

TITLES = {
    "noise": "Noise of stochastic networks", "sampler": "Samplers of generative emulators", "step": "Steps",
    "model": "Models", "loss": "Losses", "constraint": "Constraints", "metric": "Metrics", "objective": "Objectives",
    "optimizer": "Optimisers", "schedule": "Schedules of the learning rate", "data": "Data sources",
    "variables": "Sets of variables", "writer": "Writers of forecasts", "hardware": "Hardware", "logger": "Loggers",
    "experiment": "Experiments", "eval": "Presets of evaluation", "forecast": "Settings of forecasts",
    "scenarios": "Scenarios of projections", "projection": "Projections",
}  # fmt: skip
LISTED = {"loss", "constraint", "metric", "logger", "projection"}
KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a mapping",
}


def pages() -> Iterator[tuple[str, str]]:
    """Yield the path of every page, below the reference, and its text."""
    yield "verbs.md", verbs_page()
    for primary in sorted(path.stem for path in conf_folder().glob("*.yaml")):
        yield f"options_{primary}.md", primary_page(primary)
    yield "models.md", models_page()
    for module, names in model_modules().items():
        yield f"models/{module}.md", model_page(module, names)
    for group in groups():
        if group != "model":
            yield f"{file_of(group)}.md", group_page(group)


def file_of(group: str) -> str:
    """The name of a group's page: that of the verb that lists it."""
    return next((verb for verb, listed in LISTS.items() if listed == group), f"group_{group}")


def title_of(group: str) -> str:
    return TITLES.get(group, group.capitalize())


# --- verbs -------------------------------------------------------------------------------------------------------


def verbs_page() -> str:
    """Every verb, from the text of its help."""
    sections = [
        "# Verbs",
        "Every verb is explained by `emul <verb> --help`; this page is made from the same text. "
        "Keys are set as `key=value`; quote what your shell would read, as in `'loss=[mse,amse]'`.",
        table(["verb", "what it does"], [[f"[`emul {v.name}`](#{label(v.name)})", inline(v.summary)] for v in VERBS]),
        "Verbs that list what there is to choose: "
        + ", ".join(f"[`emul {verb}`]({file_of(group)}.md)" for verb, group in LISTS.items())
        + ".",
    ]
    for verb in VERBS:
        sections += [anchor(label(verb.name), f"emul {verb.name}"), *_explained(explanation(verb))]
        if verb.composes:
            primary = verb.name if (conf_folder() / f"{verb.name}.yaml").is_file() else "train"
            sections.append(f"All its keys: [options of `emul {primary}`](options_{primary}.md).")
    return joined(sections)


def label(name: str) -> str:
    return f"verb-{name.replace(' ', '-')}"


def _explained(text: str) -> Iterator[str]:
    """The sections of a help text: a heading such as `Examples:`, and two columns below it."""
    title, _, rest = text.partition("\n")
    yield inline(title.partition(" - ")[2])
    for block in re.split(r"\n{2,}", rest.strip("\n")):
        first, *lines = block.splitlines()
        if first.startswith("Usage:"):
            yield fenced(first.removeprefix("Usage:").strip(), "text")
        elif first.endswith(":") and lines and all(line.startswith("  ") for line in lines):
            heading = first.removesuffix(":")
            rows = [re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in lines]
            yield table([heading.lower(), "meaning"], [[code(row[0]), inline("".join(row[1:]))] for row in rows])
        else:
            yield inline(block)


# --- options -----------------------------------------------------------------------------------------------------


@cache
def all_options() -> tuple[Option, ...]:
    return tuple(options())


def primary_page(primary: str) -> str:
    """The keys that a verb has besides those of the chosen parts."""
    path = conf_folder() / f"{primary}.yaml"
    loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    chosen = []
    for entry in loaded.get("defaults", []):
        if isinstance(entry, dict):
            group, value = next(iter(entry.items()))
            if group.startswith("optional ") or (value is not None and group == "eval@_global_"):
                continue  # the values of a run, and the defaults of eval: not chosen
            group = group.partition("@")[0].removeprefix("override ").lstrip("/")
            shown = str(value).replace("'", "").replace(" ", "") if value is not None else "null"
            chosen.append([f"[`{group}=`]({file_of(group)}.md)" if group != "model" else "[`model=`](models.md)",
                           code(shown), inline(title_of(group))])  # fmt: skip
    return joined(
        [
            f"# Options of `emul {primary}`",
            inline(opening_comment(path)),
            f"`emul {primary} --cfg job` prints all of them with the values in force; `emul options KEY` explains one.",
            "## Groups",
            "A group is chosen by the name of a part; a list, such as `'loss=[mse,amse]'`, where several go together. "
            "The page of each group has the options of its parts.",
            table(["group", "default", "what it sets"], chosen),
            "## Keys",
            option_table([o for o in all_options() if o.file == primary]),
        ]
    )


def option_table(found: list[Option]) -> str:
    """Options with type, default and meaning."""
    if not found:
        return "It has no options."
    rows = [[code(o.key), inline(type_of(o)), code(o.default), inline(o.comment)] for o in found]
    return table(["option", "type", "default", "meaning"], rows)


def type_of(option: Option) -> str:
    """The type of an option in words: from the signature of its target, else from its default."""
    name = option.key.rpartition(".")[2]
    for parameter in (*_parameters(option.target), *wrapping(option.group)):
        if parameter.name == name and parameter.annotation is not None:
            return in_words(parameter.annotation, parameter.module)
    try:
        return KINDS.get(type(yaml.safe_load(option.default)), "any value")
    except yaml.YAMLError:
        return "text"


@cache
def _parameters(target: str | None) -> tuple[Any, ...]:
    known = signature(target) if target else None
    return known.parameters if known else ()


# --- parts -------------------------------------------------------------------------------------------------------


def group_page(group: str) -> str:
    """Every part of a group: what it is, its formula, its options."""
    files = option_files(group)
    chosen = f"`{group}=[a,b]`: any number, by name" if group in LISTED else f"`{group}=NAME`: one of them"
    listing = next((verb for verb, listed in LISTS.items() if listed == group), None)
    told = f"Chosen by {chosen}." + (f" `emul {listing}` prints this list." if listing else "")
    rows = [[f"[`{name}`](#{group}-{name})", inline(description(path))] for name, path in files.items()]
    sections = [f"# {title_of(group)}", told, table(["name", "what it is"], rows)]
    shown: dict[str, str] = {}
    for name, path in files.items():
        sections += [anchor(f"{group}-{name}", name), *part(group, name, path, shown)]
    return joined(sections)


def part(group: str, name: str, path: Path, shown: dict[str, str]) -> Iterator[str]:
    """Describe one part. shown: targets whose documentation stands on the page already, and the part that has it."""
    comment = opening_comment(path)
    if comment:
        yield inline(comment) if group not in SETTINGS else experiment_notes(path)
    target = target_of(path)
    if target and target in shown:
        yield f"Formula and arguments: see [`{shown[target]}`](#{group}-{shown[target]})."
    elif target:
        shown[target] = name
        yield from documentation(target)
    found = [o for o in all_options() if o.file == f"{group}/{name}"]
    if found:
        yield option_table(found)
    if group in SETTINGS or not found:
        yield fenced(path.read_text(encoding="utf-8"), "yaml")
    yield source_line(f"conf/{group}/{path.name}", target)


def source_line(file: str, target: str | None) -> str:
    return f"Source: `{file}`" + (f", `{target}`." if target else ".")


def experiment_notes(path: Path) -> str:
    """The opening comment of an experiment, a paragraph for each of its notes."""
    text = opening_comment(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    head = " ".join(line.lstrip("# ") for line in lines if line.startswith("#") and "@package" not in line)
    notes = re.split(r" (?=(?:Purpose|Reference|Recipe|Cost|Data|Result)s?: )", head.strip() or text)
    return "\n\n".join(re.sub(r"^(\w+): ", r"**\1:** ", inline(note)) for note in notes)


def target_of(path: Path) -> str | None:
    """The first `_target_` of a YAML file."""
    match = re.search(r"_target_: *([\w.]+)", path.read_text(encoding="utf-8"))
    return match[1] if match else None


def documentation(target: str) -> Iterator[str]:
    """What the module of a target and the target itself say: formula, source, arguments."""
    module, _, name = target.rpartition(".")
    tree = module_tree(module)
    if tree is not None and (text := ast.get_docstring(tree)):
        yield prose(text)
    found = definition(module, name)
    if found and isinstance(found[0], ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(found[0])):
        yield prose(text)


# --- models ------------------------------------------------------------------------------------------------------


@cache
def model_modules() -> dict[str, list[str]]:
    """The names of the models by the module that defines them."""
    found: dict[str, list[str]] = {}
    for name, path in option_files("model").items():
        found.setdefault((target_of(path) or name).split(".")[-2], []).append(name)
    return dict(sorted(found.items()))


def models_page() -> str:
    """The table of all models."""
    sizes, rows = shipped_sizes(), []
    for names in model_modules().values():
        for name in names:
            size = sizes.get(name)
            operations = "" if size is None or size.operations is None else f"{size.operations:,g}"
            told = ["", "", "", ""] if size is None else [count_text(size), operations, size.paper, size.parity]
            rows.append([f"[`{name}`](#model-{name})", told[0], told[1], inline(told[2]), inline(told[3])])
    pages = [f"models/{module}" for module in model_modules()]
    return joined(
        [
            "# Models",
            "Chosen by `model=NAME`; `emul models` prints this table, `emul models NAME` describes one. Parameters are "
            "those on the variables of the embedded planet; GFLOP are 10⁹ operations of a forecast step on 64 x 128 "
            "points. *Compared with* names the code whose output ours was compared with, on the same weights.",
            table(["model", "parameters", "GFLOP", "paper", "compared with"], rows),
            toctree(pages, hidden=True),
        ]
    )


def model_page(module: str, names: list[str]) -> str:
    """The models that one module defines: its documentation, then each with sizes and options."""
    files, sizes = option_files("model"), shipped_sizes()
    target = target_of(files[names[0]]) or ""
    sections = [f"# {module}", *documentation(target)]
    for name in names:
        sections += [anchor(f"model-{name}", f"model={name}"), inline(opening_comment(files[name]))]
        if name in sizes:
            size = sizes[name]
            rows = {
                "paper": inline(size.paper),
                "parameters": f"{size.parameters:,}" if size.parameters is not None else "does not fit the planet",
                "operations": f"{size.operations:,g} GFLOP a step on 64 x 128 points" if size.operations else "",
                "states it sees": inline(size.states),
                "output": inline(size.step),
                "grids": inline(size.grid),
                "compared with": inline(size.parity),
            }
            sections.append(table(["property", "value"], [[key, value] for key, value in rows.items() if value]))
        sections.append(option_table([o for o in all_options() if o.file == f"model/{name}"]))
        sections.append(source_line(f"conf/model/{name}.yaml", target))
    return joined(sections)


def toctree(names: list[str], hidden: bool = False, depth: int = 1) -> str:
    """A table of contents of further pages."""
    lines = ["```{toctree}", f":maxdepth: {depth}", *([":hidden:"] if hidden else []), "", *names, "```"]
    return "\n".join(lines)


def joined(sections: list[str]) -> str:
    return "\n\n".join(section for section in sections if section) + "\n"
