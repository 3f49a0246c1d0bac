"""Every sampler of conf/sampler: the distribution it samples, that it ends where it should, and what it draws from."""

from __future__ import annotations

import pytest
import torch
from omegaconf import OmegaConf

from emul.config.build import build
from emul.config.compose import compose
from emulators.layers.noise_levels import PROCESSES, Process
from places import CONF

FILES = sorted((CONF / "sampler").glob("*.yaml"))
STD = 0.5


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def sampler(request):
    return build(OmegaConf.load(request.param), None)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_denoising_step_takes_each(file):
    composed = compose("train", ["step=denoising", f"sampler={file.stem}"])
    assert composed.sampler._target_ == OmegaConf.load(file)._target_


def process_of(sampler) -> Process:
    """The process that its levels are made for: shares up to 1, or standard deviations."""
    kinds = [kind for kind in PROCESSES if kind in sampler.processes]
    if "edm" in kinds and sampler.levels[0] > 1:
        return Process("edm", STD)
    return Process("flow" if "flow" in kinds else kinds[0])


def exact(process: Process):
    """The mean of N(0, STD^2) given noisy values."""

    def restore(x, level):
        signal, noise = process.amplitudes(level)
        return x * (signal * STD**2 / ((signal * STD) ** 2 + noise**2))

    return restore


def drawing(seed: int, size: int = 20_000):
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(size, generator=generator, dtype=torch.float64)


def test_levels_descend_to_nothing(sampler):
    assert list(sampler.levels) == sorted(sampler.levels, reverse=True)
    assert sampler.levels[-1] == 0.0
    assert all(level > 0 for level in sampler.levels[:-1])


def test_samples_have_the_spread_of_the_data(sampler):
    if len(sampler.levels) < 10:
        pytest.skip("refines a forecast in few passes, of which the first gives the mean")
    process = process_of(sampler)
    samples = sampler(process, exact(process), drawing(0))
    assert samples.mean().abs() < 0.02
    assert abs(float(samples.std()) / STD - 1.0) < 0.15


def test_what_is_known_exactly_is_returned(sampler):
    """A network that knows the answer gives it, whatever the noise."""
    process = process_of(sampler)
    answer = torch.linspace(-1.0, 1.0, 50, dtype=torch.float64)
    got = sampler(process, lambda x, level: answer, drawing(1, 50))
    torch.testing.assert_close(got, answer, rtol=0, atol=1e-12)


def test_same_draws_same_sample(sampler):
    process = process_of(sampler)
    first, again, other = (sampler(process, exact(process), drawing(seed, 50)) for seed in (2, 2, 3))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_noise_zero_gives_the_mean(sampler):
    process = process_of(sampler)
    samples = sampler(process, exact(process), lambda: torch.zeros(3, dtype=torch.float64))
    assert torch.equal(samples, torch.zeros(3, dtype=torch.float64))


def test_levels_without_sense_are_refused(sampler):
    with pytest.raises(ValueError, match="smallest"):
        type(sampler)(None, smallest=-1.0)
