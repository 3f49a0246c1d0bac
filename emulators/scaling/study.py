"""A scaling study as a rule: a family of sizes, each trained once at a constant rate, with cooldowns that branch off.

    trunk      one constant-rate run for each size and seed, to the start of its longest cooldown
    branch     from a kept state of the trunk, the rate falls as 1 - sqrt over the last share of the steps
    held out   the largest run, which the laws predict before it is trained

A size costs its longest duration and a cooldown for each of the others, in place of a whole run for each (Hägele et al.
2024, arXiv 2405.18392; for weather, continual training with cooldowns, arXiv 2603.25687).
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from emulators.scaling.laws import LAWS
from emulators.scaling.width import WidthRun, WidthSweep

NEVER = 10**9  # the start of a cooldown that a trunk does not reach
Kind = Literal["trunk", "branch", "held_out"]
OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "round": round, "max": max, "min": min, "int": int, "ceil": math.ceil, "sqrt": math.sqrt, "log2": math.log2,
}  # fmt: skip


@dataclass(frozen=True)
class Study:
    """Hold what a study trains and fits.

    training: words of `emul train` that all runs share. widths: the sizes. shape: how keys of the training follow from
    `width`, as formulas with + - * / // **, round, max, min, int, ceil, sqrt, log2, alone or in a list. inside: words
    in the names of the parameters that count as the size N; None: all count. durations: optimiser steps of each run.
    budgets: operations of each run, in place of durations or besides: each size takes the steps that they pay for.
    shortest: fewest steps of a run; budgets that pay for less of a size are left out. cooldown: share of the steps in
    which the rate falls. warmup: optimiser steps. changes: keys of the objective and the losses that differ in the
    cooldown, with {start} where it begins; before it, what they say holds for trunks too, so that a change without
    {start} is refused but of a loss that begins there. seeds: of every size. held_out: width, and steps or flops, of
    the largest run. metric: that is fitted, of the last validation. evaluate: make forecasts of every branch and score
    them too. laws: to be fitted. replicates: of the bootstrap. hours: most that the study may take on one device; None:
    any. rates: how learning rates are swept over width, the arguments of WidthSweep; None: they are not.
    """

    training: Sequence[str]
    widths: Sequence[int]
    shape: Mapping[str, str]
    held_out: Mapping[str, float]
    durations: Sequence[int] = ()
    budgets: Sequence[float] = ()
    inside: Sequence[str] | None = ("blocks",)
    shortest: int = 20
    cooldown: float = 0.2
    warmup: int = 20
    changes: Mapping[str, str] | None = None
    seeds: int = 1
    metric: str = "score"
    evaluate: bool = False
    laws: Sequence[str] = ("chinchilla", "kaplan")
    replicates: int = 400
    hours: float | None = None
    rates: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not self.durations and not self.budgets:
            raise ValueError("study: expected durations (steps) or budgets (operations); got neither.")
        if len(set(self.widths)) < 2 or min(self.widths) < 1:
            raise ValueError(f"study.widths: expected two different widths or more; got {list(self.widths)}.")
        if not 0 < self.cooldown < 1:
            raise ValueError(f"study.cooldown: expected a share between 0 and 1; got {self.cooldown}.")
        if self.seeds < 1:
            raise ValueError(f"study.seeds: expected at least 1; got {self.seeds}.")
        if unknown := [name for name in self.laws if name not in LAWS]:
            raise ValueError(f"study.laws: expected some of {', '.join(LAWS)}; got {unknown[0]}.")
        if "width" not in self.held_out or len({"steps", "flops"} & {*self.held_out}) != 1:
            raise ValueError(
                f"study.held_out: expected {{width: w, steps: n}} or {{width: w, flops: c}}; got {dict(self.held_out)}."
            )
        refuse_early(self.changes or {}, self.training)
        for width in self.widths:
            self.shape_words(width)
        if self.rates is not None:
            self.width_sweep()

    def shape_words(self, width: int, shape: Mapping[str, str] | None = None) -> list[str]:
        """The words of `emul train` that make a network of that width. shape: formulas in place of the study's own."""
        rules = self.shape if shape is None else shape
        return [f"{key}={text_of(formula(rule, {'width': width}, key))}" for key, rule in rules.items()]

    def width_sweep(self) -> WidthSweep:
        """How learning rates are swept over width. ValueError where the study does not say, or says what cannot be."""
        if self.rates is None:
            raise ValueError(
                "study.rates: expected widths, shape and factors of the learning rates to sweep; this study has none. "
                "`emul options study` explains them."
            )
        try:
            return WidthSweep(**self.rates)
        except TypeError as error:
            names = ", ".join(field.name for field in fields(WidthSweep))
            raise ValueError(f"study.rates: expected some of {names}; {error}.") from error

    def width_words(self, run: WidthRun, rates: Mapping[str, float]) -> list[str]:
        """The words of `emul train` for a run of the sweep over width. rates: the study's learning rates by key."""
        sweep = self.width_sweep()
        own = run.parametrisation != "standard"
        return [
            *(word for word in self.training if not word.startswith("parametrisation=")),
            *([f"parametrisation={run.parametrisation}"] if own else []),
            "schedule=warmup_stable_decay",
            f"schedule.warmup={min(self.warmup, sweep.steps)}",
            f"schedule.cooldown={self.cooldown!r}",
            "training.validate_every=1000000000",
            *self.shape_words(run.width, sweep.shape),
            *(f"{key}={rate * (run.factor or 1.0):.6g}" for key, rate in rates.items()),
            f"training.steps={sweep.steps if run.factor else 0}",
            f"seed={run.seed}",
        ]

    def start_of(self, steps: int) -> int:
        """The step at which the cooldown of a run begins, as the schedule counts it."""
        return steps - round(steps * self.cooldown)

    def change_words(self, start: int) -> list[str]:
        """The words that differ in the cooldown."""
        return [f"{key}={text.replace('{start}', str(start))}" for key, text in (self.changes or {}).items()]

    def lengths(self, cost: Cost) -> list[int]:
        """Optimiser steps of the runs of one size, growing."""
        paid = [cost.steps_within(budget, self.cooldown) for budget in self.budgets]
        return sorted({int(n) for n in (*self.durations, *paid) if n >= self.shortest})

    def held_out_steps(self, cost: Cost) -> int:
        """Optimiser steps of the held-out run."""
        if "steps" in self.held_out:
            return int(self.held_out["steps"])
        return cost.steps_within(self.held_out["flops"], self.cooldown)

    def planned(self, costs: Mapping[int, Cost]) -> list[PlannedRun]:
        """All runs, trunks first, the held-out one last. ValueError where a size has no duration, or it is not largest.

        costs: of each width, the held-out one's included.
        """
        trunks, branches = [], []
        for width in self.widths:
            lengths = self.lengths(costs[width])
            if not lengths:
                raise ValueError(
                    f"study.budgets: none pays for study.shortest={self.shortest} steps at width {width}, which cost "
                    f"{costs[width].step:.3g} operations each; give more, or leave this width out."
                )
            for seed in range(self.seeds):
                starts = sorted({self.start_of(n) for n in lengths})
                trunk = PlannedRun("trunk", width, seed, starts[-1], starts[-1], costs[width], tuple(starts))
                trunks.append(trunk)
                branches += [PlannedRun("branch", width, seed, n, self.start_of(n), costs[width]) for n in lengths]
        width = int(self.held_out["width"])
        steps = self.held_out_steps(costs[width])
        largest = PlannedRun("held_out", width, 0, steps, self.start_of(steps), costs[width])
        largest_branch = max(run.operations for run in branches)
        if largest.operations <= largest_branch:
            raise ValueError(
                f"study.held_out: expected a run beyond all others, of more than {largest_branch:.3g} operations; got "
                f"{largest.operations:.3g}. Give it a greater width or more steps."
            )
        if self.warmup > (first := min(run.start for run in (*branches, largest))):
            raise ValueError(
                f"study.warmup: expected at most {first} steps, after which the first cooldown of a run begins; got "
                f"{self.warmup}. Take a shorter warm-up or longer durations."
            )
        return [*trunks, *branches, largest]

    def words(self, run: PlannedRun) -> list[str]:
        """The words of `emul train` for a run, but where it branches off."""
        start = NEVER if run.kind == "trunk" else run.start
        share = 0.0 if run.kind == "trunk" else (run.steps - run.start) / run.steps
        return [
            *self.training,
            "schedule=warmup_stable_decay",
            f"schedule.warmup={self.warmup}",
            "training.validate_every=1000000000",  # at the end only
            *self.change_words(start),
            *self.shape_words(run.width),
            f"seed={run.seed}",
            f"schedule.cooldown={share!r}",
            f"training.steps={run.steps}",
            *([f"training.keep=[{','.join(map(str, run.starts))}]"] if run.starts else []),
        ]


