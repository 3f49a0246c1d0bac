"""Pages: all text is escaped, and the browser is told to run only what the page brings itself."""

import base64
import hashlib
import html
import re

from data_pipelines.reports.page import Html, Section, document, join, table, tag

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


def test_all_text_is_escaped(tmp_path):
    body = join(table(["a", EVIL], [(EVIL, [EVIL, 1.0])]), tag("p", EVIL, title=EVIL, class_=EVIL))
    sections = [Section("x", EVIL, body)]
    page = document(tmp_path / "p.html", EVIL, EVIL, sections, heading=EVIL, notes=[EVIL], facts={EVIL: EVIL})
    text = page.read_text()
    assert EVIL not in text
    assert "<img" not in text
    assert text.count("<script>") == 1


def test_only_the_pages_own_script_and_style_are_allowed(tmp_path):
    section = Section("x", "y", Html("<p>z</p>"))
    text = document(tmp_path / "p.html", "t", "i", [section], script="let a='<b>&';", rules=".x{}").read_text()
    policy = html.unescape(re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1])
    assert policy.startswith("default-src 'none'")
    for name in ("script", "style"):
        content = re.search(rf"<{name}>(.*?)</{name}>", text, re.S)[1]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert text.index("Content-Security-Policy") < text.index("<style>")
