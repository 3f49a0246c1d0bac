"""Whether kills, flipped bits, two commands at once, full disks and strangers can make results wrong or lost.

    python tests/benchmarks/trust.py [--kills 100] [--minutes 60] [--flips 200] [--seed 0] [--verbs ...] [--only ...]

Kills: each verb is killed (SIGKILL or SIGTERM, half of them with its children, half while it writes) and started again
until it has been killed that often, or for so many minutes; what it leaves in the end must equal an undisturbed result.
Flips: one bit of each kind of file that is kept is flipped in that many places, and its reader refuses it in a sentence
or returns the same. Pairs: the same command twice at once; each does its work or is refused in a sentence, and the
result is right. Disks: a limit on the size of files, a full file system and one without permission for each verb: told
in a sentence that names a file, and right afterwards. Strangers: runs, manifests, experiments and files that would
execute code, leak or write elsewhere. Every attempt is a process forked from one that has imported everything. The
figure is the number of kinds that hold.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import flipped_bits
from forked import (
    Forked,
    apart,
    children_of,
    differing,
    end_session,
    finished,
    noting_modules,
    result,
    start,
    without_rights_of_root,
)

import hostile

SETTINGS = (
    "data=planet_tiny", "model=sfno", "model.embed=8", "model.layers=1", "hardware.threads=1", "training.steps=4",
    "training.batch_size=2", "training.validate_every=2", "training.validation_cases=2", "training.validation_lead=1",
)  # fmt: skip
VERBS = ("convert", "statistics", "climatology", "regrid", "make", "train", "forecast", "eval", "compare", "sweep")
SECRET = "not-for-strangers"
SECTIONS = ("flips", "strangers", "pairs", "disks", "kills")
KILLED = ("convert", "statistics", "climatology", "sweep", "eval", "forecast")
Row = tuple[str, str, int, int, list[str]]  # section, kind, tried, survived, what failed


class Home:
    """A folder with data, a trained run, its forecast and its scores, made once."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run, self.fc = folder, folder / "train" / "x", folder / "forecast" / "x"
        self.packed = folder / "packed.zarr"

    @property
    def planet(self) -> str:
        """The store of the simulated planet."""
        return str(next((self.folder / "cache" / "emul").glob("planet-*.zarr"), "none"))

    def words(self, verb: str, out: Path) -> list[str]:
        """The command of a verb that writes below `out`."""
        many = ["data=planet_tiny", f"output={out}"]
        store = f"to={out / 'climatology.zarr'}"
        return {
            "convert": ["data", "convert", *many, f"to={out / 'packed.zarr'}", "per_file=4"],
            "statistics": ["data", "statistics", *many, f"to={out / 'statistics.nc'}", "intervals=[6h,24h]"],
            "climatology": ["data", "climatology", *many, store, "megabytes=8", "window=5", "quantiles=[0.5]",
                            "hours=[0,12]", "fields=[surface_pressure]"],
            "regrid": ["data", "regrid", self.planet, "grid=8x4_equiangular", f"to={out / 'coarse.zarr'}"],
            "train": ["train", *SETTINGS, f"output={out}", "name=x", "training.checkpoint_every=1"],
            "forecast": ["forecast", f"run={self.run}", f"output={out}", "lead=2d", "batch_size=2", "every=1d"],
            "eval": ["eval", f"run={self.run}", f"forecast={self.fc}", f"output={out}", "pictures=false",
                     "megabytes=0.05", "save_every=0", "significance.least=0"],
            "compare": ["eval", "compare", str(self.folder / "eval" / "x"), str(self.folder / "eval" / "y"),
                        f"output={out}", "least=0"],
            "sweep": ["sweep", *SETTINGS, "training.steps=2", "seed=1,2", "sweep.name=s", f"output={out}"],
            "make": ["data", "make", *many, f"data.folder={out / 'cache'}", "data.days=10"],
        }[verb]  # fmt: skip

    def prepare(self) -> None:
        verbs = ("train", "convert", "forecast", "eval", "eval", "statistics", "climatology", "regrid", "compare")
        for verb, more in zip(verbs, ("", "", "", "name=x", "name=y", "", "", "", ""), strict=True):
            self.prepare_with([*self.words(verb, self.folder), *filter(None, [more])])
        self.prepare_with(["verify", str(self.run)])

    def prepare_with(self, words: list[str]) -> None:
        """Run a command, which must succeed, and import all that it imports, which each attempt would else do again."""
        log, names = self.folder / "log", self.folder / "modules"
        code, said = finished(start(words, log, noting_modules(names)), log)
        assert code == 0, f"{' '.join(words)}: {said}"
        for name in names.read_text().split():
            importlib.import_module(name)


