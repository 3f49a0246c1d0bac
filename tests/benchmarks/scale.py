"""What training and forecasting at length cost beside the bare work.

    python tests/benchmarks/scale.py [--only SECTION] [--steps 14600] [--rounds 7] [--data planet]

overhead: steps of `emul train`'s loop and of a loop in plain PyTorch (loss, backward, clip, optimiser, schedule, weight
average) on the same batches in memory, by turns in one process; the peak memory of each in a process of its own.
processes: samples a second of `emul train` on two processes of one thread against one. rollout: memory and speed of a
long forecast, first and last twentieth. start: `emul train`, from the command line until its first step is saved.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

OVERHEAD, MEMORY, PROCESSES, FLAT, STEADY, START = 3.0, 5.0, 1.7, 1.0, 3.0, 10.0
STEPS = 30  # of a turn


def setting(data: str, batch_size: int = 8) -> tuple[Any, list[Any]]:
    """A training of the default SFNO and its first batches."""
    from emul.config.compose import compose
    from emul.training.assembly import build_training, open_archive, training_batches

    more = [f"training.steps={10**6}", f"training.validate_every={10**6}", "training.log_every=10"]
    more += ["hardware.threads=1", f"training.batch_size={batch_size}"]
    config = compose("train", [f"data={data}", "model=sfno", *more])
    archive, splits = open_archive(config, None)
    module = build_training(config, archive.world)
    batches = training_batches(config, module, archive, splits["train"], 0)
    return module, [batches.batch(n) for n in range(8)]


class Endless:
    """The same batches again and again, in place of a loader."""

    waited, skipped = 0.0, 0

    def __init__(self, windows: list[Any]) -> None:
        self.windows = windows

    def pace(self) -> str:
        return ""

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield from self.windows


def bare(module: Any, windows: list[Any], steps: int) -> list[float]:
    """Seconds of each step in plain PyTorch."""
    optimizer = module.optimizer(module.step)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: module.schedule(n, module.plan.steps))
    averages, weights = list(module.averages.parameters()), list(module.step.parameters())
    times = []
    for number in range(steps):
        begun = time.perf_counter()
        loss, _ = module.objective(module.step, windows[number % len(windows)], module.losses)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, module.plan.clip)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            torch._foreach_lerp_(averages, weights, 0.01)
        times.append(time.perf_counter() - begun)
    return times


def ours(module: Any, windows: list[Any], steps: int) -> list[float]:
    """Seconds of each step of `emul train`'s loop, checkpoints and logs included."""
    import pytorch_lightning as pl

    from data_pipelines.files.checkpoints import CheckpointFolder
    from data_pipelines.files.tables import Place
    from emul.training.loggers import ProgressLogger, metrics_file
    from emulators.training.checkpointing import Checkpoints
    from emulators.training.fitting import make_trainer, silence_lightning
    from emulators.training.hardware import Hardware

    class Clock(pl.Callback):
        def __init__(self) -> None:
            self.marks: list[float] = []

        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
            self.marks.append(time.perf_counter())
            trainer.should_stop = len(self.marks) > steps

    silence_lightning()
    clock = Clock()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        callbacks = [clock, Checkpoints(CheckpointFolder(folder), minutes=5.0), ProgressLogger(Endless(windows), 8)]  # type: ignore[arg-type]
        loggers = [metrics_file(Place(folder, "x"))]
        trainer = make_trainer(Hardware(threads=1), module.plan, callbacks, loggers=loggers, folder=folder)
        trainer.fit(module, Endless(windows))
    return list(np.diff(clock.marks))


def peak() -> float:
    """Peak memory of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def resident() -> float:
    """Memory of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def alone(*words: str) -> str:
    """The last line of this script run with other words in a process of its own."""
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


def overhead(data: str, rounds: int) -> bool:
    module, windows = setting(data)
    ratios = []
    for _ in range(rounds):
        plain, whole = (statistics.median(loop(module, windows, STEPS)[5:]) for loop in (bare, ours))
        ratios.append(whole / plain)
    more = 100.0 * (statistics.median(ratios) - 1.0)
    sizes = [float(alone("--child", name, "--data", data)) for name in ("bare", "ours")]
    memory = 100.0 * (sizes[1] / sizes[0] - 1.0)
    print(f"overhead   {more:6.2f} % of a step's time (bar {OVERHEAD} %)")
    print(f"memory     {memory:6.2f} % of {sizes[0] / 1e9:.2f} GB (bar {MEMORY} %)")
    return more <= OVERHEAD and memory <= MEMORY


