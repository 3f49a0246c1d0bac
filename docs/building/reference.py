"""Write all pages of the reference into a folder, and remove those that there are no longer."""

from __future__ import annotations

from pathlib import Path

from building import house, parts, python_api
from building.markdown import inline
from building.parts import file_of, joined, title_of, toctree
from data_pipelines.options.folders import conf_folder, groups


def write_reference(folder: Path) -> list[Path]:
    """Write the pages that changed. Returns the paths of all."""
    written = []
    for name, text in (("index.md", index_page()), *parts.pages(), *python_api.pages(), *house.pages()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
        written.append(path)
    house.write_drawing(folder / "house.svg")
    for path in set(folder.rglob("*.md")) - set(written):
        path.unlink()
    return written


def index_page() -> str:
    """The first page of the reference."""
    verbs = ["verbs", *(f"options_{path.stem}" for path in sorted(conf_folder().glob("*.yaml")))]
    order = [
        "model",
        "noise",
        "step",
        "sampler",
        "objective",
        "loss",
        "constraint",
        "metric",
        "data",
        "variables",
        "optimizer",
        "schedule",
    ]
    listed = sorted(groups(), key=lambda group: (order.index(group) if group in order else len(order), group))
    rows = [f"- [{inline(title_of(group))}]({file_of(group)}.md)" for group in listed]
    return joined(
        [
            "# Reference",
            "These pages are made from the package when the site is built: the verbs from their help, options from the "
            "YAML files and the signatures of what they configure, formulas from the docstrings.",
            "## Commands",
            toctree(verbs),
            "## Parts",
            "\n".join(rows),
            toctree([file_of(group) for group in listed], hidden=True),
            "## Python",
            toctree(["python"]),
        ]
    )


if __name__ == "__main__":
    import sys

    print(len(write_reference(Path(sys.argv[1]))), "pages")
