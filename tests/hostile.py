"""Runs, manifests and experiments of strangers: each would leave a file `marker` if anything in it were executed.

Used by the tests and by the benchmark of trust.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from data_pipelines.files import checkpoints

COMMAND = "touch {marker}"

# Targets that lead to code: of the standard library, through modules of ours and of others, by private names.
TARGETS: dict[str, tuple[str, list[Any]]] = {
    "os": ("os.system", [COMMAND]),
    "posix": ("posix.system", [COMMAND]),
    "eval": ("builtins.eval", ["__import__('os').system('" + COMMAND + "')"]),
    "subprocess": ("subprocess.check_call", [["touch", "{marker}"]]),
    "path": ("pathlib.Path.touch", [{"_target_": "pathlib.Path", "_args_": ["{marker}"]}]),
    "through_a_module_of_ours": ("data_pipelines.files.atomic.os.system", [COMMAND]),
    "through_provenance": ("data_pipelines.files.provenance.subprocess.check_call", [["touch", "{marker}"]]),
    "through_jobs": ("emul.jobs.shares.subprocess.Popen", [["touch", "{marker}"]]),
    "through_a_pure_module": ("emulators.rollout.torch.os.system", [COMMAND]),
    "our_own_command": ("emul.main.main", [["data", "make", "data=lorenz96", "data.folder={marker}"]]),
    "our_own_writer": ("emul.training.runs.write_if_changed", ["{marker}", "x"]),
    "private": ("emulators.state.__builtins__.eval", ["__import__('os').system('" + COMMAND + "')"]),
    "hydra": ("hydra.utils.call", [{"_target_": "os.system", "_args_": [COMMAND]}]),
}


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
    file.write_text(json.dumps(manifest))


def _changed(text: str, changes: Mapping[str, Any]) -> str:
    config = OmegaConf.create(text)
    for key, value in changes.items():
        OmegaConf.update(config, key, value, merge=False, force_add=True)
    return OmegaConf.to_yaml(config)
