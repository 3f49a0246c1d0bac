"""`emul project`: fit emulators to scenarios, project others, score them beside internal variability."""

from __future__ import annotations

from functools import partial

from omegaconf import DictConfig

from data_pipelines.files.atomic import write_text
from data_pipelines.options.folders import result_folder
from data_pipelines.projections.projecting import project, write_results
from emul.config.build import build
from emul.config.compose import run_composed
from emul.config.saved import plain, saved_text
from emul.terminal.console import console, header, progress, table


def main(arguments: list[str]) -> int:
    """Run the verb, once or for each combination of values."""
    return run_composed("project", arguments, project_one)


def project_one(config: DictConfig) -> int:
    """Fit, project, score and write; print the scores and which differences hold."""
    folder = result_folder(config.output, "project", config.name)
    data = build(config.scenarios).read()
    header(f"emul project {config.name}", [f"fitted to {', '.join(data.train)}", f"to {folder}"])
    emulators = {str(name): partial(build, node) for name, node in config.projection.items()}
    with progress("projecting") as report:
        results = project(data, emulators, plain(config.fields), config.draws, config.seed, report)
    scores, pairs = write_results(folder, data, results, config.certainty)
    write_text(folder / "config.yaml", saved_text(config))
    for rows in filter(None, (scores, pairs)):
        numbers = [name for name, value in rows[0].items() if not isinstance(value, str)]
        table(list(rows[0]), [[_text(value) for value in row.values()] for row in rows], numbers)
    if config.pictures:
        from data_pipelines.pictures.curves import member_picture

        member_picture(folder / "members.png", results)
    console().print(f"Scores, maps and picture: {folder}", style="good")
    return 0


def _text(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
