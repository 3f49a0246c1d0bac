"""The short form of the kill drill: see tests/kill_drill.py, which kills a hundred times."""

import os
import re
import subprocess
import sys

import pytest

from places import ROOT

DRILL = ROOT / "tests" / "kill_drill.py"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_killed_again_and_again_loses_nothing():
    words = [sys.executable, str(DRILL), "--kills", "6", "--steps", "20"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"kill drill: 6 kills, nothing lost", done.stdout)
