"""Refused memory and full disks are told with need, room and what to do."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from data_pipelines.conventions.suggestions import sentence


@pytest.mark.parametrize("allocate", [lambda: np.empty(10**14), lambda: torch.empty(10**14)])
def test_a_refused_allocation_says_how_much_and_what_there_is(allocate):
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        allocate()
    said = sentence(caught.value)
    assert re.search(r"Memory was refused \([\d.]+ \w+ asked for\): this process holds .*B, .*B are free", said)
    assert "training.batch_size" in said


def test_causes_count_and_other_errors_do_not():
    error = RuntimeError("reading failed")
    error.__cause__ = MemoryError()
    assert "Memory was refused" in sentence(error)
    assert sentence(RuntimeError("shapes differ")) is None
    assert "on the GPU" in sentence(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."))


def test_a_full_disk_names_the_file_and_the_room():
    said = sentence(OSError(28, "No space left on device", "/tmp/a.nc"))
    assert re.fullmatch(
        r"Could not write /tmp/a\.nc \(No space left on device; .* are free there\); make room .*", said
    )


@pytest.mark.slow
def test_a_limit_of_addresses_is_told_in_a_sentence(tmp_path):
    code = (
        "import resource, torch, numpy, emul.data.arguments\n"
        "from emul.main import main\n"
        "now = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (now + 3 * 10**7, resource.RLIM_INFINITY))\n"
        "raise SystemExit(main(['data', 'convert', 'data=planet_tiny', 'data.truncation=42', 'to=a.zarr']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)}, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "ulimit -v" in done.stderr
    assert "Traceback" not in done.stderr
