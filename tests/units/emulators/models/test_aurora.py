"""Aurora: light decoders beside a frozen network, and what version 1.5 adds: noise of each token, leads, weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from networks import build, channels, randomised

from emulators.grid import equiangular_grid
from emulators.layers.attention.wave_embedding import lead_waves
from emulators.layers.sample_draws import normal
from emulators.models.aurora import ORDER, WRITTEN_ONLY, adapted
from emulators.world import World

GROUND = ORDER[26:62]
SHAPES = {"weight": (3,), "bias": ()}


def test_light_decoders_leave_the_frozen_network_as_it_is():
    """Fields of the network do not change by a decoder beside it, which alone learns, at its place in the answer."""
    air = {"temperature": 2, "msl": 0}
    bare = World(equiangular_grid(16), channels(0, air), np.timedelta64(6, "h"), history=2)
    more = replace(bare, diagnostic=channels(0, {"rain": 0, "cloud": 0}))
    torch.manual_seed(0)
    whole = randomised(build("aurora_small", replace(bare, diagnostic=channels(0, {"cloud": 0})), embed=16))
    net = build("aurora_small", more, embed=16, light=["rain"], light_hidden=8, frozen=True, drop_path=0.5)
    missing, unexpected = net.load_state_dict(whole.state_dict(), strict=False)
    assert not unexpected
    assert all(name.startswith("light.rain.") for name in missing)
    fields, time = torch.randn(2, bare.input_channels, 16, 32), torch.zeros(2, dtype=torch.int64)
    out = net.train()(fields, time)
    torch.testing.assert_close(out[:, [0, 1, 2, 4]], whole(fields, time))
    out.square().mean().backward()
    assert {name for name, p in net.named_parameters() if p.grad is not None} == set(missing)


def test_noise_of_each_token_moves_the_norms_and_hours_are_told_without_fast_waves():
    air = World(equiangular_grid(16), channels(0, {"t": 2, "msl": 0}), np.timedelta64(6, "h"), history=2)
    torch.manual_seed(0)
    net = randomised(build("aurora_15_small", air, embed=16))
    fields, time = torch.randn(2, air.input_channels, 16, 32), torch.zeros(2, dtype=torch.int64)
    drawn = torch.stack(normal(2, (4, 8, 16, 16), "cpu", torch.Generator().manual_seed(1)))
    with torch.no_grad():
        still, moved = net(fields, time), net(fields, time, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(net(fields, time, noise=drawn), moved, rtol=0.0, atol=0.0)
        torch.testing.assert_close(net(fields, time, noise=0.0 * drawn), still, rtol=0.0, atol=0.0)
        drawn[1, 2, 3, 5] += 1.0
        other = (net(fields, time, noise=drawn) - moved).abs().amax((1, 2, 3))
    assert (moved - still).abs().max() > 1e-3
    assert other[0] == 0.0 < other[1]
    hours = torch.tensor([1.0, 6.0])
    waves = lead_waves(hours, 8, True)
    torch.testing.assert_close(waves[:, 3], hours / 504.0)
    torch.testing.assert_close(
        waves[:, [0, 7]], torch.stack([(np.pi * hours / 3).sin(), (np.pi * hours / 252).cos()], 1)
    )


def test_one_tensor_for_all_variables_is_read_as_one_for_each():
    """Weights of Aurora 1.5 come in two forms; insolation and what is only written have other places than ours."""
    surface = [*ORDER[:18], *WRITTEN_ONLY, "insolation"]
    read, each = [*surface, *GROUND], {}
    each |= {f"embed_surface.weight.{v}": torch.randn(3, 1, 2, 2, 2) for v in read}
    each |= {f"surface.{part}.{v}": torch.randn(4, *rest) for part, rest in SHAPES.items() for v in surface}
    upper = {f"embed_levels.weight.{v}": torch.randn(3, 1, 2, 2, 2) for v in "zuvtq"}
    upper |= {f"upper.{part}.{v}": torch.randn(4, *rest) for part, rest in SHAPES.items() for v in "zuvtq"}
    whole = {"embed_surface.weight.": torch.cat([each[f"embed_surface.weight.{v}"] for v in read], 1)}
    for part in SHAPES:
        whole[f"surface.{part}."] = torch.stack([each[f"surface.{part}.{v}"] for v in surface], 1).flatten(0, 1)
    got, expected = adapted({**whole, **upper}), adapted({**each, **upper})
    assert got.keys() == expected.keys()
    for name, value in got.items():
        torch.testing.assert_close(value, expected[name])
    kernels = expected["embed_surface.weight"]
    assert kernels.shape == (3, 2 * 19 + 36, 2, 2)
    torch.testing.assert_close(kernels[:, 18], each["embed_surface.weight.insolation"][:, 0, 0])
    torch.testing.assert_close(expected["surface.bias"].unflatten(0, (4, 26))[:, 18], each["surface.bias.insolation"])
