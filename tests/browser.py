"""Pages in a browser, their accessibility and their validity; where a tool is absent, its tests are skipped."""

import base64
import hashlib
import html
import json
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium here: apt install chromium")


@cache
def installed(path: str) -> Path | None:
    """A file of a package of npm, below NODE_PATH or among those installed for all."""
    roots = [root for root in os.environ.get("NODE_PATH", "").split(os.pathsep) if root]
    if not roots and shutil.which("npm"):
        roots = [subprocess.run(["npm", "root", "-g"], capture_output=True, text=True).stdout.strip()]
    return next((found for root in roots if (found := Path(root) / path).is_file()), None)


AXE, VALIDATOR = installed("axe-core/axe.min.js"), installed("vnu-jar/build/dist/vnu.jar")
needs_axe = pytest.mark.skipif(
    BROWSER is None or AXE is None, reason="no chromium or no axe-core here: npm install -g axe-core"
)
needs_validator = pytest.mark.skipif(
    VALIDATOR is None or shutil.which("java") is None, reason="no java or no vnu-jar here: npm install -g vnu-jar"
)


def opened(page: Path, tmp_path: Path, *flags: str, script: str = "", beside: bool = False) -> tuple[str, str]:
    """The page as the browser has it after loading, and what the browser logged; `script` runs at the end.

    beside: the copy with the script lies beside the page, whose styles are files of their own.
    """
    folder = page.parent if beside else tmp_path
    copy, text = folder / f"opened_{page.name}", page.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = text.replace("script-src ", f"script-src &#x27;sha256-{digest}&#x27; ")  # the page itself allows no other
    copy.write_text(f"{text}<script>{script}</script>", encoding="utf-8")
    return visited(copy, tmp_path, *flags)


def visited(page: Path, tmp_path: Path, *flags: str) -> tuple[str, str]:
    """The page as the browser has it after loading, and what the browser logged."""
    profile = f"--user-data-dir={tmp_path / 'b'}"
    plain = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", profile]
    command = [str(BROWSER), *plain, *flags, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=True)
    return done.stdout, done.stderr


def accessibility(page: Path, tmp_path: Path, *flags: str, beside: bool = False) -> list[str]:
    """The serious and critical findings of axe-core, https://github.com/dequelabs/axe-core, all details unfolded."""
    assert AXE is not None
    script = (
        f"{AXE.read_text(encoding='utf-8')};document.querySelectorAll('details').forEach(d=>d.open=true);"
        "addEventListener('load',()=>axe.run(document,{resultTypes:['violations']}).then(r=>{document.body.dataset.found=JSON.stringify("
        "r.violations.map(v=>[v.impact,v.id,v.nodes.length,v.nodes[0].html.slice(0,200)]))}))"
    )
    wait = "--virtual-time-budget=20000"
    found, _ = opened(page, tmp_path, "--dump-dom", wait, *flags, script=script, beside=beside)
    findings = json.loads(html.unescape(re.search(r'data-found="([^"]*)"', found).group(1)))
    return [str(finding) for finding in findings if finding[0] in ("serious", "critical")]


def validity(pages: list[Path]) -> str:
    """The errors of the Nu HTML checker, https://validator.github.io/validator."""
    command = ["java", "-jar", str(VALIDATOR), "--errors-only", *map(str, pages)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300).stderr
