"""How fast the sphere is: harmonic transforms against torch-harmonics, 64 fields in float32 on two threads.

Both sides take turns within one process, at equal truncation, each in the layout it works in: (lon, lat, n) here,
(n, lat, lon) there. A row says how much faster (or smaller) ours is and what is asked of it; the figure is the least
ratio of the two. A peer that is not installed is left out, and said so.
"""

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from emulators.grid import LatLonGrid, equiangular_grid, gaussian_grid
from emulators.losses.amse import AMSE
from emulators.losses.lp import Lp
from emulators.models.sfno import SFNO
from emulators.sphere.transform import SphericalHarmonics
from emulators.state import State
from emulators.variables import Variable, VariableSet
from emulators.world import Scale, World

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
AMSE_SHARE = 0.15  # of a training step, at most


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
    print(f"peak of float32 products: {peak / 1e9:.0f} GFLOP/s")
    for grid, degrees, required in CASES:
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20, help="medians are over so many rounds")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=SECTIONS, action="append", help="sections to run; default: all")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
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
