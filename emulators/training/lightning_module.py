"""Training: an optimiser minimises an objective; the rollout and scores of `emul eval` validate it.

What is drawn for a step is a function of (seed, step), and what is drawn for a sample of (seed, step, number of the
sample in the whole batch), so that neither passes nor processes change it; the order of samples is one of (seed, step).
The state of a training therefore is its weights, optimiser, averages and step number: a run continued from a checkpoint
repeats the uninterrupted one bit for bit.

Where a loss or a gradient is not finite, the forward pass is repeated with a hook on every module, and the first whose
output is not finite while its input is finite is named.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import compress
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from emulators.interfaces import Loss, Network, Objective, optional, refuse_unknown_intervals
from emulators.layers.sample_draws import begin_samples
from emulators.metrics.rmse import RMSE
from emulators.rollout import rollout
from emulators.state import State, Window
from emulators.training.hardware import full_tensor, local_tensors, shard
from emulators.training.optimizers import Anchor, Tuning
from emulators.training.plan import Plan, Term, active, refuse_gaps
from emulators.verification.budget_ledger import Ledger
from emulators.verification.scorecard import Scorecard

if TYPE_CHECKING:
    from emulators.steps.step import Step

SHOWN = 6  # times of a batch that are listed


class BrokenStep(ValueError):
    """Report a training step whose loss or gradient is not finite."""


def batch_times(window: Window) -> str:
    """The initial times of a batch in words."""
    times = [str(time) for time in window.history[-1].time.reshape(-1)]
    more = f" and {len(times) - SHOWN} more" if len(times) > SHOWN else ""
    return ", ".join(times[:SHOWN]) + more


def first_non_finite(step: nn.Module, objective: Any, window: Window, losses: Mapping[str, Any]) -> str:
    """Name where the first non-finite number of a batch arises: data, weights, a module, or the loss."""
    for kind, states in {"history": window.history, "forcing": window.forcing, "target": window.target}.items():
        for state in states:
            broken = broken_channels(state)
            if broken:
                return f"the data: {', '.join(broken[:3])} of the {kind}"
    weights = [name for name, weight in step.named_parameters() if not weight.isfinite().all()]
    if weights:
        return f"the weights: {weights[0]} and {len(weights) - 1} more are broken already"
    layers: list[str] = []
    hooks = [
        module.register_forward_hook(lambda _, given, output, name=name: _listen(name, given, output, layers))
        for name, module in step.named_modules()
        if name
    ]
    try:
        with torch.no_grad():
            loss, _ = objective(step, window, losses)
    finally:
        for hook in hooks:
            hook.remove()
    if layers:
        return f"the layer {layers[0]}"
    return "nothing that a second try shows" if loss.isfinite() else "the loss itself"


def broken_channels(state: State) -> list[str]:
    """The channels of a State that hold a number that is not finite."""
    whole = state.values.movedim(state.channel_axis, 0).flatten(1).isfinite().all(dim=1)
    return [name for name, is_whole in zip(state.variables.channels, whole.tolist(), strict=True) if not is_whole]


def _listen(name: str, given: tuple[Any, ...], output: Any, layers: list[str]) -> None:
    """Record a module whose output is not finite though its input is."""
    if not _is_whole(output) and all(map(_is_whole, given)):
        layers.append(name)


def _is_whole(value: Any) -> bool:
    if isinstance(value, State):
        value = value.values
    if isinstance(value, Tensor):
        return (not value.is_floating_point() and not value.is_complex()) or bool(value.isfinite().all())
    if isinstance(value, tuple | list):
        return all(map(_is_whole, value))
    return True


MOST_SKIPPED = 10  # steps in a row


class Training(pl.LightningModule):
    """Join Step, objective, losses, optimiser and schedule for Lightning's Trainer.

    losses: by name; those with a weight or a range of steps as Terms. optimizer: from a module to its optimiser.
    schedule: factor of the learning rate at (step, steps). scorecard: makes an empty Scorecard for a validation,
    default: RMSE by lead. metadata: numbers, strings and tensors for every checkpoint. finished: set once the last step
    is made and validated. tuning: what is trained, default all. validated: the step of the last validation. exploded:
    where the last validation's forecast ceased to be finite, or None. skipped: steps left out so far.
    """

    def __init__(
        self,
        step: Step,
        objective: Objective,
        losses: Mapping[str, Loss],
        optimizer: Callable[[torch.nn.Module], torch.optim.Optimizer],
        schedule: Callable[[int, int], float],
        plan: Plan,
        *,
        seed: int = 0,
        scorecard: Callable[[], Scorecard] | None = None,
        metadata: Mapping[str, Any] | None = None,
        tuning: Tuning | None = None,
    ) -> None:
        super().__init__()
        self.tuning = tuning or Tuning()
        self.tuning.choose(step)
        self.anchor = Anchor(self.tuning.anchor) if self.tuning.anchor else None
        terms = {name: loss if isinstance(loss, Term) else Term(loss) for name, loss in losses.items()}
        refuse_gaps(terms, plan.steps)
        self.step, self.objective, self.losses = step, objective, terms
        self.loss_modules = torch.nn.ModuleList(terms.values())
        self.optimizer, self.schedule, self.plan, self.seed = optimizer, schedule, plan, seed
        self.scorecard, self.metadata = scorecard or self.rmse_by_lead, dict(metadata or {})
        self.averages = copy.deepcopy(step).requires_grad_(False).eval() if plan.ema else None
        self.saved_names = set(step.state_dict())  # tables that are made anew with the network never change
        self.begin()
        self.best = float("inf")
        self.validation: dict[str, float] = {}
        self.validated, self.finished = -1, False
        self.is_sharded = False
        self.exploded: str | None = None
        self.culprit: str | None = None
        self.skipped = self.skipped_in_a_row = 0

    def begin(self) -> None:
        """Set the average and the objective to the weights with which a training begins."""
        self.reset_average()
        if self.anchor is not None:
            self.anchor.begin(self.step)
        self.objective.begin(self.step)
        refuse_unknown_intervals(self.losses, Loss, self.objective.intervals)

    def measure_importance(self, samples: Iterable[Window]) -> None:
        """Weigh the anchor by what windows of one sample each say of the weights at the start."""
        terms = active(self.losses, 0, self.plan.steps)
        torch.manual_seed(self.seed)
        if self.anchor is not None:
            self.anchor.measure(self.step, (self.objective(self.step, window, terms)[0] for window in samples))

    def reset_average(self) -> None:
        """Set the averaged weights to the trained ones."""
        if self.averages is not None:
            self.averages.load_state_dict(self.step.state_dict())

    def rmse_by_lead(self) -> Scorecard:
        """An empty Scorecard of the RMSE at each lead of a validation.

        It is of the prognostic variables, or of those that alone are learnt.
        """
        world = self.step.world
        learned = optional(self.step.network, Network, "learned")
        scored = world.predicted.select(learned) if learned else world.prognostic
        return Scorecard(world, scored, {"rmse": RMSE()}, leads=self.plan.validation_lead)

    def configure_model(self) -> None:
        """Shard the network and its average, where the strategy has a mesh of processes."""
        mesh = self.device_mesh
        if mesh is None or self.is_sharded:
            return
        self.is_sharded = True
        for step in (self.step, self.averages):
            for network in () if step is None else step.networks:
                shard(network, mesh["data_parallel"])

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self.step)
        self.tuning.set_rates(optimizer, self.step)
        if self.trainer.precision == "16-mixed":  # a fused optimiser would be handed scaled gradients to clip
            for group in optimizer.param_groups:
                group["fused"] = False
            optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: self.schedule(n, self.plan.steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def transfer_batch_to_device(self, batch: Window, device: torch.device, dataloader_idx: int) -> Window:
        return batch.to(device, non_blocking=True)

    def on_train_batch_start(self, batch: Window, batch_idx: int) -> None:
        portion = len(batch.history[-1].time)
        first = (batch_idx % self.plan.accumulate * self.trainer.world_size + self.global_rank) * portion
        begin_samples(range(first, first + portion))
        self.seed_draws()

    def on_train_batch_end(self, outputs: Any, batch: Window, batch_idx: int) -> None:
        begin_samples(())

    def seed_draws(self) -> None:
        """Seed torch's own generator by the optimiser step."""
        torch.manual_seed(int(np.random.SeedSequence((self.seed, self.global_step)).generate_state(1)[0]))

    def training_step(self, batch: Window, batch_idx: int) -> Tensor:
        losses = active(self.losses, self.global_step, self.plan.steps)
        self.objective.at(self.global_step)
        loss, parts = self.objective(self.step, batch, losses)
        if self.anchor is not None:
            distance = self.anchor(self.step)
            loss, parts = loss + distance, {**parts, "anchor": distance.detach()}
        self.parts = {"loss": loss.detach(), **parts}
        if self.looks_at_every_step and not loss.isfinite():
            self.seed_draws()
            self.culprit = (
                f"batch of {batch_times(batch)}; {first_non_finite(self.step, self.objective, batch, losses)}"
            )
        return loss

    @property
    def looks_at_every_step(self) -> bool:
        """Whether each step is checked for non-finite numbers: on the CPU, where it is cheap, and to skip steps."""
        return self.device.type == "cpu" or self.plan.broken == "skip"

    def refuse_broken_loss(self) -> None:
        """Raise BrokenStep where the loss or a weight is not finite."""
        if not self.parts["loss"].isfinite():
            raise BrokenStep(self.failure_message(self.global_step, f"the loss is {float(self.parts['loss'])}"))
        if not all(bool(p.isfinite().all()) for p in local_tensors(list(self.step.parameters()))):
            raise BrokenStep(self.failure_message(self.global_step, "weights are not finite"))

    def failure_message(self, step: int, what: str) -> str:
        """Describe a broken step, and what to do."""
        return (
            f"At step {step} {what} ({self.culprit or 'where, is not known'}); the last checkpoint is kept. Train anew "
            "with a smaller optimizer.lr or training.clip, look for broken values in the data, or take "
            "training.broken=skip."
        )

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip by norm, here because Lightning refuses to clip for a fused optimiser in any mixed precision.

        The norm is the same on all processes, so all of them stop at, or skip, the same step.
        """
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if not gradient_clip_val and not self.looks_at_every_step:
            return
        norm = torch.nn.utils.clip_grad_norm_(parameters, gradient_clip_val or float("inf"))
        if self.looks_at_every_step and self.trainer.precision != "16-mixed":  # there the scaler skips by itself
            self.check_gradient(full_tensor(norm), parameters)

    def check_gradient(self, norm: Tensor, parameters: list[Tensor]) -> None:
        """Raise BrokenStep, or remove the gradients, where their norm is not finite."""
        if norm.isfinite():
            self.skipped_in_a_row = 0
            return
        step = self.global_step + 1
        self.culprit = self.culprit or "the loss is finite: the backward pass, or another process"
        account = self.failure_message(step, f"the gradient's norm is {float(norm)}")
        self.culprit = None
        if self.plan.broken == "stop" or self.skipped_in_a_row == MOST_SKIPPED:
            raise BrokenStep(account)
        self.skipped, self.skipped_in_a_row = self.skipped + 1, self.skipped_in_a_row + 1
        for parameter in parameters:
            parameter.grad = None  # what has no gradient is left as it is, moments included
        warnings.warn(f"Step {step} is skipped. {account.partition('; the last')[0]}.", stacklevel=2)

    def after_step(self, done: int) -> None:
        """Update the objective and the weight average after optimiser step number `done`, counted from 1."""
        self.objective.follow(self.step)
        if self.averages is None:
            return
        decay = min(self.plan.ema or 0.0, (1 + done) / (10 + done))
        trained = [weight.requires_grad for weight in self.step.parameters()]
        averages, weights = (
            local_tensors(list(compress(module.parameters(), trained))) for module in (self.averages, self.step)
        )
        with torch.no_grad():
            torch._foreach_lerp_(averages, weights, 1.0 - decay)
            pairs = zip(self.averages.named_buffers(), self.step.buffers(), strict=True)
            for (_, average), buffer in (pair for pair in pairs if pair[0][0] in self.saved_names):
                average.copy_(buffer)

    @property
    def forecaster(self) -> Step:
        """The Step that forecasts: the averaged weights where there are averages."""
        return self.averages if self.averages is not None else self.step

    def on_validation_epoch_start(self) -> None:
        self.card_in_use, self.exploded = self.scorecard(), None
        self.ledger_in_use = self.attempt(
            lambda: Ledger(self.step.world, self.forecaster.constraints, leads=self.plan.validation_lead)
        )

    def validation_step(self, batch: Window, batch_idx: int) -> None:
        states = rollout(self.forecaster, batch.history, batch.forcing)
        for lead, (state, target) in enumerate(zip(states, batch.target, strict=True)):
            if self.exploded is None and (broken := broken_channels(state)):
                self.exploded = f"{broken[0]} is not finite at lead {lead + 1}"
            self.card_in_use.add(state, target, lead)
            self.update_budgets(lead, state)

    def update_budgets(self, lead: int, state: State) -> None:
        """Add a lead to the ledger of budgets, unless it has failed."""
        ledger = self.ledger_in_use
        if ledger is not None:
            self.ledger_in_use = self.attempt(lambda: ledger.add(lead, state))

    @staticmethod
    def attempt(work: Callable[[], Ledger]) -> Ledger | None:
        """Return what `work` returns; None and a warning where it fails, as no diagnostic may stop a training."""
        try:
            return work()
        except Exception as error:  # whatever it is
            warnings.warn(f"Budgets are not logged: {type(error).__name__}: {error}", stacklevel=2)
            return None

    def on_validation_epoch_end(self) -> None:
        self.validation, self.validated = relative_errors(self.card_in_use, self.step.world), self.global_step
        if self.exploded is not None:
            self.validation = {name: value if np.isfinite(value) else np.inf for name, value in self.validation.items()}
            warnings.warn(
                f"The forecast of the validation at step {self.global_step} explodes: {self.exploded}. Its score is "
                "infinite; the training goes on.",
                stacklevel=2,
            )
        self.record({**self.validation, **(self.ledger_in_use.results().sizes() if self.ledger_in_use else {})})

    def record(self, metrics: Mapping[str, float]) -> None:
        """Hand numbers to the loggers; one that fails is reported and never stops the training."""
        for logger in self.loggers:
            try:
                logger.log_metrics(dict(metrics), self.global_step)
            except Exception as error:  # a logger may fail in any way
                warnings.warn(f"{type(logger).__name__} could not log step {self.global_step}: {error}", stacklevel=2)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint |= {"emul": self.checkpoint_content(), "objective": self.objective.state()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        content = checkpoint["emul"]
        self.best, self.validation = content["best"], content["validation"]
        self.validated = content.get("validated", -1)
        self.objective.restore(checkpoint.get("objective", {}))

    def checkpoint_content(self) -> dict[str, Any]:
        """All that forecasting needs: metadata, weights, step and scores."""
        return {
            **self.metadata,
            "weights": {name: full_tensor(value) for name, value in self.forecaster.state_dict().items()},
            "step": self.global_step,
            "finished": self.finished,
            "validation": dict(self.validation),
            "validated": self.validated,
            "best": self.best,
        }


def relative_errors(scorecard: Scorecard, world: Any) -> dict[str, float]:
    """RMSE over the standard deviation of each channel: the mean over channels by lead, and over all as `score`."""
    errors = scorecard.value("rmse")[scorecard.regions.names.index("global")]  # (lead, channel)
    by_lead = (errors / world.scale(scorecard.variables, "std")).mean(axis=1)
    return {"score": float(by_lead.mean()), **{f"score_{n}": float(v) for n, v in enumerate(by_lead, start=1)}}


def validate(training: Training, windows: Iterable[Window], after_batch: Callable[[], None] | None = None) -> None:
    """Validate outside of the loops of Lightning's Trainer; modules are in evaluation mode meanwhile."""
    modes = [(module, module.training) for module in training.modules()]
    training.eval()
    training.on_validation_epoch_start()
    with torch.inference_mode():
        for number, window in enumerate(windows):
            training.validation_step(window.to(training.device), number)
            if after_batch is not None:
                after_batch()
    training.on_validation_epoch_end()
    for module, mode in modes:
        module.training = mode


def examples(step: Step, windows: Iterable[Window]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield inputs, valid time and target of the network for windows of one timestep."""
    for window in windows:
        fields, time = step.inputs(window.history, window.forcing[0])
        target: State = window.target[0]
        yield fields, time, step.target(target, window.history[-1])