def kills(home: Home, verb: str, count: int, chance: random.Random, minutes: float) -> Row:
    """Kill a verb that often, at most for so many minutes, starting it again each time; it must lose nothing."""
    out, log = home.folder / f"kill_{verb}", home.folder / f"kill_{verb}.log"
    whole = home.folder / f"whole_{verb}"
    begun = time.monotonic()
    code, said = finished(start(home.words(verb, whole), log), log)
    longest = time.monotonic() - begun
    expected = apart(result, verb, whole)
    faults = [said] if code else []
    done, last = 0, begun + 60.0 * minutes
    while done < count and time.monotonic() < last:
        child, number = start(home.words(verb, out), log), chance.choice((signal.SIGKILL, signal.SIGTERM))
        writes, patience, met = chance.random() < 0.5, chance.uniform(0, longest), None
        before, end = _entries(out), time.monotonic() + (3 * longest if writes else patience)
        while time.monotonic() < end and met is None:
            if writes and _entries(out) != before:
                writes, end = False, time.monotonic() + chance.expovariate(4.0 / longest)
            ended, status = os.waitpid(child, os.WNOHANG)
            met = os.waitstatus_to_exitcode(status) if ended else None
            time.sleep(0.001)
        if met is None:
            below = children_of(child) if chance.random() < 0.5 else []
            for one in (child, *below):
                os.kill(one, number)
            finished(child, log, 60.0)
            for one in below:
                end_session(one)
            done += 1
            continue
        if met:
            faults.append(f"exit {met}: {log.read_text(errors='replace')[-400:]}")
        faults += _compared(verb, expected, out)
        shutil.rmtree(out, ignore_errors=True)
    code, said = finished(start(home.words(verb, out), log), log)
    faults += [f"exit {code}: {said[-400:]}"] if code else []
    faults += _compared(verb, expected, out)
    return "kills", verb, done, done - len(faults), faults


def _entries(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))


def _compared(verb: str, expected: dict[str, Any], out: Path) -> list[str]:
    try:
        found = apart(result, verb, out)
        return [f"{key}: {found['left behind']}"[-400:] if key == "left behind" else key
                for key in differing(expected, found)]  # fmt: skip
    except (RuntimeError, AssertionError) as error:
        return [str(error)[-400:]]


def pair(home: Home, verb: str) -> Row:
    """The same command twice at once: done or refused in a sentence, and the result right."""
    whole, out = home.folder / f"alone_{verb}", home.folder / f"pair_{verb}"
    logs = [home.folder / f"pair_{verb}.{n}" for n in (0, 1)]
    code, said = finished(start(home.words(verb, whole), logs[0]), logs[0])
    faults = [said[-400:]] if code else []
    children = [start(home.words(verb, out), log) for log in logs]
    ends = [finished(child, log) for child, log in zip(children, logs, strict=True)]
    faults += [said[-400:] for code, said in ends if code not in (0, 2) or "Traceback" in said]
    if all(code for code, _ in ends):
        faults.append("both were refused")
    faults += _compared(verb, apart(result, verb, whole), out)
    return "pairs", verb, 1, int(not faults), faults


def disk(home: Home, verb: str, kind: str) -> Row:
    """A verb where it cannot write: told in a sentence that names a file, and right once it can."""
    whole, out = home.folder / f"alone_{verb}", home.folder / f"{kind}_{verb}"
    log, mounted = home.folder / f"{kind}_{verb}.log", False
    if not whole.exists():
        finished(start(home.words(verb, whole), log), log)
    out.mkdir()
    limit: Callable[[], None] | None = None
    if kind == "limit":
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))  # noqa: E731
    elif kind == "full":
        mounted = not subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(out)]).returncode
    else:
        out.chmod(0o555)
        limit = without_rights_of_root
    code, said = finished(start(home.words(verb, out), log, limit), log)
    told = any(words in said for words in ("Could not", "ulimit", "free", "has room", "ermission denied"))
    faults = [] if code and "Traceback" not in said and told else [f"exit {code}: {said[-600:]}"]
    if mounted:
        subprocess.run(["umount", "-l", str(out)], check=True)
    out.chmod(0o755)
    code, said = finished(start(home.words(verb, out), log), log)
    faults += [f"afterwards exit {code}: {said[-400:]}"] if code else []
    faults += _compared(verb, apart(result, verb, whole), out)
    return "disks", f"{verb}, {kind}", 1, int(not faults), faults


