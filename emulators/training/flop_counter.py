"""What a network takes: operations, counted as they run, memory of a pass, seconds a step.

Counted are products of matrices, convolutions, attention and Fourier transforms.

A multiplication and an addition count two, a product of complex numbers four times as many as one of real numbers, a
Fourier transform of N complex numbers 5 N log2 N, of real ones half of it. Norms, activations and sums count nothing,
nor does what attention makes anew for its gradient: every way to compute it counts the same. Shapes are all that is
looked at: networks on the meta device are counted as others are.
"""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from emulators.interfaces import is_fitted_at_once
from emulators.scaling.study import Cost
from emulators.sphere.transform import Tables
from emulators.state import Window
from emulators.training.plan import active

if TYPE_CHECKING:
    from emulators.training.lightning_module import Training
    from emulators.world import World


aten = torch.ops.aten


class Operations(TorchDispatchMode):
    """Count what runs within, as `total`.

    Torch's FlopCounterMode fails on modules whose inputs are weights under `no_grad`, as in Aurora: it tracks modules.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        formula = FORMULAS.get(func._overloadpacket)
        if formula is None:
            with self:  # what is made of other operators, which inference mode does not take apart by itself
                out = func.decompose(*args, **(kwargs or {}))
            if out is not NotImplemented:
                return out
        out = func(*args, **(kwargs or {}))
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def _product(formula: Callable[..., int]) -> Callable[..., int]:
    """The count of a product of matrices, real or complex."""

    def counted(*operands: Any, out_val: Tensor, **more: Any) -> int:
        return (4 if out_val.is_complex() else 1) * formula(*operands, out_val=out_val, **more)

    return counted


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """Scores, and the weighted sum of the values."""
    return 2 * query.numel() * key.shape[-2] + 2 * query[..., 0].numel() * value[0, 0].numel()


def _attention_backward(_: Tensor, query: Tensor, key: Tensor, value: Tensor, *__: Any, **___: Any) -> int:
    return 2 * _attention(query, key, value)


def _complex_transform(field: Tensor, dims: list[int], *_: Any, **__: Any) -> int:
    return round(5 * field.numel() * math.log2(max(1, math.prod(field.shape[dim] for dim in dims))))


def _real_transform(field: Tensor, dims: list[int], *_: Any, **__: Any) -> int:
    return _complex_transform(field, dims) // 2


def _inverse_transform(_: Tensor, dims: list[int], *__: Any, out_val: Tensor, **___: Any) -> int:
    return _complex_transform(out_val, dims) // 2


ATTENTION = (
    aten._scaled_dot_product_flash_attention,
    aten._scaled_dot_product_efficient_attention,
    aten._scaled_dot_product_cudnn_attention,
    aten._scaled_dot_product_flash_attention_for_cpu,
)
ATTENTION_BACKWARD = (
    aten._scaled_dot_product_flash_attention_backward,
    aten._scaled_dot_product_efficient_attention_backward,
    aten._scaled_dot_product_cudnn_attention_backward,
    aten._scaled_dot_product_flash_attention_for_cpu_backward,
)
FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    **{operator: _product(flop_registry[operator]) for operator in (aten.mm, aten.addmm, aten.bmm, aten.baddbmm)},
    aten.addmm_: _product(flop_registry[aten.addmm]),
    aten.baddbmm_: _product(flop_registry[aten.baddbmm]),
    **dict.fromkeys(ATTENTION, _attention),
    **dict.fromkeys(ATTENTION_BACKWARD, _attention_backward),
    aten._fft_c2c: _complex_transform,
    aten._fft_r2c: _real_transform,
    aten._fft_c2r: _inverse_transform,
}


def steps_within_flops(training: Training, batch: Callable[[int], Window], processes: int = 1) -> int:
    """How many optimiser steps `training.plan.flops` pay for; ValueError where not a single one.

    batch: the window of a pass. Counted, forward and backward, is the first pass of each length of rollout and size of
    ensemble; the weights and buffers of the training are left as they were.
    """
    plan, objective = training.plan, training.objective
    costs: dict[tuple[int, int], int] = {}

    def cost(step: int) -> int:
        """Of an optimiser step, over all passes and processes."""
        work = objective.length(step), objective.size(step)
        if work not in costs:
            passed = operations_of_pass(training, batch(step * plan.accumulate), step)
            costs[work] = passed * plan.accumulate * processes
        return costs[work]

    steps, remaining = 0, (plan.flops or 0.0) - cost(0)
    while remaining >= 0:
        steps += 1
        remaining -= cost(steps)
    if not steps:
        raise ValueError(f"training.flops={plan.flops:.3g} does not pay for a step, which takes {cost(0):.3g}.")
    return steps


def operations_of_pass(training: Training, window: Window, step: int) -> int:
    """Count the operations of one pass, forward and backward, at an optimiser step; the weights stay as they are."""
    training.objective.at(step)
    losses = active(training.losses, step, max(step + 1, training.plan.steps))
    with torch.random.fork_rng(devices=[]), Operations() as operations:
        loss, _ = training.objective(copy.deepcopy(training.step), window, losses)
        loss.backward()
    return operations.total


STEPS = 3  # timed, after one to warm up


@dataclass(frozen=True)
class Requirements:
    """Hold what one process of a training takes: bytes, operations a sample, seconds a step.

    activations: bytes a sample that a forward pass keeps for the backward pass. samples: of a pass. replay: bytes of
    predictions that are kept in the processor's memory.
    """

    parameters: int
    weights: int
    gradients: int
    moments: int
    averages: int
    activations: float
    operations: float
    seconds: float
    samples: int
    replay: int = 0

    @property
    def fixed(self) -> int:
        """Bytes that do not depend on the batch."""
        return self.weights + self.gradients + self.moments + self.averages

    def largest(self, memory: float) -> int:
        """The most samples of a pass that fit into `memory` bytes."""
        return max(0, int((memory - self.fixed) / max(self.activations, 1.0)))


def measure(training: Training, window: Window, *, mixed: bool = False) -> Requirements:
    """Make a few steps on one window, on the device where both are. mixed: in bfloat16 where that is safe.

    ValueError where the network is fitted at once. The weights change.
    """
    if is_fitted_at_once(training.step):
        raise ValueError("This network is solved at once, not descended: there is nothing to plan.")
    trainable = [weight for weight in training.step.parameters() if weight.requires_grad]
    samples, replay = window.history[0].lead[-1], training.objective.replay
    with Operations() as counted:
        activations = kept_bytes(training, window)
    optimizer = training.optimizer(training.step)
    seconds = _seconds_a_step(training, optimizer, window, mixed)
    moments = [v for state in optimizer.state.values() for v in state.values() if isinstance(v, Tensor)]
    return Requirements(
        parameters=parameter_count(training.step),
        weights=_bytes_of(training.step.parameters()),
        gradients=_bytes_of(trainable),
        moments=_bytes_of(moments),
        averages=_bytes_of(training.averages.parameters()) if training.averages is not None else 0,
        activations=activations / samples,
        operations=counted.total / samples,
        seconds=seconds,
        samples=samples,
        replay=replay.bytes(training.step.world, training.plan.batch_size) if replay else 0,
    )


def cost_of(
    training: Training, window: Window, last: Window, *, inside: Sequence[str] | None, start: int, processes: int = 1
) -> Cost:
    """What a size of a scaling study costs, on a window before its cooldown and one of it. The weights change.

    inside: words in the names of the parameters that count as the size; None: all count. start: of the cooldown.
    ValueError where no parameter counts.
    """
    passes = training.plan.accumulate * processes
    cooled, step = passes * operations_of_pass(training, last, start), passes * operations_of_pass(training, window, 0)
    needs = measure(training, window)
    trainable = [(name, p) for name, p in training.step.named_parameters() if p.requires_grad]
    counted = [p for name, p in trainable if inside is None or any(word in name for word in inside)]
    if not counted:
        raise ValueError(f"study.inside: no parameter's name holds {', '.join(inside or ())}; null counts all.")
    inner, every = (
        sum(p.numel() * (2 if p.is_complex() else 1) for p in parameters)
        for parameters in (counted, [p for _, p in trainable])
    )
    memory = needs.fixed + needs.activations * needs.samples
    return Cost(inner, every, float(step), float(cooled), needs.seconds * training.plan.accumulate, memory)


def kept_bytes(training: Training, window: Window) -> float:
    """Bytes that a forward pass keeps for the backward pass, weights and buffers aside; the backward pass is made."""
    excluded = {t.untyped_storage().data_ptr() for t in (*training.parameters(), *training.buffers())}
    stored: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in excluded:
            stored[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = first_loss(training, window)
    loss.backward()
    return float(sum(stored.values()))


def first_loss(training: Training, window: Window) -> Tensor:
    """The loss of a training on a window, as its first optimiser step takes it."""
    loss, _ = training.objective(training.step, window, active(training.losses, 0, training.plan.steps))
    return loss


def _seconds_a_step(training: Training, optimizer: Any, window: Window, mixed: bool) -> float:
    """The median time of an optimiser step."""
    device, times = training.device.type, []
    for _ in range(1 + STEPS):
        start = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=mixed):
            loss = first_loss(training, window)
        loss.backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def _bytes_of(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nelement() * tensor.element_size() for tensor in tensors)


QUICK = 5e9  # parameters x points up to which a network runs at once on the processor


FILLS = {torch.Tensor.uniform_, torch.Tensor.normal_, nn.init.uniform_, nn.init.normal_, nn.init.kaiming_uniform_}
SCALINGS = {torch.Tensor.mul, torch.Tensor.__mul__, torch.Tensor.__rmul__}


class ShapesAlone(TorchFunctionMode):
    """Make tensors of which only the shapes are wanted; nothing is drawn.

    On the meta device torch draws in Python, and for some functions imports its compiler and sympy: half a second.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.randn, torch.rand):
            kwargs.pop("generator", None)
            return torch.empty(*args, **kwargs)
        if func in FILLS:
            tensor: Tensor = args[0] if args else kwargs["tensor"]
            return tensor if tensor.is_meta else func(*args, **kwargs)
        if func is torch.empty_like and len(args) == 1 and kwargs.keys() <= {"dtype", "device"}:
            return torch.empty(args[0].shape, **{"dtype": args[0].dtype, "device": args[0].device, **kwargs})
        if func in SCALINGS and len(args) == 2 and isinstance(args[1], float) and _is_shape(args[0]):
            return torch.empty(args[0].shape, dtype=args[0].dtype, device=args[0].device)
        return func(*args, **kwargs)


