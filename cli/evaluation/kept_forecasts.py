"""Whether a kept forecast is still that of its run and of its data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from data_pipelines.files import checkpoints
from data_pipelines.files.fingerprints import data_differences, fingerprint
from data_pipelines.files.identity import digest, file_stamp, listed, weights_digest
from emul.config.overrides import plain
from emul.config.places import located
from emul.trust.saved import read_saved, saved_config

if TYPE_CHECKING:
    import xarray as xr

    from data_pipelines.interfaces import Source


NOT_SCORED = (  # options of an evaluation that change no score
    "run", "forecasts", "name", "output", "share", "save_every", "strict", "megabytes", "pictures", "hardware",
)  # fmt: skip


def refuse_other_weights(config: DictConfig, folder: Path, manifest: Mapping[str, Any]) -> None:
    """Raise ValueError where the forecast in `folder` was not made with the weights that `config.run` has now."""
    again = f"make it again: emul forecast run={config.run} resume=anew, or score it as it is: forecast={folder}"
    told = manifest.get("checkpoint") or {}
    file = Path(config.run) / "checkpoints" / f"{told.get('name', 'best')}.ckpt"
    file = file if file.is_file() else file.with_name("last.ckpt")
    if not file.is_file() or list(file_stamp(file)) == told.get("file"):
        return
    if not manifest:
        raise ValueError(f"{folder} has no manifest that says which run made it; {again}")
    card = checkpoints.load(file)["emul"]
    if weights_digest(card["weights"]) != manifest["settings"].get("weights"):
        raise ValueError(
            f"{folder} holds a forecast of other weights (step {told.get('step')} of {manifest.get('run')}) than "
            f"{file} has now (step {card.get('step')}); {again}"
        )


def evaluation_digest(config: DictConfig, manifest: Mapping[str, Any]) -> str:
    """Return the identity of an evaluation: the settings of its forecast and the options it is scored with."""
    options = {str(key): plain(value) for key, value in config.items() if key not in NOT_SCORED}
    return digest([manifest.get("settings", {}), options])


def data_of_forecast(config: DictConfig, manifest: Mapping[str, Any]) -> Any:
    """Return the settings of the data of a forecast, else of its run, with paths that exist here; None if unknown."""
    run = read_saved(Path(config.run) / "config.yaml", given=["data"]) if config.run is not None else OmegaConf.create()
    data = manifest.get("settings", {}).get("data") or run.get("data")
    if data is None:
        return None
    data = saved_config(data, "the manifest or run of the forecast", group="data")
    places = {**(run.get("places") or {}), **manifest.get("places", {})}
    folder = Path(config.run) if config.run is not None else Path(str(manifest.get("run", "")))
    return OmegaConf.create(located(OmegaConf.to_container(data), places, folder, places.get("run")))


def changed_data(
    config: DictConfig, manifest: Mapping[str, Any], source: Source | None, truth: xr.Dataset
) -> list[str]:
    """Say in a note how the data differ from those that the forecast was made from.

    ValueError where the forecast is that of `config.run` and the same times hold other numbers now.
    """
    before = manifest.get("settings", {}).get("fingerprint")
    if source is None or not before:
        return []
    now = fingerprint(source.path, truth)
    found = data_differences(before, now)
    if found and config.forecasts is None and before.get("times_digest") == now.get("times_digest"):
        raise ValueError(
            f"The data at {source.path} are not those that the forecast was made from ({listed(found)}). Make it again "
            f"(emul forecast run={config.run} resume=anew), or name what is compared: forecast=... truth=... ."
        )
    return [f"The data changed since the forecast was made: {listed(found)}."] if found else []
