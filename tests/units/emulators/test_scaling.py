"""Scaling laws: published refits, anchors in closed form, laws recovered from their own runs, honest intervals."""

from pathlib import Path

import numpy as np
import pytest
from scipy.signal import lfilter

from emulators.scaling.analysis import (
    HEADLINE,
    Backtest,
    analyse,
    backtest,
    backtested,
    ladder_of,
    operations,
    saturating_of,
    smaller_runs,
    untold_repetition,
    widened,
)
from emulators.scaling.annealing import AnnealingLaw, LossCurve, annealing_intervals, areas, fit_annealing, smoothed
from emulators.scaling.budgets import power_through, splits, splitting
from emulators.scaling.fitting import Fit, bootstrapped, fit
from emulators.scaling.laws import (
    CHINCHILLA,
    FARSEER,
    KAPLAN,
    REPETITION,
    SATURATING,
    Runs,
    best_split,
    chinchilla_split,
    envelope,
    parabola,
    parabola_bias,
)

TRUTH = np.array([np.log(8.0), np.log(60.0), np.log(0.05), 0.30, 0.35])
POINTS = Path(__file__).parents[2] / "data" / "chinchilla_points.csv"


def cost_of(size: np.ndarray) -> np.ndarray:
    return 6.0 * np.asarray(size)


def runs_of(law, parameters, noise: float = 0.0, seed: int = 0, sizes: int = 6, durations: int = 5) -> Runs:
    size, data = (x.ravel() for x in np.meshgrid(np.geomspace(1e4, 1e6, sizes), np.geomspace(1e5, 1e7, durations)))
    blank = Runs(size, data, np.ones_like(size), 6.0 * size * data)
    loss = law.loss(parameters, blank) * np.exp(noise * np.random.default_rng(seed).standard_normal(len(size)))
    return Runs(size, data, loss, blank.compute)


def published() -> Runs:
    """240 of the 245 runs that Besiroglu et al. 2024 (arXiv 2404.10102) read off Hoffmann et al. 2022: no 5 highest."""
    size, compute, loss = np.loadtxt(POINTS, delimiter=",", skiprows=1).T
    kept = np.sort(np.argsort(loss)[:-5])
    return Runs(size[kept], (compute / (6 * size))[kept], loss[kept], compute[kept])


def planet(study: str) -> Runs:
    """The runs of a study of the planet, those that are not held out."""
    points = np.genfromtxt(POINTS.parent / "scaling" / f"{study}.csv", delimiter=",", names=True)
    unique = float((points["data"] / points["passes"]).mean())
    return Runs(*(points[name] for name in ("size", "data", "score", "operations")), unique)


def test_the_published_refit_of_chinchilla():
    found = fit(CHINCHILLA, published(), "robust")
    values = CHINCHILLA.plain(found.parameters)
    assert found.objective == pytest.approx(0.001018274, rel=1e-6)
    assert values["A"] == pytest.approx(482.01, rel=0.02)
    assert values["B"] == pytest.approx(2085.43, rel=0.04)
    assert values["E"] == pytest.approx(1.8172, abs=5e-4)
    assert values["alpha"] == pytest.approx(0.3478, abs=1e-3)
    assert values["beta"] == pytest.approx(0.3658, abs=2e-3)


@pytest.mark.parametrize(("study", "runs", "published"), [
    ("planet_sfno", 20, {"A": 0.5514, "B": 2.877, "E": 0.0, "alpha": 0.0943, "beta": 0.2294}),
    ("planet_swin", 9, {"A": 0.1813, "B": 0.8429, "E": 0.0, "alpha": 0.2489, "beta": 0.0695}),
])  # fmt: skip
def test_the_law_of_the_planet_is_that_of_its_runs(study, runs, published):
    """What docs/explanation/scaling_law.md says, of the points of its studies."""
    points = planet(study)
    assert len(points) == runs
    found = fit(CHINCHILLA, points, "squares")
    values = {name: float(value) for name, value in CHINCHILLA.plain(found.parameters).items()}
    assert values == pytest.approx(published, rel=5e-3, abs=1e-6)


