"""How fast the sphere is: harmonic transforms against torch-harmonics, 64 fields in float32 on two threads.

Both sides take turns within one process, at equal truncation, each in the layout it works in: (lon, lat, n) here,
(n, lat, lon) there. A row says how much faster (or smaller) ours is and what is asked of it; the figure is the least
ratio of the two. A peer that is not installed is left out, and said so.
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from emulators.grid import LatLonGrid, equiangular_grid, gaussian_grid
from emulators.losses.amse import AMSE
from emulators.losses.lp import Lp
from emulators.models.sfno import SFNO
from emulators.sphere.transform import SphericalHarmonics
from emulators.state import State
from emulators.training.flop_counter import Operations
from emulators.variables import Variable, VariableSet
from emulators.world import Scale, World

try:
    from data_pipelines.jobs.processes import (
        set_threads,  # both sides run as `emul` does: freed memory is kept for the next step
    )
except ImportError:
    print("emul: not installed; freed memory goes back to the system after each step")
    set_threads = torch.set_num_threads

try:
    import torch_harmonics
except ImportError:
    torch_harmonics = None

FIELDS = 64
PEER_GRIDS = {"gaussian": "legendre-gauss", "equiangular_with_poles": "equiangular"}
CASES = (  # grid, degrees, how many times as fast as the peer is asked for
    (gaussian_grid(32), 22, 2.0),
    (gaussian_grid(32), 32, 2.0),
    (gaussian_grid(64), 43, 2.0),
    (gaussian_grid(64), 64, 2.0),
    (equiangular_grid(121, 240, poles=True), 61, 1.4),
    (equiangular_grid(121, 240, poles=True), 120, 1.4),
    (equiangular_grid(181, 360, poles=True), 91, 1.4),
    (equiangular_grid(181, 360, poles=True), 180, 1.4),
)
MEMORY = 0.6  # of the peer's tables, at most
AMSE_COST = 1.15  # of the step with the mean squared error, at most
AMSE_SHARE = 0.15  # of a training step, at most
NARROW = 1.4  # asked of transforms where registers are narrower than AVX-512's


class Row(NamedTuple):
    """One line of the table; required: the ratio that is asked for, None where the line only informs."""

    name: str
    ratio: float
    required: float | None
    remark: str

    def __str__(self) -> str:
        asked = f"(bar {self.required:.2f})" if self.required else ""
        return f"{self.name:46s} {self.ratio:6.2f} x {asked:11s} {self.remark}"


def turns(rounds: int, **functions: Callable[[], object]) -> dict[str, float]:
    """Median seconds of each function, all of them called once a round."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds + 3):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if number >= 3:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def size(module: torch.nn.Module) -> int:
    """Bytes of a module's tables."""
    return sum(table.nbytes for table in module.buffers())


def backward(transform: Callable[[torch.Tensor], torch.Tensor], given: torch.Tensor) -> Callable[[], object]:
    """A forward and backward pass."""
    given = given.clone().requires_grad_()
    slope = torch.randn_like(transform(given).detach())

    def passes() -> None:
        with torch.enable_grad():
            torch.autograd.grad(transform(given), given, slope)

    return passes


