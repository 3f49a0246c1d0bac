"""Runs, manifests and experiments of strangers: each would leave a file `marker` if anything in it were executed.

Used by the tests and by the benchmark of trust.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from omegaconf import OmegaConf

from data_pipelines.files import checkpoints

COMMAND = "touch {marker}"
Attempt = Callable[[Path], list[str]]
SCRIPT = "<script>document.title='executed'</script>"

# Targets that lead to code: of the standard library, through modules of ours and of others, by private names.
TARGETS: dict[str, tuple[str, list[Any]]] = {
    "os": ("os.system", [COMMAND]),
    "posix": ("posix.system", [COMMAND]),
    "eval": ("builtins.eval", ["__import__('os').system('" + COMMAND + "')"]),
    "subprocess": ("subprocess.check_call", [["touch", "{marker}"]]),
    "path": ("pathlib.Path.touch", [{"_target_": "pathlib.Path", "_args_": ["{marker}"]}]),
    "through_a_module_of_ours": ("data_pipelines.files.atomic.os.system", [COMMAND]),
    "through_provenance": ("data_pipelines.files.identity.subprocess.check_call", [["touch", "{marker}"]]),
    "through_jobs": ("data_pipelines.jobs.processes.subprocess.Popen", [["touch", "{marker}"]]),
    "through_a_pure_module": ("emulators.rollout.torch.os.system", [COMMAND]),
    "our_own_command": ("emul.main.main", [["data", "make", "data=lorenz96", "data.folder={marker}"]]),
    "our_own_writer": ("data_pipelines.files.atomic.write_if_changed", ["{marker}", "x"]),
    "private": ("emulators.state.__builtins__.eval", ["__import__('os').system('" + COMMAND + "')"]),
    "hydra": ("hydra.utils.call", [{"_target_": "os.system", "_args_": [COMMAND]}]),
}


class Touch:
    """An object whose pickle makes a file where it is loaded."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (Path(self.path),)  # type: ignore[return-value]


def node(name: str, marker: Path) -> dict[str, Any]:
    """The mapping that calls the target of TARGETS of this name."""
    target, arguments = TARGETS[name]
    return {"_target_": target, "_args_": json.loads(json.dumps(arguments).replace("{marker}", str(marker)))}


def places(hostile: Any) -> dict[str, dict[str, Any]]:
    """Places in a run's configuration, each as the keys that it changes; some are deep, and some are never built."""
    return {
        "data": {"data": hostile},
        "model": {"model": hostile},
        "below_data": {"data.names": {"x": [hostile]}},
        "below_model": {"model.norm": {"_args_": [[{"deep": hostile}]]}},
        "metric": {"metric.rmse.exponent": hostile},
        "constraint": {"constraint": {"x": hostile}},
        "ranges": {"forecast.ranges": {"x": hostile}},
        "unknown_group": {"anything": {"x": hostile}},
    }


def changed_run(run: Path, copy: Path, changes: Mapping[str, Any], where: str = "both") -> Path:
    """Copy a run and change its configuration. where: `yaml` (config.yaml), `checkpoint` or `both`."""
    shutil.copytree(run, copy)
    if where in ("yaml", "both"):
        file = copy / "config.yaml"
        file.write_text(_changed(file.read_text(), changes))
    if where in ("checkpoint", "both"):
        for file in (copy / "checkpoints").glob("*.ckpt"):
            content = checkpoints.load(file)
            card = content["emul"]
            checkpoints.save(file, content | {"emul": card | {"config": _changed(card["config"], changes)}})
    return copy


def changed_manifest(folder: Path, data: Any) -> None:
    """Change the data that the manifest of a forecast names."""
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["settings"]["data"] = data
    manifest.pop("digest", None)
    file.write_text(json.dumps(manifest))


def _changed(text: str, changes: Mapping[str, Any]) -> str:
    config = OmegaConf.create(text)
    for key, value in changes.items():
        OmegaConf.update(config, key, value, merge=False, force_add=True)
    return OmegaConf.to_yaml(config)


