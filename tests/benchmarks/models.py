"""A training step of each network against the independent one that it is at parity with, same weights and fields.

    EMUL_PEERS=... python tests/benchmarks/models.py [case ...] [--batch 16] [--seconds 4]

Forward and backward at the sizes of tests/parity/zoo, in float32 on one thread, by turns in one process; the ratio
of medians, theirs over ours. Exit code 1 where ours is the slower one of any pair.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
import test_zoo

import case as zoo

BAR = 1.0


def seconds(run, fields: torch.Tensor) -> float:
    began = time.perf_counter()
    run(fields).square().mean().backward()
    return time.perf_counter() - began


def ratio(name: str, batch: int, budget: float) -> tuple[float, float, float, int]:
    """Medians of a step of theirs and of ours, their ratio, parameters."""
    case = zoo.case(name)
    peer = case.peer().train()
    names = zoo.randomised(peer)
    ours = test_zoo.ours(case, {key: value for key, value in peer.state_dict().items() if key in names}).train()
    fields = torch.randn(batch, case.read, *case.grid, requires_grad=True)
    clock = torch.zeros(batch, dtype=torch.int64)
    told = {key: torch.tensor([value] * batch) for key, value in case.told.items()}
    pair = (lambda x: case.call(peer, x)), (lambda x: ours(x, clock, **told))
    times: tuple[list[float], list[float]] = ([], [])
    began = time.perf_counter()
    while len(times[0]) < 5 or time.perf_counter() - began < budget:
        for run, taken in zip(pair, times, strict=True):
            taken.append(seconds(run, fields))
    theirs, mine = (statistics.median(taken[1:]) for taken in times)
    return theirs, mine, theirs / mine, sum(p.numel() for p in ours.parameters())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="*", default=zoo.names())
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=4.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'network':<16}{'parameters':>12}{'theirs ms':>12}{'ours ms':>12}{'times':>8}")
    worst = float("inf")
    for name in given.case:
        try:
            theirs, mine, faster, size = ratio(name, given.batch, given.seconds)
        except (ImportError, FileNotFoundError, KeyError) as error:
            print(f"{name:<16}cannot be built here: {error}")
            continue
        worst = min(worst, faster)
        print(f"{name:<16}{size:>12,}{1e3 * theirs:>12.1f}{1e3 * mine:>12.1f}{faster:>8.2f}")
    if worst == float("inf"):
        print("models: no peer is installed; EMUL_PEERS names a folder of checkouts")
        return 1
    print(f"models: {worst:.2f} times the speed of the peer at least (bar {BAR:.2f})")
    return int(worst < BAR)


if __name__ == "__main__":
    sys.exit(main())
