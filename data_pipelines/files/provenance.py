"""Provenance: which code and which packages made a result."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("emul", "torch", "numpy", "pytorch-lightning", "hydra-core", "omegaconf", "xarray", "zarr", "netCDF4")


def revision() -> str:
    """Return the git commit of the code, with `-dirty` if files differ from it; `unknown` outside a checkout.

    The repository is not locked meanwhile: a process that is killed here would leave its lock.
    """
    here = Path(__file__).resolve().parent

    def said(*words: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(here), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        commit = said("rev-parse", "HEAD")
        return commit + "-dirty" * bool(said("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