def attempts(run: Path, forecast: Path, marker: Path) -> dict[str, Attempt]:
    """What strangers may hand over, by kind: each makes its files in a folder and returns the command to try."""

    def run_with(
        changes: Mapping[str, Any], verb: str = "forecast", where: str = "both"
    ) -> Callable[[Path], list[str]]:
        return lambda out: [verb, f"run={changed_run(run, out / 'run', changes, where)}", f"output={out}", "name=x"]

    evil = node("os", marker)
    found = {f"run, {name}": run_with({"data": node(name, marker)}) for name in TARGETS}
    found |= {f"run, {place}": run_with(changes) for place, changes in places(evil).items()}
    secret = {"data.path": "http://127.0.0.1:9/${oc.env:PRIVATE}"}
    return found | {
        "run, ${...} in config.yaml": run_with(secret, where="yaml"),
        "run, ${...} in the checkpoint": run_with(secret, where="checkpoint"),
        "run, results elsewhere": run_with({"forecast.name": "../../outside", "forecast.output": str(marker)}),
        "run, metric of eval": run_with({"metric": {"x": evil}}, "eval", "yaml"),
        "run, folder of parts": lambda out: _with_parts(run, out, marker),
        "checkpoint, pickle": lambda out: _with_pickle(run, out, marker),
        "manifest, target": lambda out: _with_manifest(forecast, out, evil),
        "manifest, ${...}": lambda out: _with_manifest(forecast, out, {"_target_": "x.Y", "path": "${oc.env:PRIVATE}"}),
        "experiment": lambda out: _with_experiment(out, {"data": evil, "model": {"deep": [node("eval", marker)]}}),
        "experiment, hydra": lambda out: _with_experiment(out, {"hydra": {"callbacks": {"x": evil}}}),
        "page, names and units": _with_script,
        "store, pickle codec": lambda out: _with_objects(out, marker),
        "name, outside": lambda out: ["forecast", f"run={run}", f"output={out}", "name=../../outside", "lead=6h"],
    }


class _Touch:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def _with_parts(run: Path, out: Path, marker: Path) -> list[str]:
    (out / "parts").mkdir()
    (out / "parts" / "strange_net.py").write_text(f"import os\nos.system('touch {marker}')\nNet = None\n")
    changes = {"model._target_": "strange_net.Net", "config_dir": str(out / "parts")}
    return ["forecast", f"run={changed_run(run, out / 'run', changes)}", f"output={out}"]


def _with_pickle(run: Path, out: Path, marker: Path) -> list[str]:
    shutil.copytree(run, out / "run")
    for file in (out / "run" / "checkpoints").glob("*.ckpt"):
        torch.save(checkpoints.load(file) | {"more": _Touch(marker)}, file)
    return ["forecast", f"run={out / 'run'}", f"output={out}"]


def _with_manifest(forecast: Path, out: Path, data: Any) -> list[str]:
    shutil.copytree(forecast, out / "forecast" / "x")
    changed_manifest(out / "forecast" / "x", data)
    return ["eval", f"forecast={out / 'forecast' / 'x'}", f"output={out}"]


def _with_experiment(out: Path, content: Mapping[str, Any]) -> list[str]:
    (out / "experiment").mkdir()
    text = OmegaConf.to_yaml(OmegaConf.create(dict(content)))
    (out / "experiment" / "evil.yaml").write_text(f"# @package _global_\n{text}")
    return ["check", "--config-dir", str(out), "experiment=evil"]


def _with_script(out: Path) -> list[str]:
    """Forecast and truth whose names, units and attributes are HTML, and formulas of spreadsheets."""
    times = np.datetime64("2020-01-01", "ns") + np.arange(6) * np.timedelta64(24, "h")
    leads = (np.arange(1, 3) * np.timedelta64(24, "h")).astype("timedelta64[ns]")
    points = {"latitude": np.linspace(75, -75, 6), "longitude": np.arange(0.0, 360, 30)}
    rng, told = np.random.default_rng(0), {"units": SCRIPT, "long_name": SCRIPT}
    dims, name = ("latitude", "longitude"), "=cmd()" + SCRIPT.replace("/", "")
    truth = xr.Dataset({name: (("time", *dims), rng.normal(size=(6, 6, 12)), told)}, {"time": times, **points})
    made = {name: (("time", "prediction_timedelta", *dims), rng.normal(size=(4, 2, 6, 12)), told)}
    given = xr.Dataset(made, {"time": times[:4], "prediction_timedelta": leads, **points}, {"source": SCRIPT})
    for store, dataset in (("forecast.zarr", given), ("truth.zarr", truth)):
        dataset.to_zarr(out / store, zarr_format=2)
    return ["eval", f"forecast={out / 'forecast.zarr'}", f"truth={out / 'truth.zarr'}", f"output={out}"]


def _with_objects(out: Path, marker: Path) -> list[str]:
    """A Zarr store of format 2 whose fields are pickled objects."""
    content = pickle.dumps(np.array([_Touch(marker)], dtype=object))
    folder = out / "a.zarr" / "t"
    folder.mkdir(parents=True)
    array = {"zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "fill_value": None, "order": "C",
             "compressor": None, "filters": [{"id": "pickle", "protocol": 5}]}  # fmt: skip
    (out / "a.zarr" / ".zgroup").write_text('{"zarr_format": 2}')
    (folder / ".zarray").write_text(json.dumps(array))
    (folder / ".zattrs").write_text('{"_ARRAY_DIMENSIONS": ["time"]}')
    (folder / "0").write_bytes(content)
    return ["data", "inspect", str(out / "a.zarr")]
