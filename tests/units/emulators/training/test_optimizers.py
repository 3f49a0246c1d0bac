"""Schedules and optimisers."""

import math
from collections import OrderedDict

import pytest
import torch

from emulators.training.optimizers import AdamW, Constant, Muon, WarmupCosine, WarmupStableDecay, orthogonal


def test_every_schedule_rises_linearly_first():
    for schedule in (Constant(warmup=9), WarmupCosine(warmup=9), WarmupStableDecay(warmup=9)):
        assert [round(schedule(n, 1000), 12) for n in (0, 4)] == [0.1, 0.5]
        assert schedule(9, 1000) == pytest.approx(1.0)


def test_cosine_ends_at_final():
    schedule = WarmupCosine(warmup=0, final=0.1)
    assert schedule(500, 1000) == pytest.approx(0.55)
    assert schedule(1000, 1000) == pytest.approx(0.1)


def test_cooldown_is_one_minus_sqrt():
    schedule = WarmupStableDecay(cooldown=0.2)
    assert schedule(799, 1000) == 1.0
    assert schedule(850, 1000) == pytest.approx(1 - math.sqrt(0.25))
    assert schedule(1000, 1000) == pytest.approx(0.0)
    with pytest.raises(ValueError, match="share"):
        WarmupStableDecay(cooldown=20)


def test_adamw_decays_matrices_only():
    optimizer = AdamW(lr=0.1, weight_decay=0.5)(torch.nn.Linear(3, 2))
    assert [(g["weight_decay"], len(g["params"])) for g in optimizer.param_groups] == [(0.5, 1), (0.0, 1)]
    with pytest.raises(ValueError, match="positive"):
        AdamW(lr=0.0)


def test_adamw_takes_complex_parameters():
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(torch.randn(3, 3, dtype=torch.complex64))
    before, optimizer = module.weight.detach().clone(), AdamW(lr=0.1)(module)
    module.weight.abs().sum().backward()
    optimizer.step()
    assert (module.weight != before).all()


def test_orthogonal_brings_singular_values_near_one():
    generator = torch.Generator().manual_seed(0)
    for shape in ((3, 8, 8), (2, 16, 5), (2, 5, 16)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape, generator=generator)))
        assert 0.6 < float(values.min())
        assert float(values.max()) < 1.25


def test_muon_moves_stacks_of_matrices_one_by_one():
    network = torch.nn.ModuleDict(
        {"blocks": torch.nn.ParameterDict({"w": torch.zeros(3, 4, 4, 2)}), "head": torch.nn.Linear(2, 2)}
    )
    weight = network["blocks"]["w"]
    weight.matrix_axes = (1, 2)
    optimizer = Muon(lr=0.1, weight_decay=0.0, adam_lr=0.01)(network)
    scale = torch.tensor([1.0, 1e3, 1e-3]).view(3, 1, 1, 1)
    before = network["head"].weight.detach().clone()
    loss = (weight * scale * torch.randn(3, 4, 4, 2, generator=torch.Generator().manual_seed(1))).sum()
    (loss + network["head"].weight.sum()).backward()
    optimizer.step()
    sizes = torch.linalg.matrix_norm(weight.detach().movedim((1, 2), (-2, -1)))
    torch.testing.assert_close(sizes, torch.full((3, 2), 0.2), rtol=0.15, atol=0)  # 0.1 sqrt(4), whatever the gradient
    torch.testing.assert_close(before - network["head"].weight.detach(), torch.full((2, 2), 0.01), rtol=1e-4, atol=0)


def test_muon_descends_and_its_state_survives_a_checkpoint():
    torch.manual_seed(0)
    fields, truth = torch.randn(64, 6), torch.randn(64, 3)

    def network():
        torch.manual_seed(1)
        return torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))

    def train(net, optimizer, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            loss = (net(fields) - truth).square().mean()
            loss.backward()
            optimizer.step()
        return float(loss.detach())

    make = Muon(lr=0.02, inside="0", weight_decay=0.01)
    whole, parted = network(), network()
    one = make(whole)
    first = train(whole, one, 1)
    assert train(whole, one, 39) < 0.9 * first
    two = make(parted)
    train(parted, two, 20)
    again = make(parted)
    again.load_state_dict(two.state_dict())
    train(parted, again, 20)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parted.parameters(), strict=True))


@pytest.mark.parametrize(("inside", "inner"), [("0", 1), (["0", "2"], 2), (None, 2)])
def test_words_of_the_inner_matrices(inside, inner):
    net = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
    assert len(Muon(inside=inside)(net).param_groups[0]["params"]) == inner


def test_muon_without_inner_matrices_says_what_there_is():
    with pytest.raises(ValueError, match="matrices are first, last:"):
        Muon()(torch.nn.Sequential(OrderedDict(first=torch.nn.Linear(2, 2), last=torch.nn.Linear(2, 2))))