def worst(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest error in units of the largest number."""
    return float((found - expected).abs().max() / expected.abs().max())


def limit(grid: LatLonGrid, degrees: int, peak: float, rounds: int) -> float:
    """Seconds of a bare FFT and of the products that the triangle asks for, at the peak of the processor."""
    nlat, nlon = grid.shape
    rows = torch.randn(FIELDS, nlat, nlon)
    products = 2 * nlat * FIELDS * degrees * (degrees + 1)
    return turns(rounds, fft=lambda: torch.fft.rfft(rows))["fft"] + products / peak


def transforms(rounds: int) -> Iterator[Row]:
    """Analysis and synthesis, forward and backward, and the memory of the tables."""
    if torch_harmonics is None:
        print("torch-harmonics: not installed, left out")
        return
    square = torch.randn(1024, 1024)
    peak = 2 * 1024**3 / turns(rounds, product=lambda: square @ square)["product"]
    instructions = torch.backends.cpu.get_cpu_capability()
    print(f"{instructions}; peak of float32 products: {peak / 1e9:.0f} GFLOP/s")
    for grid, degrees, wide_required in CASES:
        required = wide_required if instructions == "AVX512" else min(wide_required, NARROW)
        yield from compared(grid, degrees, required, peak, rounds)


def compared(grid: LatLonGrid, degrees: int, required: float, peak: float, rounds: int) -> Iterator[Row]:
    """The rows of one grid and truncation."""
    ours = SphericalHarmonics(grid, degrees, degrees, condon_shortley=True)
    options = {"lmax": degrees, "mmax": degrees, "grid": PEER_GRIDS[grid.kind]}
    analysis = torch_harmonics.RealSHT(*grid.shape, **options).float()
    synthesis = torch_harmonics.InverseRealSHT(*grid.shape, **options).float()
    exact = SphericalHarmonics(grid, degrees, degrees, torch.float64, condon_shortley=True)
    truth = exact.analysis(torch.randn(*grid.shape[::-1], FIELDS, dtype=torch.float64))
    field, coefficients = exact.synthesis(truth).float(), truth.float()
    peer_field = field.permute(2, 1, 0).contiguous()
    peer_coefficients = torch.complex(coefficients[0::2], coefficients[1::2]).permute(2, 1, 0).contiguous()
    accuracy = max(worst(ours.synthesis(coefficients), field), worst(ours.analysis(field), coefficients))
    peer_accuracy = worst(synthesis(peer_coefficients).permute(2, 1, 0), field)
    assert max(accuracy, peer_accuracy) < 1e-5, (accuracy, peer_accuracy)
    pairs = {
        "analysis": (partial(ours.analysis, field), partial(analysis, peer_field)),
        "synthesis": (partial(ours.synthesis, coefficients), partial(synthesis, peer_coefficients)),
        "analysis and backward": (backward(ours.analysis, field), backward(analysis, peer_field)),
        "synthesis and backward": (backward(ours.synthesis, coefficients), backward(synthesis, peer_coefficients)),
    }
    least = limit(grid, degrees, peak, rounds)
    title = f"{grid.shape[0]}x{grid.shape[1]} {degrees} degrees"
    for name, (here, there) in pairs.items():
        median = turns(rounds, ours=here, peer=there)
        one_way = "backward" not in name
        share = f", {100 * least / median['ours']:.0f} % of the limit" if one_way else ""
        remark = f"{1e3 * median['ours']:.2f} ms to {1e3 * median['peer']:.2f} ms{share}"
        yield Row(f"{title} {name}", median["peer"] / median["ours"], required if one_way else None, remark)
    here, there = size(ours), size(analysis) + size(synthesis)
    yield Row(f"{title} tables", there / here, 1.0 / MEMORY, f"{here / 1e6:.2f} MB to {there / 1e6:.2f} MB")


def peers() -> Iterator[tuple[str, dict, float | None, float | None, Callable[[], torch.nn.Module]]]:
    """Name, options of the same network here, what is asked for in float32 and in bf16, and how to build theirs."""
    if torch_harmonics is not None:
        from torch_harmonics.examples.models.sfno import SphericalFourierNeuralOperator as Example

        plain = {"block": "torch_harmonics", "encoder_layers": 0, "position_embedding": "none", "norm": "none"}
        sizes = {"img_size": (64, 128), "in_chans": 73, "out_chans": 73, "embed_dim": 256, "num_layers": 8}
        yield (
            "torch-harmonics",
            {**plain, "big_skip": False},
            1.6,
            3.0,
            lambda: Example(**sizes, grid="legendre-gauss", scale_factor=1),
        )
    try:
        from fme.ace.models.modulus.sfnonet import SphericalFourierNeuralOperatorNet as Ace
    except ImportError:
        print("fme: not installed, left out")
        return
    names = {"spectral_transform": "sht", "filter_type": "linear", "operator_type": "dhconv", "scale_factor": 1}
    given = type("Options", (), {**names, "embed_dim": 256, "num_layers": 8, "data_grid": "legendre-gauss"})
    yield "fme", {"filter_bias": True}, None, None, lambda: Ace(given(), img_shape=(64, 128), in_chans=73, out_chans=73)


def descent(network: torch.nn.Module, precision: torch.dtype | None, *more: torch.Tensor) -> Callable[[], None]:
    """A training step: forward, mean squared error, backward, AdamW."""
    fused = None if any(p.is_complex() for p in network.parameters()) else True
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=fused)
    fields, truth = (torch.randn(2, 73, 64, 128) for _ in range(2))

    def descend() -> None:
        optimizer.zero_grad()
        with torch.enable_grad(), torch.autocast("cpu", precision, enabled=precision is not None):
            (network(fields, *more).float() - truth).square().mean().backward()
        optimizer.step()

    return descend


def made(name: str, here: bool, precision: torch.dtype | None) -> Callable[[], None]:
    """The training step of a peer or of the same network here: 64x128, 73 channels, embed 256, 8 blocks, batch 2."""
    _, options, _, _, theirs = next(peer for peer in peers() if peer[0] == name)
    torch.manual_seed(0)
    if not here:
        return descent(theirs(), precision)
    world = World(gaussian_grid(64), VariableSet((Variable("t", "", tuple(range(73))),)), np.timedelta64(6, "h"))
    return descent(SFNO(world, embed=256, layers=8, **options), precision, torch.zeros(2))


def peak_memory(name: str, here: bool, precision: torch.dtype | None, threads: int) -> int:
    """Most bytes that a process holds which makes three training steps; to be called in a process of its own."""
    set_threads(threads)
    step = made(name, here, precision)
    for _ in range(3):
        step()
    status = Path("/proc/self/status").read_text()  # ru_maxrss would count what the parent held when it forked
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def training_steps(rounds: int) -> Iterator[Row]:
    """A training step and its memory against torch-harmonics' example and fme's SFNO, same layouts, same sizes."""
    for name, _, required, required_half, _ in peers():
        single = {"ours": made(name, True, None), "peer": made(name, False, None)}
        half = {"half": made(name, True, torch.bfloat16), "half_peer": made(name, False, torch.bfloat16)}
        median = turns(rounds, **single, **half)
        told = f"{median['ours']:.2f} s to {median['peer']:.2f} s{share_of_peak(single['ours'], median['ours'], None)}"
        yield Row(f"SFNO step to {name}, float32", median["peer"] / median["ours"], required, told)
        share = share_of_peak(half["half"], median["half"], torch.bfloat16)
        told = f"{median['half']:.2f} s to {median['peer']:.2f} s{share}; theirs in bf16 {median['half_peer']:.2f} s"
        yield Row(f"SFNO step in bf16 to {name}'s in float32", median["peer"] / median["half"], required_half, told)
        for kind, precision in (("float32", None), ("bf16", torch.bfloat16)):
            peaks = []
            for here in (True, False):
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
                    peaks.append(alone.submit(peak_memory, name, here, precision, torch.get_num_threads()).result())
            told = f"{peaks[0] / 1e9:.2f} GB to {peaks[1] / 1e9:.2f} GB"
            yield Row(f"SFNO step to {name}, peak memory, {kind}", peaks[1] / peaks[0], 1.0, told)


def share_of_peak(step: Callable[[], None], seconds: float, precision: torch.dtype | None) -> str:
    """What share of the speed of a product of large matrices a step reaches, by the products that it makes."""
    square = torch.randn(2048, 2048, dtype=precision or torch.float32)
    peak = 2 * 2048**3 / turns(5, product=lambda: square @ square)["product"]
    with Operations() as operations:
        step()
    total = operations.total
    return f", {total / 1e9:.0f} GFLOP, {100 * total / seconds / peak:.0f} % of peak ({peak / 1e9:.0f} GFLOP/s)"


def adjusted_steps(rounds: int) -> Iterator[Row]:
    """What AMSE in place of the mean squared error adds to the same training step: 15 % at most."""
    channels = VariableSet((Variable("t", "", tuple(range(73))),))
    scales = {channel: Scale(0.0, 1.0, 1.0) for channel in channels.channels}
    world = World(gaussian_grid(64), channels, np.timedelta64(6, "h"), scales=scales)
    network = SFNO(world, embed=256, layers=8)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    fields, truth = (torch.randn(2, 73, 64, 128) for _ in range(2))
    time = np.zeros(2, "datetime64[s]")

    def descend(loss: torch.nn.Module) -> None:
        optimizer.zero_grad()
        with torch.enable_grad():
            prediction = State(network(fields, torch.zeros(2)), channels, time)
            loss(prediction, State(truth, channels, time)).mean().backward()
        optimizer.step()

    median = turns(rounds, mse=partial(descend, Lp(world)), amse=partial(descend, AMSE(world)))
    told = f"{median['amse']:.2f} s to {median['mse']:.2f} s"
    yield Row("SFNO step with AMSE to one with MSE", median["mse"] / median["amse"], 1.0 / AMSE_COST, told)


SECTIONS = {"transforms": transforms, "steps": training_steps, "amse": adjusted_steps}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20, help="medians are over so many rounds")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=SECTIONS, action="append", help="sections to run; default: all")
    options = parser.parse_args()
    set_threads(options.threads)
    torch.manual_seed(0)
    rows = []
    with torch.no_grad():
        for row in chain.from_iterable(SECTIONS[name](options.rounds) for name in options.only or SECTIONS):
            print(row, flush=True)
            rows.append(row)
    ratios = [row.ratio / row.required for row in rows if row.required]
    if not ratios:
        print("sphere: nothing to compare with (bar 1.0)")
        return 0
    print(f"sphere: {min(ratios):.2f} (bar 1.0)")
    return 0 if min(ratios) >= 1.0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
