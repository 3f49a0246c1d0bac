"""Configuration of Sphinx: what the site is made of. `make docs` builds it."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True

from building.notebooks import write_notebooks  # noqa: E402
from building.reference import write_reference  # noqa: E402

write_reference(HERE / "reference")
write_notebooks(HERE / "tutorials")

project = "emul"
author = "the authors of emul"
copyright = author
release = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
version = release

extensions = ["myst_parser", "sphinx_copybutton", "sphinx_design", "building.mathml", "building.accessibility"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
language = "en"
smartquotes = False
suppress_warnings = ["ref.python"]  # a type in a signature that two modules define under one name
add_module_names = False
toc_object_entries_show_parents = "hide"
python_use_unqualified_type_names = True
python_display_short_literal_types = True

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "attrs_inline"]
myst_heading_anchors = 3

html_math_renderer = "mathml"
html_theme = "pydata_sphinx_theme"
html_title = f"emul {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_theme_options = {
    "logo": {"text": "emul"},
    "show_nav_level": 1,
    "navigation_depth": 2,
    "collapse_navigation": True,
    "show_toc_level": 2,
    "header_links_before_dropdown": 6,
    "navbar_align": "left",
    "footer_start": ["sphinx-version"],
    "footer_end": ["theme-version"],
    "back_to_top_button": False,
}
pygments_style = "sphinx"
copybutton_exclude = ".linenos, .gp, .go"
