"""Networks and a loss of peers, for trainings beside ours: `emul train --config-dir tests/benchmarks/peers model=...`.

The networks are those of the peers' own code, which is imported from the environment: torch-harmonics 0.8.0 from PyPI,
and `torch_harmonics_local.py` of a checkout of LUCIE on PYTHONPATH (Guan et al. 2024, arXiv 2405.16297).
"""

import torch
from torch import Tensor, nn

from emulators.scores.channel_weights import AreaChannelWeights
from emulators.state import State
from emulators.world import World


class TorchHarmonics(nn.Module):
    """The SFNO of torch-harmonics' example: the next normalised state is the present one and the network's output.

    width: channels of the hidden state. scale: by which the inner grid is coarser.
    """

    def __init__(self, world: World, *, width: int = 32, scale: int = 1) -> None:
        super().__init__()
        from torch_harmonics.examples.models.sfno import SphericalFourierNeuralOperator

        self.same = world.prognostic.size
        self.network = SphericalFourierNeuralOperator(
            img_size=world.grid.shape,
            grid="legendre-gauss",
            in_chans=world.input_channels,
            out_chans=world.output_channels,
            num_layers=4,
            scale_factor=scale,
            embed_dim=width,
            activation_function="gelu",
            use_mlp=True,
            normalization_layer="instance_norm",
        )

    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        """time: not used."""
        change = self.network(fields)
        return torch.cat([change[:, : self.same] + fields[:, : self.same], change[:, self.same :]], dim=1)


class Lucie(nn.Module):
    """The SFNO of LUCIE, with the settings of its training."""

    def __init__(self, world: World, *, width: int = 72) -> None:
        super().__init__()
        from torch_harmonics_local import SphericalFourierNeuralOperatorNet

        self.network = SphericalFourierNeuralOperatorNet(
            params={},
            spectral_transform="sht",
            filter_type="linear",
            operator_type="dhconv",
            img_shape=world.grid.shape,
            num_layers=8,
            in_chans=world.input_channels,
            out_chans=world.output_channels,
            scale_factor=1,
            embed_dim=width,
            activation_function="silu",
            big_skip=True,
            pos_embed="latlon",
            use_mlp=True,
            normalization_layer="instance_norm",
            hard_thresholding_fraction=0.9,
            mlp_ratio=2.0,
        )

    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        """time: not used."""
        return self.network(fields)


class LucieLoss(nn.Module):
    """The loss of LUCIE's first phase: the error of the normalised changes relative to their size, and precipitation's.

    L = sum_c |d'_c - d_c|^2 / sum_c |d_c|^2 + mean (p' - p)^2 / channels,   d: change in its standard deviations
    """

    def __init__(self, world: World) -> None:
        super().__init__()
        self.changes = world.prognostic.size
        self.weights = AreaChannelWeights(world, "tendency_std", "uniform", "uniform")

    def forward(self, prediction: State, target: State) -> Tensor:
        before = prediction.start.values[..., : self.changes, :, :].flatten(-2)
        scale = self.weights.inverse_scale(prediction).flatten(-2)
        error = (self.weights.difference(prediction, target).flatten(-2) * scale).square()
        change = ((target.values.flatten(-2)[..., : self.changes, :] - before) * scale[: self.changes]).square()
        size = (change @ self.weights.area).sum(-1).clamp(min=1e-12)
        relative = (error[..., : self.changes, :] @ self.weights.area).sum(-1) / size
        return relative + error[..., self.changes :, :].mean((-2, -1)) / error.shape[-2]
