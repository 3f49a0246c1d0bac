"""`emul new loss|model|metric|constraint|dataset NAME`: templates of a part of your own, Python and YAML."""

from __future__ import annotations

import shlex
from pathlib import Path

from rich.markup import escape

from data_pipelines.conventions.suggestions import nearest_name
from data_pipelines.files.atomic import write_text
from data_pipelines.options.folders import options_of, user_folders
from emul.terminal.console import console, next_command

KINDS = {"loss": "loss", "model": "model", "metric": "metric", "constraint": "constraint", "dataset": "data"}
TEMPLATES = Path(__file__).with_name("templates")  # of both files of each kind, with {name} and {title}
LISTED = ("loss", "metric", "constraint")  # any number of them are chosen, each under its name


def main(arguments: list[str]) -> int:
    """Write both files into the folder of --config-dir, of EMUL_CONF, or my_parts; neither may exist."""
    if len(arguments) != 2 or arguments[0] not in KINDS:
        best = (nearest_name(arguments[0], KINDS) if arguments else None) or "loss"
        raise ValueError(f"Expected `emul new {'|'.join(KINDS)} NAME`; write emul new {best} my_{best}.")
    kind, name = arguments
    if not name.isidentifier() or name != name.lower():
        raise ValueError(f"A name is made of small letters, digits and underscores, such as curvature; got '{name}'.")
    group = KINDS[kind]
    if name in options_of(group):
        raise ValueError(f"There is a {kind} '{name}' already; take another name.")
    folder = next(iter(user_folders()), Path("my_parts"))
    title = "".join(word.capitalize() for word in name.split("_"))
    files = folder / f"{name}.py", folder / group / f"{name}.yaml"
    for file in files:
        if file.exists():
            raise FileExistsError(f"{file} exists; take another name.")
        template = TEMPLATES.joinpath(f"{kind}{file.suffix}.txt").read_text(encoding="utf-8")
        write_text(file, template.replace("{name}", name).replace("{title}", title))
        console().print(f"wrote [key]{escape(str(file))}[/]", soft_wrap=True)
    override = f"'{group}=[{name}]'" if kind in LISTED else f"{group}={name}"
    next_command(f"emul check --config-dir {shlex.quote(str(folder))} {override}")
    return 0
