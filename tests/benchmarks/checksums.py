"""What checksums cost that are compared on reading: of an evaluation, and of loading a training's batches.

The stores of verification.py (240x121, 3 variables on 13 levels, 10 initial times by 10 leads), once plain and once
sealed, with a crc32c behind every chunk, both in memory as reading leaves them (`warm` of loader.py), scored by turns
in processes of their own; and the truth among them read in batches of 8 times, as a loader does, in a first pass,
which compares, and in five later ones. The figure is the larger cost of evaluation and of later passes; what the first
costs, once, is told beside it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import zarr

sys.path.insert(0, str(Path(__file__).resolve().parent))
from loader import warm
from verification import VARIABLES, ours, write

BAR, ROUNDS, INITS = 5.0, 5, 10


def as_version_3(source: Path, target: Path, checked: bool) -> None:
    """Copy a store chunk by chunk; checked: with checksums, and sealed."""
    from zarr.codecs import Crc32cCodec

    from data_pipelines.files.fingerprints import every_chunk, seal_store

    old, new = zarr.open_group(source, mode="r"), zarr.create_group(target, zarr_format=3)
    codecs = [Crc32cCodec()] if checked else None
    with every_chunk():
        for name, array in old.arrays():
            attributes = dict(array.attrs)
            more = {"dimension_names": attributes.pop("_ARRAY_DIMENSIONS"), "attributes": attributes}
            made = new.create_array(
                name, shape=array.shape, chunks=array.chunks, dtype=array.dtype, compressors=codecs, **more
            )
            for first in range(0, array.shape[0], array.chunks[0]):
                made[first : first + array.chunks[0]] = array[first : first + array.chunks[0]]
    if checked:
        seal_store(target)
        return
    zarr.consolidate_metadata(target)


def loaded(folder: Path) -> dict[str, float]:
    """Seconds of a first pass, and the least of later ones, over all times of the truth, in batches of 8."""
    from data_pipelines.conventions.attributes import grid_of
    from data_pipelines.opening.datasets import open_dataset
    from data_pipelines.reading.fields import Fields
    from emulators.variables import Variable, VariableSet

    dataset = open_dataset(folder / "truth.zarr")
    levels = tuple(dataset["level"].values.tolist())
    variables = VariableSet(tuple(Variable(name, "", levels) for name in VARIABLES))
    fields = Fields(dataset, variables, grid_of(dataset))
    out = np.zeros((8, variables.size, *fields.grid.shape), np.float32)
    fields.read(np.arange(8), out)
    seconds = []
    for _ in range(6):
        begun = time.perf_counter()
        for first in range(8, fields.times.size - 7, 8):
            fields.read(np.arange(first, first + 8), out)
        seconds.append(time.perf_counter() - begun)
    return {"first": seconds[0], "later": min(seconds[1:])}


def run(kind: str, folder: Path) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, kind, str(folder)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> int:
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        (home / "2").mkdir()
        write(home / "2", INITS)
        for kind in ("plain", "checked"):
            for name in ("forecast", "truth", "climatology"):
                as_version_3(home / "2" / f"{name}.zarr", home / kind / f"{name}.zarr", kind == "checked")
            warm(home / kind)
        found: dict[tuple[str, str], list[float]] = {}
        for _ in range(ROUNDS):
            for kind in ("plain", "checked"):
                found.setdefault(("eval", kind), []).append(run("eval", home / kind)["seconds"])
                for name, seconds in run("load", home / kind).items():
                    found.setdefault((name, kind), []).append(seconds)
    least = {key: min(some) for key, some in found.items()}
    cost = {name: 100 * (least[name, "checked"] / least[name, "plain"] - 1) for name in ("eval", "first", "later")}
    words = {"eval": "evaluation", "first": "loading, first pass", "later": "loading, later passes"}
    for name, text in words.items():
        print(f"{text:24} {least[name, 'plain']:7.3f} s  {least[name, 'checked']:7.3f} s  {cost[name]:+6.1f} %")
    figure = max(cost["eval"], cost["later"])
    print(f"checksums: {figure:.1f} % (bar {BAR:g} %)")
    return 0 if figure <= BAR else 1


if __name__ == "__main__":
    if len(sys.argv) > 2:
        result = {"eval": ours, "load": loaded}[sys.argv[1]](Path(sys.argv[2]))
        print(json.dumps(result))
        raise SystemExit(0)
    raise SystemExit(main())
