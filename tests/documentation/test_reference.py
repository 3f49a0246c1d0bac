"""The reference names every verb, option and part with what it means; links and pages are checked and mended."""

import re
from pathlib import Path

import pytest

from building.accessibility import mended
from building.links import faults
from building.markdown import inline, prose
from building.notebooks import notebook
from building.parts import all_options, file_of, pages
from building.python_api import pages as python_pages
from data_pipelines.options.folders import groups, option_files
from emul.terminal.verbs import LISTS, VERBS


@pytest.fixture(scope="module")
def reference() -> dict[str, str]:
    return dict(pages())


def test_every_verb_is_explained(reference: dict[str, str]) -> None:
    for verb in VERBS:
        assert f"## emul {verb.name}\n" in reference["verbs.md"]
        assert inline(verb.summary) in reference["verbs.md"]
    for verb in LISTS:
        assert f"`emul {verb}`" in reference["verbs.md"]


def test_every_option_has_its_row(reference: dict[str, str]) -> None:
    """Each row has a type and a meaning; each option of each YAML file is on some page."""
    rows = re.findall(r"^\| `([\w.]+)` \| ([^|]*) \| (.*?) \| (.*) \|$", "\n".join(reference.values()), re.M)
    assert {option.key for option in all_options()} <= {key for key, *_ in rows}
    assert [row for row in rows if not row[1].strip() or not row[3].strip()] == []


@pytest.mark.parametrize("group", groups())
def test_every_part_is_described(group: str, reference: dict[str, str]) -> None:
    text = reference[f"{file_of(group)}.md"]
    assert len(option_files(group)) == len(set(re.findall(rf"\(#{group}-([\w-]+)\)", text)) & set(option_files(group)))
    if group in ("loss", "metric", "constraint"):
        for section in re.split(r"^## ", text, flags=re.M)[1:]:
            assert "Source: `conf/" in section
            assert len(section) > 150


def test_every_model_has_paper_and_size(reference: dict[str, str]) -> None:
    rows = re.findall(r"^\| \[`(\w+)`\]\(#model-\1\) \| ([^|]*) \| ([^|]*) \| ([^|]*) \| ([^|]*) \|$",
                      reference["models.md"], re.M)  # fmt: skip
    assert {name for name, *_ in rows} == set(option_files("model"))
    assert [name for name, _, _, paper, _ in rows if "](<https" not in paper] == ["climatology", "persistence"]


def test_python_pages_hold_the_words() -> None:
    found = dict(python_pages())
    assert "py:function} emul.api.compose(" in found["python/emul.md"]
    assert "py:class} emulators.state.State(" in found["python/emulators.md"]


def test_docstrings_become_markdown() -> None:
    assert inline("MSE <(f - o)^2>, `a_b` and c_d, arXiv 2308.15560.") == (
        r"MSE \<(f - o)\^2\>, `a_b` and c\_d, [arXiv 2308.15560](<https://arxiv.org/abs/2308.15560>)."
    )
    assert prose("A law.\n\n    a = b\n\n    c = d\n\nWords.") == "A law.\n\n```text\na = b\n\nc = d\n```\n\nWords."


def test_a_page_becomes_a_notebook() -> None:
    cells = notebook("# Title\n\n```python\nimport emul\n```\n\nWords.\n")["cells"]
    assert [(cell["cell_type"], "".join(cell["source"])) for cell in cells] == [
        ("markdown", "# Title"), ("code", "import emul"), ("markdown", "Words."),
    ]  # fmt: skip


def test_pages_are_mended_for_readers_of_screens() -> None:
    button = '<button class="btn search-button-field" aria-label="Search" data-x="1">Search</button>'
    assert (
        mended(button)
        == '<button class="btn search-button-field" aria-label="Search Ctrl+K" data-x="1">Search</button>'
    )
    assert mended("<pre>long</pre>") == '<pre tabindex="0">long</pre>'
    assert mended("<dl><dt>f()</dt>\n</dl>") == "<dl><dt>f()</dt>\n<dd></dd></dl>"
    assert mended("<dl><dt>f()</dt><dd>x</dd></dl>") == "<dl><dt>f()</dt><dd>x</dd></dl>"


def test_broken_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<a href="b.html#x">b</a><a href="c.html">c</a><script src="https://cdn/x.js">')
    (tmp_path / "b.html").write_text('<p id="y"></p>')
    assert faults(tmp_path) == [
        "a.html: loads https://cdn/x.js",
        "a.html: b.html#x names no place on its page",
        "a.html: c.html leads nowhere",
    ]
