"""Contracts of losses, constraints, metrics and networks: what each must do on any World; see `emul.contracts`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from emulators.contracts.example_worlds import example_state
from emulators.grid import equiangular_grid
from emulators.scores.interfaces import Metric
from emulators.scores.neighbourhoods import neighbourhood
from emulators.state import State
from emulators.variables import Variable, VariableSet
from emulators.verification.scorecard import Scorecard
from emulators.world import World

close = torch.testing.assert_close


def require(holds: object, contract: str) -> None:
    """Raise AssertionError with the broken contract."""
    if not bool(holds):
        raise AssertionError(contract)


# --- losses ------------------------------------------------------------------------------------------------------


def _pair(world: World, batch: int = 2, dtype: torch.dtype = torch.float64) -> tuple[State, State]:
    """A truth and a forecast that is wrong by the spread of each channel."""
    truth, forecast = (example_state(world, world.predicted, seed, (batch,), dtype) for seed in (1, 2))
    return truth, forecast


def loss_is_zero_at_the_truth(loss: Any, world: World) -> None:
    truth, forecast = _pair(world)
    require((loss(truth, truth).abs() < 1e-12).all(), "a loss is zero at the truth")
    require((loss(forecast, truth) > 0).all(), "a loss is positive elsewhere")


def loss_is_one_number_a_case(loss: Any, world: World) -> None:
    truth, forecast = _pair(world, batch=3)
    values = loss(forecast, truth)
    require(values.shape == (3,), f"a loss has one number for each case, shape (3,), not {tuple(values.shape)}")
    first = loss(replace(forecast, values=forecast.values[:1]), replace(truth, values=truth.values[:1]))
    close(values[:1], first, msg="the loss of a case does not depend on the others")


def loss_has_right_gradients(loss: Any, world: World) -> None:
    truth, forecast = _pair(world, batch=1)
    spread = torch.as_tensor(world.scale(world.predicted, "std"), dtype=torch.float64)
    spread = spread.reshape(-1, *[1] * forecast.rank)
    _gradients(lambda values: loss(replace(forecast, values=values), truth).sum(), forecast.values, spread, 1e-5, 1e-8)


def loss_needs_no_double_precision(loss: Any, world: World) -> None:
    exact = loss(*reversed(_pair(world)))
    single = loss(*reversed(_pair(world, dtype=torch.float32)))
    close(single.double(), exact, rtol=1e-4, atol=0.0)


def loss_is_unchanged_by_autocast(loss: Any, world: World) -> None:
    truth, forecast = _pair(world, dtype=torch.float32)
    values = forecast.values.requires_grad_()
    plain = loss(forecast, truth)
    (slope,) = torch.autograd.grad(plain.sum(), values)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = loss(forecast, truth)
    require(mixed.dtype == torch.float32, "a loss stays in single precision under autocast")
    close(mixed, plain, rtol=1e-6, atol=0.0)
    close(torch.autograd.grad(mixed.sum(), values)[0], slope, rtol=1e-5, atol=1e-7)


def loss_takes_members(loss: Any, world: World) -> None:
    truth, forecast = _pair(world)
    ensemble = replace(forecast, values=torch.stack([forecast.values, truth.values]))
    values = loss(ensemble, replace(truth, values=truth.values.expand_as(ensemble.values)))
    require(values.shape == (2, 2), "a loss keeps (member, batch)")
    close(values[0], loss(forecast, truth))
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
    spread = after.values.std((0, *range(2, after.values.ndim)), keepdim=True)

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


# --- metrics -----------------------------------------------------------------------------------------------------

SCORED = VariableSet((Variable("total_precipitation_6hr", "m", (500.0, 850.0)),))
SCORED_WORLD = World(equiangular_grid(8), SCORED, np.timedelta64(6, "h"))
SHAPE = (6, 2, *SCORED_WORLD.grid.shape)


def metric_fields() -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """An ensemble, its truth, and the climatological fields that a metric may ask for; amounts as of rain in m."""
    generator = torch.Generator().manual_seed(1)
    members, target = (3e-4 * torch.randn(*n, generator=generator).abs() for n in ((4, *SHAPE), SHAPE))
    normals = {"mean": torch.full(SHAPE, 2.4e-4), "std": torch.full(SHAPE, 1.8e-4)}
    normals |= {f"quantile_{q:g}": torch.full(SHAPE, a) for q, a in ((0.1, 4e-5), (0.25, 1e-4), (0.75, 2e-4))}
    normals |= {"quantile_0.9": torch.full(SHAPE, 2.5e-4)}
    return members, target, normals | {
        "seeps_threshold": torch.full(SHAPE, 4e-4), "seeps_dry_share": torch.full(SHAPE, 0.4)
    }  # fmt: skip


def prediction_of(metric: Metric, members: torch.Tensor) -> torch.Tensor:
    """What the metric reads of the ensemble: all members, or one forecast."""
    return members if metric.members else members[0]


def read(
    metric: Metric, prediction: torch.Tensor, target: torch.Tensor, climatology: Mapping[str, torch.Tensor]
) -> Any:
    """The terms of a metric, of fields (..., row, point)."""
    if not metric.radius:
        return metric.statistics(prediction, target, climatology)
    local = metric.local(neighbourhood(SCORED_WORLD.grid, metric.radius), prediction, target, climatology)
    return metric.statistics(*local, {})


def flat(fields: Any) -> Any:
    """Fields (..., case, channel, lat, lon), or a mapping of them, as (..., row, point)."""
    if isinstance(fields, dict):
        return {name: flat(field) for name, field in fields.items()}
    return fields.flatten(-4, -3).flatten(-2)


def score_card(metric: Metric, rows: Any = slice(None)) -> Scorecard:
    """The scorecard of the example fields, or of some of their initial times."""
    members, target, normals = metric_fields()
    time = np.datetime64("2001-01-01") + np.arange(6) * np.timedelta64(1, "D")
    card = Scorecard(SCORED_WORLD, SCORED, {"m": metric}, ["global", "europe"], 1)
    prediction = prediction_of(metric, members)[..., rows, :, :, :]
    states = State(prediction, SCORED, time[rows]), State(target[rows], SCORED, time[rows])
    card.add(*states, 0, {name: field[rows] for name, field in normals.items()})
    return card


def metric_adds_up(metric: Metric) -> None:
    whole = score_card(metric).value("m")
    require(np.isfinite(whole).any(), "a metric has a value")
    merged = score_card(metric, np.array([0]))
    for rows in (np.array([1, 2, 3]), np.array([4, 5])):
        merged.add_partial(score_card(metric, rows).partial())
    np.testing.assert_allclose(merged.value("m"), whole, rtol=1e-12, err_msg="split, then merged, is the whole")
    shuffled = score_card(metric, np.array([3, 1, 5, 0, 2, 4])).value("m")
    np.testing.assert_allclose(shuffled, whole, rtol=1e-12, err_msg="the order of cases does not matter")


def metric_leaves_its_input_alone(metric: Metric) -> None:
    members, target, normals = metric_fields()
    metric.statistics(prediction_of(metric, members), target, normals)
    again = metric_fields()
    require(torch.equal(members, again[0]) and torch.equal(target, again[1]), "a metric leaves its input alone")
    require(all(torch.equal(field, again[2][name]) for name, field in normals.items()), "also the climatology")


def metric_describes_itself(metric: Metric) -> None:
    require(Metric in type(metric).__mro__, "a metric is a subclass of emulators.scores.interfaces.Metric")
    require(metric.members in (0, 1, 2), "members is 0, 1 or 2")
    require(isinstance(metric.exponent, int), "exponent is the power of the variable's units")
    require(len(metric.definition) > 10, "definition says what the metric is")


def metric_reads_the_fields_it_names(metric: Metric) -> None:
    members, target, normals = (flat(fields) for fields in metric_fields())
    prediction = prediction_of(metric, members)
    read(metric, prediction, target, {need: normals[need] for need in metric.needs})
    for need in metric.needs:
        try:
            read(metric, prediction, target, {name: field for name, field in normals.items() if name != need})
        except KeyError:
            continue
        raise AssertionError(f"`needs` names only what `statistics` reads: {need}")


METRIC = (metric_adds_up, metric_leaves_its_input_alone, metric_describes_itself, metric_reads_the_fields_it_names)


# --- networks ----------------------------------------------------------------------------------------------------


def example_inputs(world: World, batch: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Normalised fields, seconds since 1970, and a target."""
    generator = torch.Generator().manual_seed(1)
    fields = torch.randn(batch, world.input_channels, *world.grid.shape, generator=generator)
    target = torch.randn(batch, world.output_channels, *world.grid.shape, generator=generator)
    return fields, torch.arange(batch) * 21_600 + 1_000_000_000, target


