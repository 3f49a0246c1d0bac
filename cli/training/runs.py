"""Run folders: write the configuration and results of a training, and open them again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig, OmegaConf

from data_pipelines.batches.archive import Archive
from data_pipelines.conventions.canonical import first_member
from data_pipelines.files import checkpoints
from data_pipelines.files.atomic import write_text
from data_pipelines.files.identity import differences, listed, recipe_of
from data_pipelines.files.seals import json_text
from data_pipelines.forecasts.layout import Layout, forecast_dataset
from data_pipelines.forecasts.rollouts import forecast_states
from emul.config.build import build, build_all, refuse_untrusted
from emul.config.folders import use_saved_folders
from emul.config.overrides import plain
from emul.config.places import located
from emul.config.times import initial_times, lead_steps
from emul.jobs.processes import rank
from emul.terminal.console import progress
from emul.trust.saved import read_saved, saved_config
from emul.trust.secrets import saved_text
from emulators.interfaces import Network, optional
from emulators.state import State
from emulators.steps.step import Step
from emulators.world import World

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Run:
    """Hold a trained emulator: folder, saved config, World, Step (in evaluation mode) and the checkpoint's metadata.

    >>> import emul
    >>> run = emul.open_run("outputs/train/lorenz96_unet")
    >>> forecast = run.forecast("2003-01-05/2003-01-09/2d", "1d")
    >>> dict(forecast.sizes)["time"]
    3
    >>> [state.time.item().day for state in run.states("2003-01-05", "1d")]
    [5, 5, 5, 6]
    """

    folder: Path
    config: DictConfig
    world: World
    step: Step
    card: dict[str, Any]
    checkpoint: str = "best"

    @property
    def file(self) -> Path:
        """The checkpoint that was opened."""
        return self.folder / "checkpoints" / f"{self.checkpoint}.ckpt"

    def archive(self, dataset: xr.Dataset | None = None) -> Archive:
        """The States of a dataset, default the run's own data, as the emulator reads them."""
        if dataset is None:
            source = build(self.config.data)
            with progress("preparing the data") as report:
                source.prepare(report)
            dataset = source.dataset()
        return Archive(first_member(dataset), self.world)

    def states(
        self,
        inits: str | Sequence[object],
        lead: str | int,
        *,
        members: int = 0,
        seed: int = 0,
        dataset: xr.Dataset | None = None,
        precision: str = "32",
    ) -> Iterator[State]:
        """Yield the States of forecasts at lead 1, 2, ... timesteps, each ([member,] init, channel, lat, lon).

        inits: a date, a list of dates or "start/stop/step". lead: the last, such as "10d", or a number of timesteps.
        members: of an ensemble, for networks that draw noise; each member draws by seed, its number and its initial
        time. dataset: initial states and forcings, default the run's own data. precision: "32" or "bf16-mixed".
        """
        steps, times = lead_steps(lead, self.world), initial_times(inits)
        refuse_members(self.step, members)
        return forecast_states(
            self.step,
            self.archive(dataset),
            times,
            steps,
            members=members,
            seed=seed,
            precision=precision,
            device=next(iter(self.step.buffers())).device,
        )

    def forecast(
        self, inits: str | Sequence[object], lead: str | int, *, members: int = 0, **options: Any
    ) -> xr.Dataset:
        """Forecast from several initial times, as a Dataset in memory in the WeatherBench 2 layout.

        Arguments as in `states`. Dimensions time (initial time), [number (member),] prediction_timedelta, [level,]
        latitude, longitude. Forecasts too large for memory: take `states`, or `emul forecast`.
        """
        steps, times = lead_steps(lead, self.world), initial_times(inits)
        states = self.states(inits, lead, members=members, **options)
        attributes = {"title": f"Forecasts of {self.folder.name}", "source": f"emul, {self.folder.name}"}
        return forecast_dataset(Layout(self.world, times, steps, len(times), steps, attributes, members), states)


def refuse_members(step: Step, members: int) -> None:
    """Raise ValueError where members are asked for and the network draws no noise to tell them apart."""
    if members and not optional(step.network, Network, "noise_channels"):
        raise ValueError(
            f"{type(step.network).__name__} draws no noise: its {members} members would be the same. "
            "Leave members out, or train a network with noise, such as model=sfno_ace2_noise."
        )


def open_run(path: str | Path, checkpoint: str = "best", device: str = "cpu") -> Run:
    """Open outputs/train/<name>. checkpoint: `best` (falls back to last where no validation ran) or `last`."""
    path = Path(path)
    if checkpoint not in ("best", "last"):
        raise ValueError(f"checkpoint must be 'best' or 'last'; got '{checkpoint}'.")
    if not path.is_dir():
        beside = sorted(p.name for p in path.parent.glob("*")) if path.parent.is_dir() else []
        raise FileNotFoundError(
            f"No run at {path}; there {'are ' + ', '.join(beside) if beside else 'is nothing'} beside it."
        )
    file = path / "checkpoints" / f"{checkpoint}.ckpt"
    if checkpoint == "best" and not file.exists():
        file = file.with_name("last.ckpt")
    card = checkpoints.load(file)["emul"]
    config = saved_config(card["config"], str(file), given=["data"])
    use_saved_folders(config.get("config_dir"))
    refuse_untrusted(config)
    refuse_disagreement(path, config, file)
    places = config.get("places") or {}
    config.data = located(OmegaConf.to_container(config.data), places, path, places.get("run"))
    world = World.from_plain(card["world"])
    step = build_step(config, world)
    step.load_state_dict(card["weights"])
    return Run(path, config, world, step.to(torch.device(device)).eval(), card, file.stem)


def forecasting_parts(config: DictConfig) -> dict[str, Any]:
    """The parts of a run's configuration on which its forecasts depend, apart from weights and data."""
    keys = ("model", "step", "constraint", "variables", "history", "metric")
    return {key: plain(config.get(key)) for key in keys}


def refuse_disagreement(run: Path, config: DictConfig, file: Path) -> None:
    """Raise ValueError where config.yaml says something else of the emulator than its checkpoint `file`."""
    saved = read_saved(run / "config.yaml", given=["data"]) if (run / "config.yaml").is_file() else config
    parts = ({**forecasting_parts(one), "data": recipe_of(plain(one.get("data")))} for one in (config, saved))
    if found := differences(*({k: v for k, v in part.items() if k != "metric"} for part in parts)):
        raise ValueError(
            f"{run / 'config.yaml'} and {file} disagree ({listed(found)}): the weights were trained with the first. "
            "Put config.yaml back, or train under another name."
        )


def build_step(config: DictConfig, world: World) -> Step:
    """Build the untrained Step that `config` describes, on `world`."""
    torch.manual_seed(config.seed)
    return build(config.step, world, build(config.model, world), build_all(config.constraint, world))


def write_result(target: Path, card: Mapping[str, Any]) -> None:
    """Write result.json, a summary for tools that read many runs, in the first process."""
    if rank() == 0:
        kept = {
            "finished": True,
            **{name: card[name] for name in ("step", "best", "validation", "data") if name in card},
        }
        write_if_changed(target / "result.json", json_text(kept))


def write_if_changed(path: Path, text: str) -> None:
    """Write a text file atomically, unless it holds this text already."""
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    write_text(path, text)


def write_config(target: Path, config: DictConfig) -> None:
    """Write the config.yaml of a run folder, which forecast and eval read, unless it is the same already."""
    file, text = target / "config.yaml", saved_text(config)
    if file.exists() and file.read_text(encoding="utf-8") == text:
        return
    if rank():
        return
    target.mkdir(parents=True, exist_ok=True)
    write_if_changed(file, text)
