"""Points without data: what is predicted there counts in no loss, and is what the data are filled with."""

import pytest
import torch

from emulators.constraints.masked import Masked
from emulators.losses.lp import Lp


def test_no_loss_counts_what_is_masked(column_world, weather):
    world = column_world()
    masked = Masked(world, variables={"skin_temperature": ["land_sea_mask", 270.0]})
    before, target = (weather(world, some, 1) for some in (world.prognostic, world.predicted))
    forcing = weather(world, world.forcing, 2)
    land = torch.as_tensor(world.static_fields[0]).round() == 1.0
    target = target.with_(skin_temperature=torch.where(land, target["skin_temperature"], 270.0))
    guess = target["skin_temperature"].detach() + 1.0
    guess.requires_grad_()
    made = masked(before, target.with_(skin_temperature=guess), forcing)
    Lp(world)(made, target).sum().backward()
    assert (guess.grad[:, land] != 0).all()
    assert (guess.grad[:, ~land] == 0).all()


def test_masks_that_are_not_there(column_world):
    with pytest.raises(ValueError, match=r"data\.masks=\[skin_temperature\]"):
        Masked(column_world(), variables={"skin_temperature": ["skin_temperature_mask", 0.0]})
    with pytest.raises(ValueError, match="'sst' is not predicted"):
        Masked(column_world(), variables={"sst": ["land_sea_mask", 0.0]})
