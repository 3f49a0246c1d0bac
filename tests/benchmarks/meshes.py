"""A training step of each mesh network against its peer, by turns in one process, and message passing against a copy.

    EMUL_PEERS=... python tests/benchmarks/meshes.py [network ...] [--batch 4] [--seconds 20]

Forward and backward for all weights at the small sizes of conf/model on 32x64 points, in float32 on one thread: ours in
PyTorch, GraphCast's, GenCast's and FGN's jitted by JAX, AIFS's and neural-lam's by torch-geometric; the ratio of
medians, theirs over ours. Memory is kept from step to step, as in a training (`data_pipelines.jobs.processes`).
Then the bytes that gathers to edges and sums at nodes move a second, as a share of those of a plain copy. Exit code 1
where a network or the share is below its bar.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from omegaconf import OmegaConf

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
import test_zoo

import case as zoo
from data_pipelines.jobs.processes import set_threads
from emulators.layers.message_passing import Graph
from emulators.meshes.icosahedra import edges_of, icosahedra
from places import CONF

AREA = ("graph_lam", "hi_lam", "hi_lam_parallel", "graph_efm")  # of neural-lam
BARS = {"graphcast": 1.5, "graph_transformer": 1.5, "gencast": 1.0, "fgn": 1.0, **dict.fromkeys(AREA, 1.0)}
SHARE = 0.6  # of the bandwidth of a copy
READ, WRITTEN, GRID = 24, 20, (32, 64)
NAMES = {  # what the peers of tests/parity/zoo call our options
    "graphcast": {"level": "LEVEL", "latent": "LATENT", "steps": "STEPS"},
    "gencast": {"level": "LEVEL", "latent": "LATENT", "layers": "LAYERS", "heads": "HEADS", "hops": "HOPS"},
    "fgn": {
        "level": "LEVEL", "latent": "LATENT", "edge": "EDGE", "layers": "LAYERS", "heads": "HEADS", "hops": "HOPS",
        "noise": "NOISE",
    },
    "graph_transformer": {"level": "LEVEL", "channels": "CHANNELS", "layers": "LAYERS", "heads": "HEADS"},
    **{area: {"latent": "LATENT", "steps": "STEPS"} for area in AREA[:3]},
    "graph_efm": {"latent": "LATENT", "numbers": "NUMBERS"},
}  # fmt: skip


def sized_case(name: str, batch: int) -> zoo.Case:
    """The case of tests/parity/zoo with the options of the small form, on the grid and channels of this benchmark."""
    options = OmegaConf.to_container(OmegaConf.load(CONF / "model" / f"{name}_small.yaml"))
    options = {key: options[key] for key in NAMES[name]}
    channels = {"prognostic": WRITTEN, "forcing": READ - WRITTEN}
    constants = {constant: options[key] for key, constant in NAMES[name].items()}
    constants |= {"READ": READ, "WRITTEN": WRITTEN, "GRID": GRID, "BATCH": batch}
    if name in AREA:
        return area_case(name, options, constants)
    module = importlib.import_module(f"zoo.{name}")
    vars(module).update(constants)
    if name == "fgn":  # which knows its variables by name, two of which are forcings
        names = module.VARIABLES = (*module.VARIABLES[:2], *(f"c{number:02}" for number in range(WRITTEN)))
        channels = {"prognostic": dict.fromkeys(names[:WRITTEN], 0), "forcing": dict.fromkeys(names[WRITTEN:], 0)}
    options = {**module.CASE.options, **options}
    return replace(module.CASE, options=options, channels=channels, grid=GRID, noise=options.get("noise", 0))


def area_case(name: str, options: dict, constants: dict) -> zoo.Case:
    """The case of a network of neural-lam, which reads two states and forcing and predicts one state."""
    import neural_lam_peer as lam

    vars(lam).update(constants, STATES=WRITTEN // 2, FORCING=READ - WRITTEN)
    module = importlib.import_module(f"zoo.{name}")
    if name != "graph_efm":
        return module.CASE
    module.BATCH = constants["BATCH"]
    deep = {**module.DEEP, "latent_dim": options["numbers"]}
    peer = lam.network(module.build, hierarchical=True, deep=deep, **module.DIAGONAL)
    return module.case(peer, prior_steps=1, spread="diagonal", **options)


def pair(name: str, batch: int):
    """A training step of theirs and of ours, with the same weights, on the same fields; parameters."""
    case = sized_case(name, batch)
    peer = case.peer()
    names = zoo.randomised(peer)
    ours = test_zoo.ours(case, {key: value for key, value in peer.state_dict().items() if key in names}).train()
    fields, clock = torch.randn(batch, case.read, *GRID), torch.zeros(batch, dtype=torch.int64)
    told = {key: torch.tensor([value] * batch) for key, value in case.told.items()}
    told |= {"generator": zoo.drawn()} if case.noise or case.draws else {}
    if hasattr(peer, "whole"):
        import jax

        step = jax.jit(jax.value_and_grad(lambda weights, rows: (peer.whole(weights, rows) ** 2).mean()))
        weights, rows = peer.state(), fields.flatten(2).permute(2, 0, 1).contiguous().numpy()

        def theirs():
            jax.block_until_ready(step(weights, rows))
    else:

        def theirs():
            case.call(peer, fields).square().mean().backward()

    return (
        theirs,
        (lambda: ours(fields, clock, **told).square().mean().backward()),
        sum(p.numel() for p in ours.parameters()),
    )


def seconds(run) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def medians(runs, budget: float) -> list[float]:
    """Median seconds of each, by turns, without the first call."""
    taken: list[list[float]] = [[] for _ in runs]
    for run in runs:
        run()
    began = time.perf_counter()
    while len(taken[0]) < 5 or time.perf_counter() - began < budget:
        for run, times in zip(runs, taken, strict=True):
            times.append(seconds(run))
    return [statistics.median(times) for times in taken]


def share(level: int = 4, channels: int = 128, batch: int = 4) -> float:
    """Bytes a second that gathers and sums read and write at edges, over those of a copy to memory at hand."""
    graph = Graph(edges_of(icosahedra(level)))
    nodes, edges = torch.randn(batch, graph.sender_count, channels), torch.randn(batch, graph.size, channels)
    target = torch.empty_like(edges)
    calls = [lambda: graph.sent(nodes), lambda: graph.summed(edges), lambda: target.copy_(edges)]
    gather, total, copy = medians(calls, 3.0)
    return (2 + 1) / (gather + total) / (2 / copy)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", nargs="*", default=list(BARS))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20.0)
    given = parser.parse_args()
    set_threads(1)
    print(f"{'network':<20}{'parameters':>12}{'theirs ms':>12}{'ours ms':>12}{'times':>8}{'bar':>6}")
    least = float("inf")
    for name in given.network:
        try:
            theirs, ours, size = pair(name, given.batch)
        except (ImportError, FileNotFoundError, KeyError) as error:
            print(f"{name:<20}cannot be built here: {error}")
            continue
        slow, fast = medians([theirs, ours], given.seconds)
        least = min(least, slow / fast / BARS[name])
        print(f"{name:<20}{size:>12,}{1e3 * slow:>12.1f}{1e3 * fast:>12.1f}{slow / fast:>8.2f}{BARS[name]:>6.1f}")
    bandwidth = share()
    print(f"messages move {bandwidth:.0%} of the bytes of a copy (bar {SHARE:.0%})")
    if least == float("inf"):
        print("meshes: no peer is installed; EMUL_PEERS names a folder of checkouts")
        return 1
    least = min(least, bandwidth / SHARE)
    print(f"meshes: {least:.2f} times each bar at least (bar 1.00)")
    return int(least < 1.0)


if __name__ == "__main__":
    sys.exit(main())