def test_anchors_of_kaplan_and_of_the_best_split():
    runs = Runs(np.array([1e9, 1e9]), np.array([2e10, 1e30]), np.ones(2), np.ones(2))
    assert KAPLAN.loss(np.array([np.log(8.8e13), np.log(5.4e13), 0.076, 0.095]), runs) == pytest.approx(
        [2.435431, 2.375640], abs=1e-6
    )
    besiroglu = {"A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}
    size, data = chinchilla_split(besiroglu, 5.76e23)
    assert [size, data] == pytest.approx([72.25e9, 1.329e12], rel=5e-3)
    parameters = np.array([np.log(482.01), np.log(2085.43), np.log(1.8172), 0.3478, 0.3658])
    found, _, _ = best_split(CHINCHILLA, parameters, np.array([5.76e23]), cost_of, (1e9, 1e13))
    assert found[0] == pytest.approx(size, rel=0.03)
    one = Runs(np.array([1e9]), np.array([2e10]), np.ones(1), np.ones(1))
    assert CHINCHILLA.loss(parameters, one)[0] == pytest.approx(2.530050, abs=2e-4)


@pytest.mark.parametrize("method", ["squares", "robust", "projection"])
def test_a_law_is_recovered_from_its_runs(method):
    found = fit(CHINCHILLA, runs_of(CHINCHILLA, TRUTH), method)
    assert found.parameters == pytest.approx(TRUTH, rel=1e-3)


def test_derivatives_are_exact():
    runs, step = runs_of(CHINCHILLA, TRUTH), 1e-6
    for k in range(5):
        moved = step * np.eye(5)[k]
        slope = (CHINCHILLA.log_loss(TRUTH + moved, runs) - CHINCHILLA.log_loss(TRUTH - moved, runs)) / (2 * step)
        assert CHINCHILLA.jacobian(TRUTH, runs)[:, k] == pytest.approx(slope, rel=1e-6)


@pytest.mark.slow
def test_farseers_surface_is_recovered():
    truth = np.array([-0.03, -0.9, 0.18, 0.5, 2.0, 0.1, -0.2, 0.3, 0.12])
    runs = runs_of(FARSEER, truth, sizes=7, durations=6)
    found = fit(FARSEER, runs, "squares")
    beyond = Runs(np.array([4e6]), np.array([4e7]), np.ones(1), np.ones(1))
    assert np.abs(found.residuals).max() < 1e-3
    assert FARSEER.loss(found.parameters, beyond) == pytest.approx(FARSEER.loss(truth, beyond), rel=0.01)


def test_repeated_data_are_worth_less():
    runs = runs_of(CHINCHILLA, TRUTH, durations=7)
    unique = Runs(runs.size, runs.data, runs.loss, runs.compute, 5e5)
    truth = np.append(TRUTH, np.log(6.0))
    losses = REPETITION.loss(truth, unique)
    few = unique.data <= 5e5
    assert losses[few] == pytest.approx(CHINCHILLA.loss(TRUTH, unique)[few])
    assert (losses[~few] > CHINCHILLA.loss(TRUTH, unique)[~few]).all()
    found = fit(REPETITION, Runs(runs.size, runs.data, losses, runs.compute, 5e5), "squares")
    assert np.exp(found.parameters[5]) == pytest.approx(6.0, rel=0.05)


@pytest.mark.parametrize(("unique", "told"), [(5e5, True), (4.5e6, False)])
def test_the_worth_of_repeated_data_is_told_only_by_runs_that_repeat_them(unique, told):
    """Twenty passes tell R = 6 with 0.3 % of noise, 2.2 do not."""
    runs = runs_of(CHINCHILLA, TRUTH, durations=7)
    runs = Runs(runs.size, runs.data, runs.loss, runs.compute, unique)
    noise = np.exp(0.003 * np.random.default_rng(2).standard_normal(len(runs)))
    losses = REPETITION.loss(np.append(TRUTH, np.log(6.0)), runs) * noise
    found = bootstrapped(fit(REPETITION, Runs(runs.size, runs.data, losses, runs.compute, unique), "squares"), 60)
    assert (untold_repetition(found) == "") == told
    if not told:
        assert "at most 2.2 times" in untold_repetition(found)
    flat = Fit(REPETITION, "squares", np.append(TRUTH, 400.0), 0.0, found.residuals, found.runs, found.replicates)
    assert flat.standard_error("log R") == np.inf  # where all repeats count in full, nothing depends on R
    assert "any factor" in untold_repetition(flat)


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say():
    beyond, hits = Runs(np.array([3e6]), np.array([2e7]), np.ones(1), np.ones(1)), np.zeros(3)
    truth = CHINCHILLA.log_loss(TRUTH, beyond)[0]
    for seed in range(40):
        chance = np.random.default_rng(1000 + seed)
        found = bootstrapped(fit(CHINCHILLA, runs_of(CHINCHILLA, TRUTH, 0.005, seed), "squares"), 100, seed)
        low, high = found.interval(lambda p: p[..., 3])
        _, least, most = found.prediction(beyond, 0.95)[:, 0]
        hits += low <= 0.30 <= high, least <= np.exp(truth + 0.005 * chance.standard_normal()) <= most, 1
    assert hits[0] >= 34
    assert hits[1] >= 34


def test_parabolas_are_biased_where_exponents_differ_or_sizes_lie_off_the_centre():
    alike = np.array([np.log(8.0), np.log(8.0), np.log(0.05), 0.35, 0.35])
    best = np.sqrt(1e12 / 6.0)
    centred, aside = best * np.geomspace(0.2, 5.0, 7), best * np.geomspace(0.5, 50.0, 7)
    assert parabola_bias(CHINCHILLA, alike, 1e12, centred, cost_of) == pytest.approx(1.0, abs=0.02)
    unlike = np.array([np.log(8.0), np.log(300.0), np.log(0.05), 0.25, 0.55])
    middle, _, _ = best_split(CHINCHILLA, unlike, np.array([1e12]), cost_of, (1e3, 1e9))
    assert abs(np.log(parabola_bias(CHINCHILLA, unlike, 1e12, middle[0] * np.geomspace(0.1, 10, 7), cost_of))) > 0.05
    assert abs(np.log(parabola_bias(CHINCHILLA, alike, 1e12, aside, cost_of))) > 0.1
    size = np.geomspace(1e4, 1e6, 7)
    exact = parabola(1.0, size, np.exp(0.1 * np.log(size / 3e5) ** 2 + 1.0))
    assert (exact.size, exact.loss, exact.inside) == (pytest.approx(3e5), pytest.approx(np.e), True)


def test_areas_of_schedules():
    steps = np.linspace(0.0, 1.0, 1000)
    shapes = {
        "constant": (np.ones(1000), 1000.0, 0.0, 0.0),
        "linear": (1 - steps, 500.0, 90.091, 368.063),
        "cosine": (0.5 * (1 + np.cos(np.pi * steps)), 500.0, 95.563, 379.152),
    }
    for name, (rates, first, short, long) in shapes.items():
        for memory, second in ((0.99, short), (0.999, long)):
            found = [float(area[-1]) for area in areas(rates, memory)]
            assert found == [pytest.approx(first, abs=1e-6), pytest.approx(second, rel=2e-4)], name
    warm = np.concatenate([np.linspace(0.1, 1.0, 10), np.ones(90)])
    assert areas(warm)[1][-1] == 0.0


ANNEALING = AnnealingLaw(1.5, 4.0, 0.5, 0.002, 0.995, 0.0)


def loss_curves(noise: float, every: int, seed: int = 0) -> list[LossCurve]:
    """Curves of ANNEALING for three schedules, each reading with an error that the next has half of."""
    chance, curves = np.random.default_rng(seed), []
    for length, share in ((1000, 0.2), (2000, 0.2), (3000, 0.0)):
        start = round(length * (1 - share))
        fall = 1 - np.sqrt(np.arange(length - start) / max(length - start, 1))
        rates, steps = np.concatenate([np.ones(start), fall]), np.arange(50, length + 1, every)
        error = lfilter([np.sqrt(0.75)], [1.0, -0.5], chance.normal(size=len(steps)))
        curves.append(LossCurve(rates, steps, ANNEALING.loss(rates)[steps - 1] * np.exp(noise * error)))
    return curves


def test_intervals_of_the_law_of_annealing_cover_it():
    held, width = [], {}
    for noise in (0.01, 0.002):
        for seed in range(6):
            curves = loss_curves(noise, 50, seed)
            ends = annealing_intervals(curves, fit_annealing(curves), 40)
            for name in ("floor", "exponent", "gain"):
                held.append(ends[name][0] <= ANNEALING.parameters[name] <= ends[name][1])
            width[noise] = float(np.diff(ends["exponent"])[0])
    assert 0.7 < np.mean(held) <= 1.0
    assert width[0.002] < 0.5 * width[0.01]


def test_the_law_of_annealing_is_recovered():
    curves = loss_curves(0.003, 10)
    found = fit_annealing(curves)
    assert (found.memory, found.floor) == (0.995, pytest.approx(1.5, rel=0.01))
    assert (found.gain, found.exponent) == (pytest.approx(0.002, rel=0.02), pytest.approx(0.5, abs=0.02))
    steps, loss = smoothed(np.arange(1.0, 1001.0), np.ones(1000), 20, skip=10)
    assert steps[0] > 10
    assert loss == pytest.approx(1.0)


def test_an_analysis_predicts_and_advises():
    runs = runs_of(CHINCHILLA, TRUTH, 0.003)
    found = analyse(
        runs, ["chinchilla", "kaplan", "repetition"], cost_of, budgets=np.geomspace(1e10, 1e14, 9), replicates=60
    )
    assert HEADLINE in found.fits
    assert "repetition" in found.left_out
    assert len(found.isoflop) > 0
    expected, _, _ = best_split(CHINCHILLA, TRUTH, found.frontier.compute, cost_of, (1e2, 1e8))
    assert found.frontier.size[0] == pytest.approx(expected, rel=0.3)
    front = envelope(runs)
    assert (np.diff(runs.loss[front]) < 0).all()
    with pytest.raises(ValueError, match="These runs fix no law"):
        analyse(runs.subset(slice(0, 6)), [], cost_of, budgets=np.array([1e12]))
    assert operations(None, 2.0, "h100", 0.5, 1.0) == pytest.approx(3600 * 2 * 989e12 * 0.5)
    with pytest.raises(ValueError, match="give one of them"):
        operations(None, None, "h100", 0.5, 1.0)
    with pytest.raises(ValueError, match="expected one of here"):
        operations(None, 1.0, "abacus", 0.5, 1.0)


def test_scores_saturate_and_ladders_lead_from_loss_to_score():
    compute = np.geomspace(1e10, 1e13, 12)
    found = saturating_of(compute, {"score_1": 0.1 + 50.0 * compute**-0.25, "gaps": np.full(12, np.nan)}, 20)
    assert [*found] == ["score_1"]
    assert found["score_1"].parameters == pytest.approx([np.log(50.0), np.log(0.1), 0.25], rel=1e-2)
    loss = np.geomspace(0.1, 0.3, 10)
    assert ladder_of(loss, 0.5 + 3.0 * loss**1.5, 20).parameters[2] == pytest.approx(1.5, rel=0.02)
    assert power_through(np.array([1.0, 10.0]), np.array([2.0, 200.0]))(np.array([100.0])) == pytest.approx(2e4)


def test_a_wrong_form_widens_what_it_predicts():
    """Runs in which data are worth more to larger networks, laid against the additive law, and runs of that law."""
    sizes, data = (x.ravel() for x in np.meshgrid(np.geomspace(1e5, 1e7, 5), np.geomspace(1e6, 1e8, 4)))
    additive = CHINCHILLA.loss(TRUTH, Runs(sizes, data, np.ones(20), np.ones(20)))
    joint = 0.1 + 3 * sizes**-0.3 + 30 * data ** -(0.07 * np.log10(sizes))
    right, wrong = (fit(CHINCHILLA, Runs(sizes, data, loss, 6 * sizes * data), "squares") for loss in (additive, joint))
    assert abs(asked(right, 9.0).error) < 1e-6
    noisy = asked(fit(CHINCHILLA, runs_of(CHINCHILLA, TRUTH, 0.005), "squares"), 3.0)
    assert noisy.held
    assert noisy.at(9.0) == 0.0
    tried = asked(wrong, 9.0)
    assert tried.factor == pytest.approx(10.0)
    assert abs(tried.error) > 0.2
    assert not tried.held
    assert (tried.at(1.0), tried.at(tried.factor)) == (0.0, pytest.approx(abs(tried.error)))
    found = np.array([0.2, 0.18, 0.23])
    value, low, high = widened(found, Backtest(4.0, -0.1, False), 16.0)
    assert value == pytest.approx(0.2)
    assert np.log(0.2 / low) == pytest.approx(np.hypot(np.log(0.2 / 0.18), 1.6449 * 0.2), rel=1e-4)
    assert np.log(high / 0.2) == pytest.approx(np.hypot(np.log(0.23 / 0.2), 1.6449 * 0.2), rel=1e-4)
    assert widened(found, None, 16.0) == pytest.approx(found)
    few = wrong.runs.subset(sizes == sizes.min())
    assert smaller_runs(few, ["chinchilla"], 3.0) is None


def asked(law_fit: Fit, beyond: float) -> Backtest:
    return backtest(law_fit, smaller_runs(law_fit.runs, [law_fit.law.name], beyond))


def test_laws_are_compared_on_the_same_question():
    """Kaplan's law can be asked from further below the largest Swin than the additive one, which misses by less."""
    runs = planet("planet_swin")
    fits = {f"{law.name} squares": fit(law, runs, "squares") for law in (CHINCHILLA, KAPLAN, SATURATING)}
    own, compared = backtested(fits, 3.05)
    assert own["kaplan squares"].factor == pytest.approx(5.17, abs=0.01)
    assert own["chinchilla squares"].factor == pytest.approx(2.4)
    assert {name: found.factor for name, found in compared.items()} == pytest.approx(
        {"chinchilla squares": 2.4, "kaplan squares": 2.4}
    )
    assert compared["chinchilla squares"].error == pytest.approx(-0.0222, abs=2e-4)
    assert compared["kaplan squares"].error == pytest.approx(-0.0258, abs=2e-4)


def test_replicates_of_farseers_law_move():
    """One of its columns is 1e13 times as steep as the others, and must not hold them where they are."""
    truth = np.array([-0.89, 0.46, 0.0592, -3.5e-15, 1.35, 2.26, -0.0056, -1.02, 0.396])
    runs = planet("planet_sfno")
    noise = 0.002 * np.random.default_rng(0).standard_normal(len(runs))
    runs = Runs(runs.size, runs.data, FARSEER.loss(truth, runs) * np.exp(noise), runs.compute)
    drawn = bootstrapped(Fit(FARSEER, "squares", truth, 0.0, noise, runs), 60).replicates
    moved = dict(zip(FARSEER.parameters, drawn.std(axis=0), strict=True))
    assert min(moved[name] for name in ("a1", "b1", "b2", "b3", "beta", "gamma")) > 2e-3


def test_a_best_size_is_sought_near_the_runs_and_may_not_exist():
    """Farseer's exponentials fall again at sizes far beyond the runs, and from some budget on at once."""
    values = np.array([-0.89, 0.46, 0.0592, -3.5e-15, 1.35, 2.26, -0.0056, -1.02, 0.396])
    runs = planet("planet_sfno")
    sizes = np.unique(runs.size)
    rate = power_through(sizes, np.array([(runs.compute / runs.data)[runs.size == size][0] for size in sizes]))
    found = Fit(FARSEER, "squares", values, 0.0, np.zeros(len(runs)), runs)
    best, _, loss = best_split(FARSEER, values, np.array([1e12]), rate, (1e3, 2.4e7))
    assert best[0] == pytest.approx(1.9e5, rel=0.15)
    assert loss[0] == pytest.approx(0.26, abs=0.01)
    assert splits(found, np.array([1e12]), rate, (1e3, 2.4e7))
    assert not splits(found, np.array([1e12, 1e15]), rate, (1e3, 2.4e7))
    additive = Fit(CHINCHILLA, "squares", TRUTH, 0.0, np.zeros(len(runs)), runs)
    fits = {"farseer squares": found, "chinchilla squares": additive}
    assert splitting(fits, [*fits], np.array([1e15]), cost_of, (1e1, 1e12)) == "chinchilla squares"
    assert splitting(fits, [*fits], np.array([1e12]), rate, (1e3, 2.4e7)) == "farseer squares"
