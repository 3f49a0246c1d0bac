"""Contracts of parts, to test one's own: what every loss, constraint, metric, model and dataset must do.

    from emul.contracts import check_folder

    def test_parts():
        check_folder("my_parts")

Each `check_*` takes the part's configuration (a mapping with `_target_`) or its class, and raises AssertionError with
the contract that is broken. The tests of this package run the same functions on its own parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from emul.checks.example_worlds import column_world, small_world
from emul.checks.state_contracts import CONSTRAINT, LOSS, close, require
from emul.config.build import build
from emul.config.declared_keys import faults
from emul.config.folders import groups, use_folders
from emul.config.options import options
from emul.config.signatures import wrapping
from emulators.grid import equiangular_grid
from emulators.scores.interfaces import Metric
from emulators.state import State
from emulators.variables import Variable, VariableSet
from emulators.verification.scorecard import Scorecard
from emulators.world import World

Part = Any  # a mapping with _target_, or a class


def built(part: Part, *args: Any) -> Any:
    """Build a part from its configuration or class."""
    if isinstance(part, Mapping | DictConfig):
        wrapped = {parameter.name for parameter in wrapping("loss")}
        return build({str(key): value for key, value in part.items() if key not in wrapped}, *args)
    return part(*args)


def check_loss(loss: Part, world: World | None = None) -> None:
    """Check a loss on a World, by default one of whole columns of air."""
    world = world or column_world()
    for contract in LOSS:
        contract(built(loss, world), world)


def check_constraint(constraint: Part, world: World | None = None) -> None:
    """Check a constraint on a World, by default one of whole columns of air."""
    world = world or column_world()
    for contract in CONSTRAINT:
        contract(built(constraint, world), world)


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
    members, target, normals = metric_fields()
    prediction = prediction_of(metric, members)
    metric.statistics(prediction, target, {need: normals[need] for need in metric.needs})
    for need in metric.needs:
        try:
            metric.statistics(prediction, target, {name: field for name, field in normals.items() if name != need})
        except KeyError:
            continue
        raise AssertionError(f"`needs` names only what `statistics` reads: {need}")


METRIC = (metric_adds_up, metric_leaves_its_input_alone, metric_describes_itself, metric_reads_the_fields_it_names)


def check_metric(metric: Part) -> None:
    """Check a metric on six cases of four members."""
    for contract in METRIC:
        contract(built(metric))


# --- models ------------------------------------------------------------------------------------------------------


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
        require(parameter.grad is not None and torch.isfinite(parameter.grad).all(), f"gradients reach {name}")
    require(torch.isfinite(fields.grad).all(), "gradients reach the input")  # type: ignore[arg-type]


def model_is_deterministic(build_model: Callable[[World], torch.nn.Module], world: World) -> None:
    model, (fields, time, _) = build_model(world).eval(), example_inputs(world)
    with torch.no_grad():
        first = model(fields, time)
        require(torch.equal(first, model(fields.clone(), time)), "the same input gives the same output")
        close(first[1:2], model(fields[1:2], time[1:2]), rtol=1e-4, atol=1e-5, msg="cases of a batch do not meet")


def model_is_its_state_dict(build_model: Callable[[World], torch.nn.Module], world: World) -> None:
    model, other = build_model(world).eval(), build_model(world).eval()
    fields, time, _ = example_inputs(world)
    with torch.no_grad():
        for number, value in enumerate(model.state_dict().values()):
            if value.is_floating_point():
                value.add_(0.01 * torch.randn(value.shape, generator=torch.Generator().manual_seed(number)))
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        require(torch.equal(model(fields, time), other(fields, time)), "the state dict holds all that is learned")


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


def check_model(model: Part, world: World | None = None) -> None:
    """Check a network on a World, by default six channels on a tiny grid."""

    def build_model(world: World) -> torch.nn.Module:
        torch.manual_seed(0)
        return built(model, world)

    for contract in MODEL:
        contract(build_model, world or small_world())


# --- datasets, and folders of parts ------------------------------------------------------------------------------


def check_dataset(dataset: Part) -> None:
    """Make a dataset, open it, and compare it with its template."""
    from data_pipelines.conventions.attributes import grid_of
    from data_pipelines.conventions.periods import bounds

    source = built(dataset)
    source.prepare()
    template, opened = source.template(), source.dataset()
    require("time" in opened.dims, "a dataset has a dimension `time`")
    require((np.diff(opened["time"].values) > np.timedelta64(0)).all(), "times rise")
    require(grid_of(opened).same_as(grid_of(template)), "the template has the grid of the dataset")
    for name, field in opened.data_vars.items():
        expected = template[name]
        same = (expected.dims, expected.shape) == (field.dims, field.shape)
        require(same, f"the template has {name} {field.dims} {field.shape}, not {expected.dims} {expected.shape}")
        require(field.attrs.get("units") is not None, f"{name} has units")
    for name, period in source.splits.items():
        require(period is None or bounds(period)[0] <= bounds(period)[1], f"split {name} is a period")


CHECKS: dict[str, Callable[[Part], None]] = {
    "loss": check_loss, "constraint": check_constraint, "metric": check_metric, "model": check_model,
    "data": check_dataset,
}  # fmt: skip


def options_in(folder: str | Path) -> Iterator[tuple[str, str, Path]]:
    """Group, name and file of every option in a folder."""
    for group in groups():
        for file in sorted((Path(folder) / group).glob("*.yaml")):
            yield group, file.stem, file


def check_folder(folder: str | Path) -> None:
    """Check every option in a folder of one's own: it composes, has a comment for each key, and its part is sound."""
    from emul.config.compose import compose

    files = {f"{group}/{name}" for group, name, _ in options_in(folder)}
    require(files, f"{folder} holds options, such as loss/<name>.yaml")
    use_folders([folder])
    silent = [f"{option.file}: {option.key}" for option in options() if option.file in files and not option.comment]
    require(not silent, f"every option has a comment beside it: {', '.join(silent)}")
    for group, name, _ in options_in(folder):
        is_list = group in ("loss", "constraint", "metric", "logger")
        config = compose("train", [f"{group}=[{name}]" if is_list else f"{group}={name}"])
        found = [str(finding) for finding in faults(config)]
        require(not found, f"{group}={name}: {'; '.join(found)}")
        if group in CHECKS:
            try:
                CHECKS[group](config[group][name] if is_list else config[group])
            except AssertionError as error:
                raise AssertionError(f"{group}={name}: {error}") from error
