"""Whether kills, flipped bits, two commands at once, full disks and strangers can make results wrong or lost.

    python tests/benchmarks/trust.py [--kills 100] [--flips 200] [--seed 0] [--only kills flips pairs disks strangers]

Kills: each verb is killed (SIGKILL or SIGTERM, half of them with its children, half while it writes) and started again
until it has been killed that often; what it leaves in the end must equal an undisturbed result. Flips: one bit of each
kind of file that is kept is flipped in that many places, and its reader refuses it in a sentence or returns the same.
Pairs: the same command twice at once; each does its work or is refused in a sentence, and the result is right. Disks: a
limit on the size of files, a full file system and one without permission for each verb: told in a sentence that names a
file, and right afterwards. Strangers: runs, manifests, experiments and files that would execute code, leak or write
elsewhere. Every attempt is a process forked from one that has imported everything. The figure is the number of kinds
that hold.
"""

from __future__ import annotations

import argparse
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import flipped_bits

import hostile

SETTINGS = (
    "data=planet_tiny", "model=sfno", "model.embed=8", "model.layers=1", "hardware.threads=1", "training.steps=4",
    "training.batch_size=2", "training.validate_every=2", "training.validation_cases=2", "training.validation_lead=1",
)  # fmt: skip
VERBS = ("convert", "statistics", "climatology", "regrid", "make", "train", "forecast", "eval", "compare", "sweep")
SECRET = "not-for-strangers"
SECTIONS = ("flips", "strangers", "pairs", "disks", "kills")
KILLED = ("convert", "statistics", "climatology", "sweep", "eval", "forecast")
NOBODY = 65534
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
        store = f"path={out / 'climatology.zarr'}"
        return {
            "convert": ["data", "convert", *many, f"to={out / 'packed.zarr'}", "per_file=4"],
            "statistics": ["data", "statistics", *many, f"to={out / 'statistics.nc'}", "intervals=[6h,24h]"],
            "climatology": ["data", "climatology", *many, store, "megabytes=30", "window=5", "quantiles=[0.5]",
                            "fields=[temperature,surface_pressure]"],
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
        verbs = ("train", "convert", "forecast", "eval", "eval", "statistics", "climatology", "regrid")
        for verb, more in zip(verbs, ("", "", "", "name=x", "name=y", "", "", ""), strict=True):
            words = [*self.words(verb, self.folder), *filter(None, [more])]
            code, said = finished(start(words, self.folder / "log"), self.folder / "log")
            assert code == 0, f"{' '.join(words)}: {said}"


def start(words: list[str], log: Path, before: Callable[[], None] | None = None) -> int:
    """Start a command in a forked process and session; its number. before: called there first."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        if before is not None:
            before()
        from emul.main import main

        code = main(words)
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def finished(child: int, log: Path, seconds: float = 600.0) -> tuple[int, str]:
    """Wait for a process; (exit code, what it said). One that does not end is killed: code -1."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), log.read_text(errors="replace")
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -1, f"it did not end within {seconds:.0f} s"


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a forked process, so that this one starts no threads; its result."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        try:
            content = pickle.dumps((True, function(*arguments)))
        except BaseException:
            content = pickle.dumps((False, traceback.format_exc()))
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(content)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        good, value = pickle.loads(pipe.read())
    os.waitpid(child, 0)
    if not good:
        raise RuntimeError(value)
    return value


def result(verb: str, out: Path) -> dict[str, Any]:
    """What a verb leaves, as values that must be the same each time."""
    from data_pipelines.files import checkpoints
    from data_pipelines.files.netcdf import read_groups
    from data_pipelines.inspection.checksums import verified

    found: dict[str, Any] = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        name = str(path.relative_to(out))
        if path.suffix == ".nc":
            groups = read_groups(path)
            found |= {f"{name}{group}": {n: v.values.tobytes() for n, v in data.variables.items()}
                      for group, data in groups.items()}  # fmt: skip
        elif "/c/" in name or "/c." in name:
            found[name] = path.read_bytes()
        elif path.suffix == ".ckpt" and path.name != "previous.ckpt":
            weights = checkpoints.load(path)["emul"]["weights"]
            found[name] = {key: value.numpy().tobytes() for key, value in weights.items()}
    left = [str(path) for path in out.rglob(".*.partial")]
    faults = [fault for one in verified(out) for fault in one.faults]
    assert found, f"{verb} left nothing in {out}"
    return {**found, "left behind": left, "faults": faults}


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return [key for key in {**one, **other} if one.get(key) != other.get(key)]


def children_of(number: int) -> list[int]:
    try:
        text = Path(f"/proc/{number}/task/{number}/children").read_text()
    except OSError:
        return []
    return [below for child in map(int, text.split()) for below in (child, *children_of(child))]


def end_session(number: int) -> None:
    """Kill the processes that a killed command has left, and wait until they are gone."""
    for child in [number, *children_of(number)]:
        try:
            os.kill(child, signal.SIGKILL)
        except ProcessLookupError:
            continue


def kills(home: Home, verb: str, count: int, chance: random.Random) -> Row:
    """Kill a verb that often, starting it again each time; it must lose nothing."""
    out, log = home.folder / f"kill_{verb}", home.folder / f"kill_{verb}.log"
    whole = home.folder / f"whole_{verb}"
    begun = time.monotonic()
    code, said = finished(start(home.words(verb, whole), log), log)
    longest = time.monotonic() - begun
    expected = apart(result, verb, whole)
    faults = [said] if code else []
    done = 0
    while done < count:
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
        return differing(expected, apart(result, verb, out))
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
        limit = lambda: os.setuid(NOBODY)  # noqa: E731
    code, said = finished(start(home.words(verb, out), log, limit), log)
    told = "Could not" in said or "ulimit" in said or "free" in said or "ermission denied" in said
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
            root = os.geteuid() == 0  # who alone may mount, and is refused nothing unless he becomes another
            add([disk(home, verb, kind) for kind in ("limit", *(("full", "read-only") if root else ()))])
        if "kills" in chosen.only and verb in KILLED:
            add([kills(home, verb, chosen.kills, chance)])
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description="Kills, flipped bits, pairs, full disks and strangers.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--verbs", nargs="+", choices=VERBS, default=None, help="of kills, pairs and disks")
    chosen = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    import emul.eval
    import emul.forecast
    import emul.sweep
    import emul.train  # noqa: F401  imported once, for all attempts

    with tempfile.TemporaryDirectory() as temporary:
        os.environ |= {"XDG_CACHE_HOME": f"{temporary}/cache", "XDG_CONFIG_HOME": f"{temporary}/config", "CI": "true"}
        os.environ |= {"EMUL_TRUST": "", "EMUL_CONF": "", "OMP_NUM_THREADS": "1"}
        Path(temporary).chmod(0o755)
        home = Home(Path(temporary))
        home.prepare()
        rows = measured(home, chosen)
    held = sum(tried == survived for _, _, tried, survived, _ in rows)
    tried, survived = (sum(row[n] for row in rows) for n in (2, 3))
    print(f"tried {tried}, survived {survived}, failed {tried - survived}")
    print(f"trust: {held} of {len(rows)} kinds hold (bar {len(rows)})")
    return 0 if held == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
