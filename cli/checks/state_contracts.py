"""Contracts of losses and constraints: what each must do on States of any World; see `emul.contracts`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from emul.checks.example_worlds import example_state
from emulators.state import State
from emulators.world import World

close = torch.testing.assert_close


def require(holds: object, contract: str) -> None:
    """Raise AssertionError with the broken contract."""
    if not bool(holds):
        raise AssertionError(contract)


# --- losses ------------------------------------------------------------------------------------------------------


def _pair(world: World, batch: int = 2, dtype: torch.dtype = torch.float64) -> tuple[State, State]:
    """A truth and a forecast that is wrong by the spread of each channel."""
    truth, other = (example_state(world, world.predicted, seed, (batch,), dtype) for seed in (1, 2))
    return truth, other


def loss_is_zero_at_the_truth(loss: Any, world: World) -> None:
    truth, other = _pair(world)
    require((loss(truth, truth).abs() < 1e-12).all(), "a loss is zero at the truth")
    require((loss(other, truth) > 0).all(), "a loss is positive elsewhere")


def loss_is_one_number_a_case(loss: Any, world: World) -> None:
    truth, other = _pair(world, batch=3)
    values = loss(other, truth)
    require(values.shape == (3,), f"a loss has one number for each case, shape (3,), not {tuple(values.shape)}")
    first = loss(replace(other, values=other.values[:1]), replace(truth, values=truth.values[:1]))
    close(values[:1], first, msg="the loss of a case does not depend on the others")


def loss_has_right_gradients(loss: Any, world: World) -> None:
    truth, other = _pair(world, batch=1)
    spread = torch.as_tensor(world.scale(world.predicted, "std"), dtype=torch.float64).reshape(-1, 1, 1)
    _gradients(lambda values: loss(replace(other, values=values), truth).sum(), other.values, spread, 1e-5, 1e-8)


def loss_needs_no_double_precision(loss: Any, world: World) -> None:
    exact = loss(*reversed(_pair(world)))
    single = loss(*reversed(_pair(world, dtype=torch.float32)))
    close(single.double(), exact, rtol=1e-4, atol=0.0)


def loss_is_unchanged_by_autocast(loss: Any, world: World) -> None:
    truth, other = _pair(world, dtype=torch.float32)
    values = other.values.requires_grad_()
    plain = loss(other, truth)
    (slope,) = torch.autograd.grad(plain.sum(), values)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(other, truth)
    require(found.dtype == torch.float32, "a loss stays in single precision under autocast")
    close(found, plain, rtol=1e-6, atol=0.0)
    close(torch.autograd.grad(found.sum(), values)[0], slope, rtol=1e-5, atol=1e-7)


def loss_takes_members(loss: Any, world: World) -> None:
    truth, other = _pair(world)
    both = replace(other, values=torch.stack([other.values, truth.values]))
    values = loss(both, replace(truth, values=truth.values.expand_as(both.values)))
    require(values.shape == (2, 2), "a loss keeps (member, batch)")
    close(values[0], loss(other, truth))
    require((values[1].abs() < 1e-12).all(), "the loss of a member does not depend on the others")


LOSS = (
    loss_is_zero_at_the_truth, loss_is_one_number_a_case, loss_has_right_gradients, loss_needs_no_double_precision,
    loss_is_unchanged_by_autocast, loss_takes_members,
)  # fmt: skip


def _gradients(
    value: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor, spread: torch.Tensor, rtol: float, atol: float
) -> None:
    """Compare the gradient with finite differences along random directions, in steps that are shares of the spread."""
    values = at.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(values), values)
    generator = torch.Generator().manual_seed(3)
    for _ in range(4):
        direction = spread * torch.randn(values.shape, generator=generator, dtype=torch.float64)
        difference = (value(values + 1e-6 * direction) - value(values - 1e-6 * direction)) / 2e-6
        close((gradient * direction).sum(), difference.detach(), rtol=rtol, atol=atol)


# --- constraints -------------------------------------------------------------------------------------------------


def _transition(world: World, dtype: torch.dtype = torch.float64) -> tuple[State, State, State]:
    """before, after, forcing of two cases: a plausible `before`, and an `after` with some unlawful values."""
    before, after, forcing = (
        example_state(world, variables, seed, dtype=dtype)
        for seed, variables in enumerate((world.prognostic, world.predicted, world.forcing))
    )
    wet = after["specific_humidity"].clone()
    wet[..., ::3, ::2] *= -0.1
    return before, after.with_(specific_humidity=wet), forcing


def constraint_is_idempotent(constraint: Any, world: World) -> None:
    for dtype, rtol in ((torch.float32, 2e-7), (torch.float64, 1e-12)):
        before, after, forcing = _transition(world, dtype)
        once = constraint(before, after, forcing)
        twice = constraint(before, once, forcing)
        require(
            (once.variables, once.values.dtype) == (after.variables, dtype), "a constraint keeps names and precision"
        )
        close(twice.values, once.values, rtol=rtol, atol=1e-12)


def constraint_changes_what_it_says(constraint: Any, world: World) -> None:
    before, after, forcing = _transition(world)
    lawful = constraint(before, after, forcing)
    changed = {v.name for v in after.variables if not torch.equal(lawful[v.name], after[v.name])}
    require(changed, "a constraint changes an unlawful state")
    require(changed <= set(constraint.changes), f"`changes` names all that is changed: {', '.join(sorted(changed))}")


def constraint_is_differentiable(constraint: Any, world: World) -> None:
    before, after, forcing = _transition(world)
    values = after.values.clone().requires_grad_()
    constraint(before, replace(after, values=values), forcing).values.square().sum().backward()
    require(torch.isfinite(values.grad).all() and (values.grad != 0).any(), "gradients pass, and are finite")  # type: ignore[arg-type, union-attr]


def constraint_has_right_gradients(constraint: Any, world: World) -> None:
    before, after, forcing = _transition(world)
    spread = after.values.std((0, 2, 3), keepdim=True)

    def value(values: torch.Tensor) -> torch.Tensor:
        return (constraint(before, replace(after, values=values), forcing).values / spread).tanh().sum()

    _gradients(value, after.values, spread, 1e-4, 1e-3)


def constraint_treats_cases_apart(constraint: Any, world: World) -> None:
    states = _transition(world)
    whole = constraint(*states).values
    first = [replace(state, values=state.values[:1], time=state.time[:1]) for state in states]
    close(constraint(*first).values, whole[:1], msg="cases of a batch do not meet")
    members = [replace(s, values=torch.stack([s.values, s.values.flip(0)])) for s in states]
    ensemble = constraint(*members).values
    close(ensemble[0], whole)
    close(ensemble[1], ensemble[0].flip(0))


def constraint_is_unchanged_by_autocast(constraint: Any, world: World) -> None:
    for dtype in (torch.float32, torch.float64):
        states = _transition(world, dtype)
        plain = constraint(*states).values
        with torch.autocast("cpu", torch.bfloat16):
            require(torch.equal(constraint(*states).values, plain), "a constraint is unchanged by autocast")


CONSTRAINT = (
    constraint_is_idempotent, constraint_changes_what_it_says, constraint_is_differentiable,
    constraint_has_right_gradients, constraint_treats_cases_apart, constraint_is_unchanged_by_autocast,
)  # fmt: skip
