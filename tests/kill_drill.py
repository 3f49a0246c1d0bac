"""The kill drill: one run, from training to scores, killed again and again at random moments, must lose nothing.

    python tests/kill_drill.py [--kills 100] [--seed 0] [--steps 60]

A run is made once without a disturbance. Beside it another is started, killed (SIGKILL or SIGTERM) at a random moment,
half the time within a step, a validation, the writing of a checkpoint, the forecast or the evaluation, chosen
beforehand, and started again, until it has been killed that often; then it is let through. Weights, optimiser, best
weights, validation scores and final scores must equal those of the undisturbed run, bit for bit. Every attempt is a
process of its own, forked from one that has imported everything, so that a hundred of them take minutes.
"""

from __future__ import annotations

import argparse
import collections
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PHASES = ("start", "step", "validation", "checkpoint", "forecast", "evaluation")
SETTINGS = (
    "data=planet_tiny", "model=sfno", "model.embed=8", "model.layers=1", "hardware.threads=1", "training.batch_size=4",
    "training.validate_every=7", "training.validation_cases=4", "training.checkpoint_every=3", "training.log_every=5",
    "training.accumulate=2", "forecast.lead=1d", "forecast.batch_size=2", "eval.pictures=false",
)  # fmt: skip


def settings(folder: Path, name: str, steps: int) -> list[str]:
    return [*SETTINGS, f"training.steps={steps}", f"output={folder}", f"name={name}"]


def attempt(overrides: list[str], phase: Any) -> int:
    """Start the run in a process of its own, which notes what it is doing in `phase`; its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 1)
        os.setpgid(0, 0)
        note_phases(phase)
        from emul.config.compose import compose
        from emul.run import run

        code = run(compose("run", overrides))
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        os._exit(code)


def note_phases(phase: Any) -> None:
    """Have the parts of this process tell which of PHASES they are in."""
    import emul.eval
    import emul.forecast
    from data_pipelines.files import checkpoints
    from emulators.training.lightning_module import Training

    def noted(owner: Any, name: str, during: str, after: str | None = None) -> None:
        whole = getattr(owner, name)

        def told(*args: Any, **kwargs: Any) -> Any:
            before, phase.value = phase.value, PHASES.index(during)
            try:
                return whole(*args, **kwargs)
            finally:
                phase.value = PHASES.index(after) if after else before

        setattr(owner, name, told)

    phase.value = 0
    noted(Training, "training_step", "step", "step")
    noted(Training, "on_validation_epoch_start", "validation", "validation")
    noted(Training, "on_validation_epoch_end", "validation", "step")
    noted(checkpoints, "save", "checkpoint")
    noted(emul.forecast, "forecast", "forecast")
    noted(emul.eval, "evaluate", "evaluation")


def killed(child: int, phase: Any, chance: random.Random, longest: float) -> tuple[str, str] | None:
    """Kill the process at a moment of chance; the phase and the signal, or None where it was done before."""
    number = chance.choice((signal.SIGKILL, signal.SIGTERM))
    goal = chance.choice(PHASES[1:]) if chance.random() < 0.5 else None
    end = time.monotonic() + (longest if goal else chance.uniform(0.0, longest))
    while time.monotonic() < end:
        if goal and phase.value == PHASES.index(goal):
            time.sleep(chance.expovariate(100.0))
            break
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert status == 0, f"an attempt that nobody disturbed failed: status {status}"
            return None
        time.sleep(0.0005)
    met = PHASES[phase.value]
    os.kill(child, number)
    end = time.monotonic() + 60.0
    while not os.waitpid(child, os.WNOHANG)[0]:
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            raise AssertionError(f"a run that was sent {number.name} in phase {met} did not end within a minute")
        time.sleep(0.001)
    return met, number.name


def result(folder: Path, name: str) -> dict[str, Any]:
    """All that two runs have to have in common."""
    import torch
    import xarray as xr

    from data_pipelines.files import checkpoints
    from data_pipelines.files.tables import read_rows

    run = folder / "train" / name
    last, best = (checkpoints.load(run / "checkpoints" / f"{which}.ckpt") for which in ("last", "best"))
    moments = last["optimizer_states"][0]["state"]
    card = {key: last["emul"][key] for key in ("step", "finished", "validation", "validated", "best")}
    with xr.open_dataset(folder / "eval" / name / "scores.nc") as scores:
        values = {f"scores {key}": torch.from_numpy(field.values.copy()) for key, field in scores.data_vars.items()}
    return {
        **{f"weights {key}": value for key, value in last["state_dict"].items()},
        **{f"best {key}": value for key, value in best["emul"]["weights"].items()},
        **{f"moment {n} {key}": torch.as_tensor(v) for n, state in moments.items() for key, v in state.items()},
        **{f"card {key}": value for key, value in card.items()},
        "validations": [(row["step"], row["score"]) for row in read_rows(run / "metrics.csv") if "score" in row],
        **values,
    }


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The keys in which two results are not the same to the last bit."""
    import torch

    def same(a: Any, b: Any) -> bool:
        if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
            return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())
        return bool(a == b)

    return [key for key in {**one, **other} if key not in one or key not in other or not same(one[key], other[key])]


def drill(folder: Path, kills: int, seed: int, steps: int) -> tuple[collections.Counter[tuple[str, str]], list[str]]:
    """Kill a run that often; how often in which phase by which signal, and in what it then differs."""
    chance, phase = random.Random(seed), multiprocessing.RawValue("i", 0)
    started = time.monotonic()
    _, status = os.waitpid(attempt(settings(folder, "whole", steps), phase), 0)
    assert status == 0, "the undisturbed run failed"
    longest = time.monotonic() - started
    met: collections.Counter[tuple[str, str]] = collections.Counter()
    round_, overrides = 0, settings(folder, "killed", steps)
    found: list[str] = []
    while sum(met.values()) < kills:
        end = killed(attempt(overrides, phase), phase, chance, longest)
        if end is not None:
            met[end] += 1
            continue
        found += [f"round {round_}: {key}" for key in differences(result(folder, "whole"), result(folder, "killed"))]
        round_ += 1  # this run is through: a new one takes its place
        (folder / "train" / "killed").rename(folder / "train" / f"through_{round_}")
        for verb in ("forecast", "eval"):
            (folder / verb / "killed").rename(folder / verb / f"through_{round_}")
        overrides = settings(folder, "killed", steps)
    _, status = os.waitpid(attempt(overrides, phase), 0)
    if status:
        return met, [*found, f"the run could not be finished: status {status}"]
    return met, found + differences(result(folder, "whole"), result(folder, "killed"))


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill a run again and again; it must lose nothing.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--folder", type=Path, default=None, help="where the runs go; default: a temporary folder")
    chosen = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    import emul.eval
    import emul.forecast
    import emul.run
    import emul.train  # noqa: F401  imported once, for all attempts

    with tempfile.TemporaryDirectory() as temporary:
        met, found = drill(chosen.folder or Path(temporary), chosen.kills, chosen.seed, chosen.steps)
    for name in ("SIGKILL", "SIGTERM"):
        print(f"{name:8}", "  ".join(f"{phase} {met[phase, name]}" for phase in PHASES))
    for key in found:
        print(f"differs: {key}")
    print(f"kill drill: {sum(met.values())} kills, {'lost' if found else 'nothing lost'} (bar nothing lost)")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
