"""Whether the intervals of scaling laws are honest: parity, coverage in 400 synthetic studies, and a tiny study.

Parity: the refit of Chinchilla's points by Besiroglu et al. 2024 (arXiv 2404.10102), its objective and exponents.
Coverage: studies of 5 sizes x 4 durations drawn from a known law, how many 95 % intervals of E, A, B, alpha, beta and
of a run that is to come hold the truth. Bias: what parabolas make of the best size, and variable projection of the
exponents. Tiny study: `emul scaling run study=tiny` from nothing to its report, in seconds; `--no-study` leaves it out.
The figure is the number of quantities whose coverage is 95 +- 3 %.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from emulators.scaling.fitting import bootstrapped, fit
from emulators.scaling.laws import CHINCHILLA, Runs, best_split, parabola_bias

BAR, STUDIES, NOISE = 6, 400, 0.005
POINTS = Path(__file__).parents[1] / "data" / "chinchilla_points.csv"
TRUTH = np.array([np.log(8.0), np.log(60.0), np.log(0.05), 0.30, 0.35])
BEYOND = Runs(np.array([3e6]), np.array([2e7]), np.ones(1), np.ones(1))


def parity() -> bool:
    size, compute, loss = np.loadtxt(POINTS, delimiter=",", skiprows=1).T
    kept = np.sort(np.argsort(loss)[:-5])
    runs = Runs(size[kept], (compute / (6 * size))[kept], loss[kept], compute[kept])
    found = fit(CHINCHILLA, runs, "robust")
    values = {name: float(value) for name, value in CHINCHILLA.plain(found.parameters).items()}
    told = ", ".join(f"{name} {value:.5g}" for name, value in values.items())
    print(f"parity      objective {found.objective:.9f} (published 0.001018274), {told}")
    published = {"A": 482.01, "B": 2085.43, "E": 1.8172, "alpha": 0.3478, "beta": 0.3658}
    return all(abs(values[name] / value - 1) < 0.04 for name, value in published.items())


def study(seed: int) -> tuple[Runs, float]:
    """The runs of one synthetic study, and a run beyond them."""
    chance = np.random.default_rng(seed)
    size, data = (x.ravel() for x in np.meshgrid(np.geomspace(1e4, 1e6, 5), np.geomspace(1e5, 1e7, 4)))
    blank = Runs(size, data, np.ones(20), 6 * size * data)
    loss = CHINCHILLA.loss(TRUTH, blank) * np.exp(NOISE * chance.standard_normal(20))
    beyond = CHINCHILLA.log_loss(TRUTH, BEYOND)[0] + NOISE * chance.standard_normal()
    return Runs(size, data, loss, blank.compute), float(np.exp(beyond))


def coverage() -> np.ndarray:
    hits = np.zeros(6)
    for seed in range(STUDIES):
        runs, beyond = study(seed)
        found = bootstrapped(fit(CHINCHILLA, runs, "squares"), 200, seed)
        for k in range(5):
            low, high = found.interval(lambda p, k=k: p[..., k])
            hits[k] += low <= TRUTH[k] <= high
        _, low, high = found.prediction(BEYOND, 0.95)[:, 0]
        hits[5] += low <= beyond <= high
    return hits / STUDIES


def biases() -> None:
    """Parabolas of studies without noise, centred and off the centre, and variable projection beside."""
    laws = {"equal exponents": (8.0, 8.0, 0.35, 0.35), "0.25 and 0.55": (8.0, 300.0, 0.25, 0.55)}
    for name, (a, b, alpha, beta) in laws.items():
        law = np.array([np.log(a), np.log(b), np.log(0.05), alpha, beta])
        best = best_split(CHINCHILLA, law, np.array([1e12]), lambda n: 6 * n, (1e3, 1e9))[0][0]
        for place, sizes in (("centred", best * np.geomspace(0.1, 10, 7)), ("aside", best * np.geomspace(0.5, 50, 7))):
            factor = parabola_bias(CHINCHILLA, law, 1e12, sizes, lambda n: 6 * n)
            size, data = (x.ravel() for x in np.meshgrid(sizes, np.geomspace(1e5, 1e7, 4)))
            blank = Runs(size, data, np.ones(28), 6 * size * data)
            runs = Runs(size, data, CHINCHILLA.loss(law, blank), blank.compute)
            exponent = fit(CHINCHILLA, runs, "projection").parameters[3]
            print(f"bias        {name}, {place}: parabola {factor:.3f}, alpha by projection {exponent:.4f}")


def tiny() -> float:
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        words = [sys.executable, "-m", "emul.main", "scaling", "run", "study=tiny", f"output={folder}"]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        assert (Path(folder) / "scaling" / "tiny" / "report.html").is_file()
        return time.perf_counter() - begun


def main() -> int:
    same = parity()
    found = coverage()
    names = [*(name.removeprefix("log ") for name in CHINCHILLA.parameters), "a run to come"]
    print(f"coverage    {', '.join(f'{n} {v:.1%}' for n, v in zip(names, found, strict=True))}, of {STUDIES} studies")
    biases()
    if "--no-study" not in sys.argv:
        print(f"tiny study  {tiny():.0f} s (at most 300)")
    honest = int((np.abs(found - 0.95) <= 0.03).sum())
    print(f"scaling: {honest} of 6 intervals cover 95 +- 3 % (bar {BAR})")
    return int(honest < BAR or not same)


if __name__ == "__main__":
    sys.exit(main())
