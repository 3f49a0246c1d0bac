"""Where the tests find things: the repository, its configurations, stored data, and reference data beside it."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf"
DATA = ROOT / "tests" / "data"
SHARED = ROOT.parent / "shared"  # not part of the repository: tests that need it skip without it
