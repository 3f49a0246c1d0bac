"""SFNO against independent implementations: ACE's stored output from its stored weights; fme and torch-harmonics."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emulators.grid import equiangular_grid, gaussian_grid
from emulators.models import sfno
from emulators.models.sfno import SFNO
from emulators.training.published_weights import converted, fill
from emulators.variables import Variable, VariableSet
from emulators.world import World
from places import SHARED

ACE = SHARED / "reference" / "ace"


def world(grid, into: int, out: int) -> World:
    """`out` channels, of which as many are read again as there is room for, and forcing for the rest."""
    same = min(into, out)
    sets = {"prognostic": same, "diagnostic": out - same, "forcing": into - same}
    return World(
        grid,
        timestep=np.timedelta64(6, "h"),
        **{name: VariableSet((Variable(name, "", tuple(range(n))),) if n else ()) for name, n in sets.items()},
    )


def test_the_conditional_network_repeats_the_stored_output():
    """Weights, input, noise, labels, scalars and output as stored by ai2cm/ace (57c54a7, Apache-2.0)."""
    if not ACE.exists():
        pytest.skip(f"needs {ACE}")
    stored = torch.load(ACE / "test_sfnonet_checkpoint_input.pt", map_location="cpu", weights_only=True)
    expected = torch.load(ACE / "test_sfnonet_checkpoint_output.pt", map_location="cpu", weights_only=True)
    theirs = {name: value for name, value in stored.items() if name not in ("x", "context")}
    context, fields = stored["context"], stored["x"]
    net = SFNO(
        world(equiangular_grid(9, 18, poles=True), 2, 3), embed=16, layers=2, norm="layer", affine_norms=False,
        filter_bias=True, quadrature=True, noise=16, labels=4, scalars=8,
    )  # fmt: skip
    fill(net, converted(theirs, sfno))
    told = {"noise": context["noise"], "labels": context["labels"], "scalars": context["embedding_scalar"]}
    with torch.no_grad():
        output = net(fields, torch.zeros(4, dtype=torch.int64), **told)
    torch.testing.assert_close(output, expected, rtol=1e-6, atol=1e-6)


def randomised(net) -> None:
    """Every parameter away from where it starts, so that nothing is hidden by a zero or a one."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))


def assert_same(theirs, ours, fields) -> None:
    """Outputs and gradients of the input alike."""
    weight = torch.randn(fields.shape[0], 3, *fields.shape[2:], generator=torch.Generator().manual_seed(7))
    answers = []
    for net in (theirs, lambda x: ours(x, torch.zeros(len(x), dtype=torch.int64))):
        x = fields.clone().requires_grad_()
        output = net(x)
        (output * weight).sum().backward()
        answers.append((output.detach(), x.grad))
    torch.testing.assert_close(answers[1], answers[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale_factor", [1, 2])
def test_the_plain_block_is_that_of_torch_harmonics(scale_factor):
    models = pytest.importorskip("torch_harmonics.examples.models.sfno")
    torch.manual_seed(0)
    grid, name = (gaussian_grid(12), "legendre-gauss") if scale_factor == 1 else (equiangular_grid(13, 24, True), None)
    theirs = models.SphericalFourierNeuralOperator(
        img_size=grid.shape, grid=name or "equiangular", scale_factor=scale_factor, in_chans=2, out_chans=3,
        embed_dim=8, num_layers=3,
    )  # fmt: skip
    randomised(theirs)
    ours = SFNO(
        world(grid, 2, 3), block="torch_harmonics", embed=8, layers=3, scale_factor=scale_factor, quadrature=True,
        encoder_layers=0, position_embedding="none", norm="none", big_skip=False,
    )  # fmt: skip
    fill(ours, converted(theirs.state_dict(), sfno))
    assert_same(theirs, ours, torch.randn(2, 2, *grid.shape))


@pytest.mark.parametrize(
    ("grid_name", "encoder_layers"), [("legendre-gauss", 1), ("equiangular", 1), ("equiangular", 3)]
)
def test_the_ace_block_is_that_of_fme(grid_name, encoder_layers):
    modulus = pytest.importorskip("fme.ace.models.modulus.sfnonet")
    grid = gaussian_grid(12) if grid_name == "legendre-gauss" else equiangular_grid(12, 24, True)
    settings = {
        "operator_type": "dhconv", "scale_factor": 1, "embed_dim": 8, "num_layers": 2, "filter_type": "linear",
        "data_grid": grid_name, "spectral_transform": "sht", "spectral_layers": 1,
        "encoder_layers": encoder_layers,
    }  # fmt: skip
    torch.manual_seed(0)
    theirs = modulus.SphericalFourierNeuralOperatorNet(
        type("Options", (), settings)(), img_shape=grid.shape, in_chans=2, out_chans=3
    )
    randomised(theirs)
    ours = SFNO(world(grid, 2, 3), embed=8, layers=2, encoder_layers=encoder_layers, filter_bias=True, quadrature=True)
    fill(ours, converted(theirs.state_dict(), sfno))
    assert_same(theirs, ours, torch.randn(2, 2, *grid.shape))


@pytest.mark.parametrize("scale_factor", [1, 2])
def test_the_makani_block_is_that_of_makani(scale_factor):
    """The copy of Makani 0.1.0 in fme."""
    makani = pytest.importorskip("fme.ace.models.makani.sfnonet")
    grid = gaussian_grid(16) if scale_factor == 1 else equiangular_grid(17, 32, True)
    torch.manual_seed(0)
    theirs = makani.SphericalFourierNeuralOperatorNet(
        inp_chans=2, out_chans=3, inp_shape=grid.shape, out_shape=grid.shape, scale_factor=scale_factor, embed_dim=8,
        num_layers=3, model_grid_type="legendre-gauss" if scale_factor == 1 else "equiangular",
    )  # fmt: skip
    randomised(theirs)
    ours = SFNO(
        world(grid, 2, 3), block="makani", embed=8, layers=3, scale_factor=scale_factor, quadrature=True,
        position_embedding="none",
    )  # fmt: skip
    fill(ours, converted(theirs.state_dict(), sfno))
    assert_same(theirs, ours, torch.randn(2, 2, *grid.shape))