def stranger(home: Home, kind: str, words: list[str], marker: Path, out: Path) -> Row:
    """A command on what a stranger made: nothing is executed, leaked, or written outside of `out`."""
    log = home.folder / "stranger.log"
    before = {path for path in home.folder.rglob("*") if not path.is_relative_to(out)}

    def secret() -> None:
        os.environ["PRIVATE"] = SECRET
        os.chdir(out)

    code, said = finished(start(words, log, secret), log)
    faults = ["it was executed"] if marker.exists() else []
    marker.unlink(missing_ok=True)
    files = [path for path in out.rglob("*") if path.is_file()]
    texts = {path: path.read_bytes() for path in files} | {log: said.encode()}
    faults += [f"the secret is in {path}" for path, text in texts.items() if SECRET.encode() in text]
    pages = [text for path, text in texts.items() if path.suffix == ".html"]
    faults += ["a page holds its script"] * any(hostile.SCRIPT.encode() in page for page in pages)
    cells = [line for path, text in texts.items() if path.suffix == ".csv" for line in text.decode().splitlines()]
    faults += ["a table holds a formula"] * any(f",{sign}" in line for line in cells for sign in ("=", "@", "+"))
    after = {path for path in home.folder.rglob("*") if not path.is_relative_to(out)}
    memory = home.folder / "config"  # of the user: what --config-dir and --trust name
    faults += [f"it wrote {path}" for path in after - before - {log} if not path.is_relative_to(memory)]
    faults += [f"exit {code}: {said[-400:]}"] if "Traceback" in said else []
    return "strangers", kind, 1, int(not faults), faults


def strangers(home: Home) -> Iterator[Row]:
    marker = home.folder / "executed"
    for kind, make in hostile.attempts(home.run, home.fc, marker).items():
        out = home.folder / "stranger"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        yield stranger(home, kind, apart(make, out), marker, out)


def measured(home: Home, chosen: argparse.Namespace) -> list[Row]:
    chance, verbs = random.Random(chosen.seed), [verb for verb in VERBS if verb in (chosen.verbs or VERBS)]
    rows: list[Row] = []

    def add(some: list[Row]) -> None:
        for section, kind, tried, survived, faults in some:
            print(f"{section:10} {kind:44} {tried:5} tried {survived:5} survived", flush=True)
            for fault in faults[:3]:
                print(f"    {fault}", flush=True)
        rows.extend(some)

    if "flips" in chosen.only:
        add(apart(flipped_bits.flips, home, chosen.flips, chosen.seed))
    if "strangers" in chosen.only:
        for row in strangers(home):
            add([row])
    for verb in verbs:
        if "pairs" in chosen.only:
            add([pair(home, verb)])
        if "disks" in chosen.only:
            root = os.geteuid() == 0  # who alone may mount
            add([disk(home, verb, kind) for kind in ("limit", *(("full", "read-only") if root else ()))])
        if "kills" in chosen.only and verb in KILLED:
            add([kills(home, verb, chosen.kills, chance, chosen.minutes)])
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description="Kills, flipped bits, pairs, full disks and strangers.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=60.0, help="of the kills of one verb, at most")
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--verbs", nargs="+", choices=VERBS, default=None, help="of kills, pairs and disks")
    chosen = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    import data_pipelines.studies.trials
    import emul.sweep

    emul.sweep.PERIOD = 0.02
    data_pipelines.studies.trials.subprocess = SimpleNamespace(**vars(subprocess) | {"Popen": Forked})
    with tempfile.TemporaryDirectory() as temporary:
        os.environ |= {"XDG_CACHE_HOME": f"{temporary}/cache", "XDG_CONFIG_HOME": f"{temporary}/config", "CI": "true"}
        os.environ |= {"EMUL_TRUST": "", "EMUL_CONF": "", "OMP_NUM_THREADS": "1"}
        Path(temporary).chmod(0o755)
        home = Home(Path(temporary))
        home.prepare()
        gc.freeze()
        rows = measured(home, chosen)
    held = sum(tried == survived for _, _, tried, survived, _ in rows)
    tried, survived = (sum(row[n] for row in rows) for n in (2, 3))
    print(f"tried {tried}, survived {survived}, failed {tried - survived}")
    print(f"trust: {held} of {len(rows)} kinds hold (bar {len(rows)})")
    return 0 if held == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