def model_has_the_right_shape(build_model: Callable[[World], torch.nn.Module], world: World) -> None:
    fields, time, target = example_inputs(world)
    with torch.no_grad():
        output = build_model(world)(fields, time)
    require(output.shape == target.shape, f"the output has the shape {tuple(target.shape)}, not {tuple(output.shape)}")
    require(output.dtype == torch.float32 and torch.isfinite(output).all(), "the output is finite, in single precision")


def model_has_gradients(build_model: Callable[[World], torch.nn.Module], world: World) -> None:
    model, (fields, time, target) = build_model(world), example_inputs(world)
    fields.requires_grad_()
    if not list(model.parameters()):
        return
    (model(fields, time) - target).square().mean().backward()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        require(parameter.grad is not None and torch.isfinite(parameter.grad).all(), f"gradients reach {name}")
    require(torch.isfinite(fields.grad).all(), "gradients reach the input")  # type: ignore[arg-type]


def model_is_deterministic(build_model: Callable[[World], torch.nn.Module], world: World) -> None:
    model, (fields, time, _) = build_model(world).eval(), example_inputs(world)
    with torch.no_grad():
        first = model(fields, time)
        require(torch.equal(first, model(fields.clone(), time)), "the same input gives the same output")
        close(first[1:2], model(fields[1:2], time[1:2]), rtol=1e-4, atol=1e-5, msg="cases of a batch do not meet")


def model_is_its_state_dict(build_model: Callable[[World], torch.nn.Module], world: World) -> None:
    model, restored = build_model(world).eval(), build_model(world).eval()
    fields, time, _ = example_inputs(world)
    with torch.no_grad():
        for number, value in enumerate(model.state_dict().values()):
            if value.is_floating_point():
                value.add_(0.01 * torch.randn(value.shape, generator=torch.Generator().manual_seed(number)))
    restored.load_state_dict(model.state_dict())
    with torch.no_grad():
        require(torch.equal(model(fields, time), restored(fields, time)), "the state dict holds all that is learned")


def model_bears_half_precision(build_model: Callable[[World], torch.nn.Module], world: World) -> None:
    model, (fields, time, _) = build_model(world).eval(), example_inputs(world)
    with torch.no_grad():
        single = model(fields, time)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(fields, time)
    error, size = (half.float() - single).square().mean(), single.square().mean()
    require(error <= 0.04 * size, "bfloat16 changes the output by less than a fifth")


MODEL = (
    model_has_the_right_shape, model_has_gradients, model_is_deterministic, model_is_its_state_dict,
    model_bears_half_precision,
)  # fmt: skip