def trained(folder: str, name: str, *more: str) -> float:
    """Samples a second of `emul train`, the median of its log lines but the first; else seconds to its end."""
    from data_pipelines.files.tables import read_rows

    words = [*more, f"output={folder}", f"name={name}", "logger=[csv]"]
    target, begun = Path(folder, "train", name), time.time()
    subprocess.run([sys.executable, "-m", "emul.main", "train", *words], check=True, capture_output=True)
    rates = [row["samples_per_second"] for row in read_rows(target / "metrics.csv") if "lr" in row]
    saved = (target / "checkpoints" / "last.ckpt").stat().st_mtime
    return statistics.median(rates[1:]) if len(rates) > 1 else saved - begun


def processes(data: str, rounds: int) -> bool:
    few = ["training.steps=60", "training.validate_every=60", "training.validation_cases=1", "hardware.threads=1"]
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for n in range(max(1, rounds // 3)):
            one = trained(folder, f"one{n}", f"data={data}", *few)
            two = trained(folder, f"two{n}", f"data={data}", "hardware=ddp", *few)
            ratios.append(two / one)
    print(f"processes  {statistics.median(ratios):6.2f} times one on two (bar {PROCESSES})")
    return statistics.median(ratios) >= PROCESSES


def rollouts(data: str, steps: int) -> bool:
    """One forecast by an emulator whose last layer is zero: it changes nothing, and takes as long as any."""
    from emulators.rollout import rollout

    module, windows = setting(data, batch_size=1)
    network, window = module.step.network, windows[0]
    torch.nn.init.zeros_(network.head.weight)
    begun, marks, memory = time.perf_counter(), [], []
    with torch.inference_mode():
        for _ in rollout(module.step, window.history, (window.forcing[0] for _ in range(steps))):
            marks.append(time.perf_counter() - begun)
            memory.append(resident())
    part = max(2, steps // 20)
    pace = np.diff(marks)
    slower = 100.0 * abs(float(np.median(pace[-part:]) / np.median(pace[1:part])) - 1.0)
    more = 100.0 * (max(memory[part:]) / memory[part] - 1.0)
    step = module.step.world.timestep / np.timedelta64(1, "s")
    years = step * steps / (365.25 * 86400.0) / (marks[-1] / 86400.0)
    print(
        f"rollout    {steps} steps: memory {more:.2f} % more (bar {FLAT} %), pace {slower:.2f} % off (bar {STEADY} %)"
    )
    print(f"           {years:,.0f} simulated years a day on {torch.get_num_threads()} thread")
    return more <= FLAT and slower <= STEADY


def start(data: str) -> bool:
    few = ["training.steps=1", "training.validation_cases=1", "training.batch_size=1", "training.validation_lead=1"]
    with tempfile.TemporaryDirectory() as folder:
        seconds = min(trained(folder, f"start{n}", f"data={data}", *few, "hardware.threads=1") for n in range(3))
    print(f"start      {seconds:6.1f} s until the first step is validated and saved (bar {START} s)")
    return seconds <= START


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=["overhead", "processes", "rollout", "start"])
    parser.add_argument("--steps", type=int, default=14_600)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--data", default="planet")
    parser.add_argument("--child", choices=["bare", "ours"], help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    from data_pipelines.jobs.processes import set_threads

    set_threads(1)
    if chosen.child:
        module, windows = setting(chosen.data)
        (bare if chosen.child == "bare" else ours)(module, windows, STEPS)
        print(peak())
        return 0
    sections = {
        "overhead": lambda: overhead(chosen.data, chosen.rounds),
        "processes": lambda: processes(chosen.data, chosen.rounds),
        "rollout": lambda: rollouts(chosen.data, chosen.steps),
        "start": lambda: start(chosen.data),
    }
    met = [make() for name, make in sections.items() if chosen.only in (None, name)]
    print(f"scale: {sum(met)} of {len(met)} bars met (bar {len(met)})")
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