def _is_shape(tensor: Tensor) -> bool:
    """True for a tensor of floating-point numbers of which there is the shape only."""
    return tensor.is_meta and tensor.is_floating_point()


def runnable(network: nn.Module, world: World) -> nn.Module:
    """Return a network on the meta device, or where that is quick a copy of it with zeros on the processor.

    On the meta device torch runs its operators in Python, for which it imports its compiler: two seconds.
    """
    if parameter_count(network) * world.grid.size > QUICK:
        return network
    with ShapesAlone():
        copied = copy.deepcopy(network).to_empty(device="cpu")
    tables = {
        id(table)
        for module in copied.modules()
        if isinstance(module, Tables)
        for table in module.buffers(recurse=False)
    }
    with torch.no_grad():
        for tensor in (*copied.parameters(), *copied.buffers()):
            if id(tensor) not in tables:  # which all transforms of this process share
                tensor.zero_()
    return copied


def parameter_count(network: nn.Module) -> int:
    """Count trainable parameters; a complex one counts two."""
    return sum(p.numel() * (2 if p.is_complex() else 1) for p in network.parameters() if p.requires_grad)


def traced_pass(network: nn.Module, world: World) -> tuple[tuple[int, ...] | None, float]:
    """Return the shape of the output of one sample, and the bytes that its pass keeps for the gradient.

    None and 0 where these are unknown. network: on the meta device, or as `runnable` made it. Raises ValueError where
    it refuses the fields.
    """
    device = next((tensor.device for tensor in network.parameters()), torch.device("meta"))
    excluded = {tensor.untyped_storage()._cdata for tensor in (*network.parameters(), *network.buffers())}
    stored: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        stored[storage._cdata] = storage.nbytes()
        return tensor

    fields = torch.zeros(1, world.input_channels, *world.grid.shape, device=device)
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = network(fields, torch.zeros(1, dtype=torch.int64, device=device))
    except ValueError:
        raise
    except Exception:  # a network may need numbers where there are none
        return None, 0.0
    return tuple(output.shape), float(sum(size for storage, size in stored.items() if storage not in excluded))


def forward_operations(network: nn.Module, world: World) -> int | None:
    """The floating-point operations of a forward pass of one sample; None where it needs numbers, not shapes alone."""
    fields = torch.empty(1, world.input_channels, *world.grid.shape, device="meta")
    try:
        with torch.no_grad(), Operations() as counted:
            network.eval()(fields, torch.empty(1, dtype=torch.int64, device="meta"))
    except Exception:  # a network may need numbers where there are none
        return None
    return counted.total


def matrix_speed(device: str, size: int = 768) -> float:
    """Measure the floating-point operations a second of a product of matrices in single precision."""
    factor = torch.randn(size, size, device=device)
    best = float("inf")
    for _ in range(4):  # the first warms up
        start = time.perf_counter()
        float((factor @ factor)[0, 0])  # waits for the device
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best


def parameter_text(module: torch.nn.Module) -> str:
    """How many parameters there are and, where some are frozen, how many are trained."""
    total, trained = (sum(p.numel() for p in module.parameters() if p.requires_grad or frozen) for frozen in (1, 0))
    return f"{total:,}" if trained == total else f"{total:,}, of which {trained:,} are trained"