@dataclass(frozen=True)
class Cost:
    """Hold what one size costs.

    parameters: that count as N. all_parameters: trained. step, cooled: operations of an optimiser step before and in
    the cooldown. seconds: of a step, measured here. memory: bytes of a training.
    """

    parameters: int
    all_parameters: int
    step: float
    cooled: float
    seconds: float
    memory: float

    def steps_cost(self, cooldown: float) -> float:
        """Operations of a step on average, a share of them in the cooldown."""
        return (1 - cooldown) * self.step + cooldown * self.cooled

    def steps_within(self, operations: float, cooldown: float) -> int:
        """How many steps a budget pays for."""
        return int(operations // self.steps_cost(cooldown))


@dataclass(frozen=True)
class PlannedRun:
    """Hold one training of a study. start: of its cooldown. starts: states that a trunk keeps."""

    kind: Kind
    width: int
    seed: int
    steps: int
    start: int
    cost: Cost
    starts: tuple[int, ...] = ()

    @property
    def trunk(self) -> str:
        """The name of the trunk of this size and seed."""
        return f"w{self.width:04d}_s{self.seed}"

    @property
    def name(self) -> str:
        """The name of its run folder."""
        return self.trunk if self.kind == "trunk" else f"{self.trunk}_t{self.steps:07d}"

    @property
    def operations(self) -> float:
        """Operations of the whole run, from its first step on, as if it were trained alone."""
        cooled = 0 if self.kind == "trunk" else self.steps - self.start
        return (self.steps - cooled) * self.cost.step + cooled * self.cost.cooled

    @property
    def own_steps(self) -> int:
        """Steps that are made for this run alone: of a branch those of its cooldown."""
        return self.steps - self.start if self.kind == "branch" else self.steps

    @property
    def hours(self) -> float:
        """Time for its own steps at the measured speed; steps of the cooldown by their operations."""
        cooled = 0 if self.kind == "trunk" else self.steps - self.start
        dearer = cooled * (self.cost.cooled / self.cost.step - 1.0)
        return (self.own_steps + dearer) * self.cost.seconds / 3600


def refuse_early(changes: Mapping[str, str], training: Sequence[str]) -> None:
    """Raise ValueError for changes of a cooldown that would hold in the trunk too, or that no branch may make.

    changes: as of Study. training: words of all runs, the last `loss=[...]` of which names the losses of the trunk.
    """
    lists = [word.partition("=")[2] for word in training if word.startswith("loss=")]
    own = _names(lists[-1]) if lists else []
    begun = {key.split(".")[1] for key, text in changes.items() if key.endswith(".start") and "{start}" in str(text)}
    for key, text in changes.items():
        group, _, rest = key.partition(".")
        if group not in ("objective", "loss"):
            raise ValueError(
                f"study.changes: expected keys of objective or loss, which a branch may change; got {key}. Set it in "
                "study.training, for all runs."
            )
        if "{start}" in str(text) or (rest and group == "loss" and rest.split(".")[0] in begun - {*own}):
            continue
        listed = _names(str(text)) if key == "loss" else []
        if not listed or {*own} - {*listed} or {*listed} - {*own} - begun:
            raise ValueError(
                f"study.changes: expected changes that begin at {{start}}, as the trunk keeps its objective; got "
                f"{key}={text}, which would hold from the first step on. Keep the losses of study.training (loss="
                f"{lists[-1] if lists else '[...], which it must say'}) and let one end and another begin, as in "
                "{loss: '[mse, amse]', loss.mse.end: '{start}', loss.amse.start: '{start}'}."
            )


def _names(text: str) -> list[str]:
    return [name for part in text.strip(" []").split(",") if (name := part.strip())]


def formula(text: str | float, names: Mapping[str, float], key: str = "formula") -> Any:
    """The value of arithmetic on names, a number or a list of numbers. ValueError for anything else."""
    try:
        return _value(ast.parse(str(text), mode="eval").body, names)
    except (SyntaxError, KeyError, TypeError, ZeroDivisionError) as error:
        raise ValueError(
            f"{key}: expected arithmetic on {', '.join(names)} with {', '.join(FUNCTIONS)}; got '{text}' ({error})."
        ) from error


def _value(node: ast.expr, names: Mapping[str, float]) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return node.value
    if isinstance(node, ast.Name):
        return names[node.id]
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(item, names) for item in node.elts]
    if isinstance(node, ast.UnaryOp):
        return OPERATORS[type(node.op)](_value(node.operand, names))
    if isinstance(node, ast.BinOp):
        return OPERATORS[type(node.op)](_value(node.left, names), _value(node.right, names))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        return FUNCTIONS[node.func.id](*(_value(item, names) for item in node.args))
    raise TypeError(f"{ast.unparse(node)} is no arithmetic")


def text_of(value: Any) -> str:
    """A value as a word of the command line: whole numbers without a point, lists in brackets."""
    if isinstance(value, list):
        return f"[{','.join(map(text_of, value))}]"
    return str(int(value)) if float(value).is_integer() else f"{value:.6g}"
