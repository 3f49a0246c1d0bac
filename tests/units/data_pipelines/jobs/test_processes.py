"""What a process takes of its machine: threads and cores, alone, among others, and where SLURM has seen to it."""

import os
import subprocess
import sys

import pytest

from data_pipelines.jobs.processes import cores_of_process

TOLD = "import os, torch; from data_pipelines.jobs.processes import set_threads; set_threads({}); "
TOLD += "print(torch.get_num_threads(), *sorted(os.sched_getaffinity(0)))"
STEP = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_CPUS_PER_TASK": "1"}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs the affinity of Linux")
@pytest.mark.parametrize(
    ("asked", "environment", "processes"),
    [
        ("None, 2, 1, True", {}, 2),  # its share of the cores, and as many threads
        ("None, 2, 1", {}, 1),  # its share of threads, on all cores
        ("3, 2, 1, True", {}, 2),
        ("None, 4, 3, True", STEP, 1),  # its core by SLURM's word
    ],
)
def test_threads_and_cores_of_a_process(asked, environment, processes):
    kept = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    cores = sorted(os.sched_getaffinity(0))
    bound = {cores[-1]} if environment else {*cores}
    done = subprocess.run(
        [sys.executable, "-c", TOLD.format(asked)],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, bound),
    )
    threads, *own = map(int, done.stdout.split())
    if environment:
        assert (threads, own) == (1, [cores[-1]])
    else:
        assert own == (cores_of_process(cores, 2, 1) if processes == 2 else cores)
        assert threads == (
            3 if asked[0] == "3" else len(cores_of_process(cores, 2, 1)) if processes == 2 else max(1, len(cores) // 2)
        )


@pytest.mark.slow
@pytest.mark.skipif(len(getattr(os, "sched_getaffinity", lambda _: ())(0)) < 2, reason="needs two cores")
def test_a_process_that_the_first_one_starts_has_cores_of_its_own():
    """The first keeps to its share before it starts the second, which would begin there; again changes nothing."""
    second = TOLD.format("None, 2, 1, True")
    first = (
        TOLD.format("None, 2, 0, True")
        + "; set_threads(None, 2, 0, True); print(*os.sched_getaffinity(0), flush=True); "
    )
    first += f"import subprocess, sys; subprocess.run([sys.executable, '-c', {second!r}], check=True)"
    done = subprocess.run([sys.executable, "-c", first], capture_output=True, text=True, check=True)
    once, again, other = ([int(word) for word in line.split()] for line in done.stdout.splitlines())
    cores = sorted(os.sched_getaffinity(0))
    assert once[1:] == again == cores_of_process(cores, 2, 0)
    assert other[1:] == cores_of_process(cores, 2, 1)
