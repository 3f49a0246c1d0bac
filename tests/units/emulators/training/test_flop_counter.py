"""Counts of floating-point operations against closed forms, and the steps that a budget pays for."""

import math
from types import SimpleNamespace

import pytest
import torch

from emulators.training.flop_counter import Operations, steps_within_flops


def counted(run) -> int:
    with Operations() as operations:
        run()
    return operations.total


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_products_and_transforms(device):
    a, b = torch.ones(3, 4, 5, device=device), torch.ones(3, 5, 6, device=device)
    assert counted(lambda: a @ b) == 2 * 3 * 4 * 5 * 6
    assert counted(lambda: a.cfloat() @ b.cfloat()) == 8 * 3 * 4 * 5 * 6
    assert counted(lambda: torch.einsum("bij,bjk->bik", a.cfloat(), b.cfloat())) == 8 * 3 * 4 * 5 * 6
    field = torch.ones(7, 16, 32, device=device)
    whole = 5 * 7 * 16 * 32 * math.log2(16 * 32)
    assert counted(lambda: torch.fft.fft2(field.cfloat())) == whole
    assert counted(lambda: torch.fft.rfft2(field)) == whole / 2
    assert counted(lambda: torch.fft.irfft2(field[..., :17].cfloat())) == pytest.approx(whole / 2, rel=0.3)
    assert counted(lambda: torch.fft.rfft(field)) == 2.5 * 7 * 16 * 32 * math.log2(32)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_counts_the_same_wherever_it_runs(device, masked):
    query = torch.ones(2, 4, 16, 8, device=device, requires_grad=True)
    key, value = (torch.ones(2, 4, 12, 8, device=device, requires_grad=True) for _ in range(2))
    mask = torch.zeros(16, 12, device=device) if masked else None
    forward = 2 * 2 * (2 * 4) * 16 * 12 * 8

    def attention():
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, mask)

    assert counted(attention) == forward
    assert counted(lambda: attention().sum().backward()) == 3 * forward


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_pointwise_mlp_counts_three_times_its_forward_pass_with_its_gradients(device):
    from emulators.layers.pointwise import PointwiseMLP

    with torch.device(device):
        network, field = PointwiseMLP(6, 12), torch.ones(10, 6, requires_grad=True)
    forward = 2 * 2 * 10 * 6 * 12
    assert counted(lambda: network(field)) == forward
    assert counted(lambda: network(field).sum().backward()) == 3 * forward


def test_counts_are_the_same_in_inference_mode():
    linear, field = torch.nn.Linear(4, 6), torch.ones(3, 5, 4)
    image, kernel = torch.ones(2, 3, 8, 8), torch.ones(4, 3, 3, 3)

    def passes():
        linear(field)
        torch.einsum("bij,bjk->bik", field, field.mT)
        torch.nn.functional.conv2d(image, kernel)
        torch.fft.rfft2(image)
        torch.nn.functional.scaled_dot_product_attention(field[None], field[None], field[None])

    with torch.no_grad():
        expected = counted(passes)
    with torch.inference_mode():
        assert counted(passes) == expected > 0


def test_a_harmonic_filter_is_counted_as_the_products_that_it_is():
    from emulators.grid import equiangular_grid
    from emulators.layers.spectral_layers import DegreeConvolution
    from emulators.sphere.transform import SphericalHarmonics

    with torch.device("meta"):
        sphere, mixing = SphericalHarmonics(equiangular_grid(32), 32, 32), DegreeConvolution(32, 8)
    field = torch.empty(64, 32, 8, device="meta")
    forward = counted(lambda: mixing(sphere.analysis(field).unflatten(2, (1, 8))))
    latitude = 2 * 2 * 32 * 32 * 32 * 8  # every order with every degree
    assert latitude / 2 < forward < 3 * latitude


def budgeted(flops, lengths=(1,), **plan):
    linear = torch.nn.Linear(4, 4)
    lasting = SimpleNamespace(weight=1.0, span=lambda steps: (0, steps))

    class Objective:
        def length(self, step):
            return lengths[min(step, len(lengths) - 1)]

        def size(self, step):
            return 0

        def at(self, step):
            pass

        def __call__(self, step, window, losses):
            for _ in range(window):
                loss = step(torch.ones(2, 4)).sum()
            return loss * window, {}

    objective = Objective()
    training = SimpleNamespace(
        plan=SimpleNamespace(flops=flops, steps=1, accumulate=1, **plan),
        objective=objective,
        losses={"mse": lasting},
        step=linear,
    )
    steps = steps_within_flops(training, lambda number: objective.length(number))
    assert linear.weight.grad is None
    return steps


def test_a_budget_pays_for_whole_steps_as_long_as_their_rollouts():
    forward, backward = 2 * 2 * 4 * 4, 2 * 2 * 4 * 4  # a layer whose input needs no gradient
    once = forward + backward
    assert budgeted(10 * once) == 10
    assert budgeted(10 * once - 1) == 9
    assert budgeted(2 * once + 8 * (2 * forward + backward), lengths=(1, 1, 2)) == 10
    with pytest.raises(ValueError, match="does not pay for a step, which takes 128"):
        budgeted(once - 1)
