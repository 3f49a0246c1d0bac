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
from data_pipelines.conventions.durations import initial_times, lead_steps
from data_pipelines.files import checkpoints
from data_pipelines.files.identity import differences, listed, located, recipe_of, weights_digest
from data_pipelines.forecasts.layout import Layout, attributes_of, forecast_dataset
from data_pipelines.jobs.processes import rank
from data_pipelines.options.folders import absent_run, use_saved_folders
from emul.config.build import (
    build,
    build_all,
    build_network,
    part_paths,
    refuse_untrusted,
    resolve_target,
    sampler_of,
)
from emul.config.saved import plain, plain_mapping, read_saved, saved_config
from emul.terminal.console import progress, warn
from emulators.layers.low_rank import adapt, is_of_adapter, remove_adapters, without_adapters
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
        noise_factor: float | Sequence[Sequence[float]] | None = None,
    ) -> Iterator[State]:
        """Yield the States of forecasts at lead 1, 2, ... timesteps, each ([member,] init, channel, lat, lon).

        inits: a date, a list of dates or "start/stop/step". lead: the last, such as "10d", or a number of timesteps.
        members: of an ensemble, for networks that draw noise; each member draws by seed, its number and its initial
        time. dataset: initial states and forcings, default the run's own data. precision: "32" or "bf16-mixed".
        noise_factor: of the noise that is drawn, default `forecast.noise_factor` of config.yaml, as in `emul forecast`.
        """
        from data_pipelines.forecasts.rollouts import forecast_states
        from emulators.layers.noise import with_scaled_noise

        times, device = initial_times(inits), next(iter(self.step.buffers())).device
        refuse_members(self.step, members)
        if noise_factor is None:
            saved = read_saved(file, ["data"]) if (file := self.folder / "config.yaml").is_file() else self.config
            noise_factor = plain(OmegaConf.select(saved, "forecast.noise_factor", default=1.0))
        step, steps = with_scaled_noise(self.step, noise_factor), lead_steps(lead, self.world)
        return forecast_states(
            step, self.archive(dataset), times, steps, members=members, seed=seed, precision=precision, device=device
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
        attributes = attributes_of(self.folder.name)
        return forecast_dataset(Layout(self.world, times, steps, len(times), steps, attributes, members), states)


def refuse_members(step: Step, members: int) -> None:
    """Raise ValueError where members are asked for and the network draws no noise to tell them apart."""
    if members and not step.is_random:
        raise ValueError(
            f"{type(step.network).__name__} draws no noise: its {members} members would be the same. "
            "Leave members out, or train a network with noise, such as noise=vector 'loss=[crps]' objective.members=2, "
            "or one that samples: step=denoising objective=diffusion."
        )


def open_run(path: str | Path, checkpoint: str = "best", device: str = "cpu") -> Run:
    """Open outputs/train/<name>. checkpoint: `best` (falls back to last where no validation ran) or `last`."""
    path = Path(path)
    if checkpoint not in ("best", "last"):
        raise ValueError(f"checkpoint must be 'best' or 'last'; got '{checkpoint}'.")
    if not path.is_dir():
        raise absent_run(path)
    file = path / "checkpoints" / f"{checkpoint}.ckpt"
    if checkpoint == "best" and not file.exists():
        file = file.with_name("last.ckpt")
    card = checkpoints.load(file)["emul"]
    config = saved_config(card["config"], str(file), given=["data"])
    use_saved_folders(plain_mapping(config))
    refuse_untrusted(config)
    refuse_disagreement(path, config, file)
    places = config.get("places") or {}
    config.data = located(OmegaConf.to_container(config.data), places, path, places.get("run"))
    world = World.from_plain(card["world"])
    step = build_step(config, world, card.get("parts"))
    step.load_state_dict(card["weights"])
    return Run(path, config, world, step.to(torch.device(device)).eval(), card, file.stem)


def forecasting_parts(config: DictConfig) -> dict[str, Any]:
    """The parts of a run's configuration on which its forecasts depend, apart from weights and data."""
    keys = ("model", "step", "constraint", "variables", "history", "metric")
    more = {key: plain(config[key]) for key in ("noise", "adapter") if config.get(key)}
    return {key: plain(config.get(key)) for key in keys} | more


def refuse_disagreement(run: Path, config: DictConfig, file: Path) -> None:
    """Raise ValueError where config.yaml says something else of the emulator than its checkpoint `file`."""
    saved = read_saved(run / "config.yaml", given=["data"]) if (run / "config.yaml").is_file() else config
    parts = ({**forecasting_parts(side), "data": recipe_of(plain(side.get("data")))} for side in (config, saved))
    if clashes := differences(*({k: v for k, v in part.items() if k != "metric"} for part in parts)):
        raise ValueError(
            f"{run / 'config.yaml'} and {file} disagree ({listed(clashes)}): the weights were trained with the first. "
            "Put config.yaml back, or train under another name."
        )


def build_step(config: DictConfig, world: World, parts: Mapping[str, Any] | None = None) -> Step:
    """Build the untrained Step that `config` describes, on `world`.

    parts: cards of the trained Steps that it holds, by name, of `part_cards` or of its checkpoint; those of a
    checkpoint have no weights, as the Step's own hold them.
    """
    held_steps = {name: _held_step(card) for name, card in (parts or {}).items()}
    torch.manual_seed(config.seed)
    kind = resolve_target(str(config.step._target_))
    network = build_network(config, kind.network_world(world, held_steps, plain(config.step)))
    constraints = build_all(config.constraint, world)
    step: Step = build(config.step, world, network, constraints, **sampler_of(config, world), **held_steps)
    if config.get("adapter"):
        adapt(step, build(config.adapter))
    return step


def merged_weights(config: DictConfig, world: World, card: Mapping[str, Any]) -> Mapping[str, Any]:
    """The weights of a checkpoint; of one with an adapter as it stands merged. ValueError where it cannot be merged."""
    if not config.get("adapter"):
        weights: Mapping[str, Any] = card["weights"]
        return weights
    step = build_step(config, world, card.get("parts"))
    step.load_state_dict(card["weights"])
    remove_adapters(step, merge=True)
    return step.state_dict()


def save_adapter(target: Path) -> None:
    """Write the adapter of a run to adapter.pt: weights, settings and the digest of the base."""
    if rank():
        return
    file = next(f for name in ("best", "last") if (f := target / "checkpoints" / f"{name}.ckpt").is_file())
    card = checkpoints.load(file)["emul"]
    weights, settings = card["weights"], build(saved_config(card["config"], str(file)).adapter).plain()
    adapter_weights = {name: value for name, value in weights.items() if is_of_adapter(name)}
    checkpoints.save_adapter(target, settings, adapter_weights, weights_digest(without_adapters(weights)))


def read_adapter(path: str | Path, run: Run) -> dict[str, Any]:
    """Read an adapter.pt for a run. ValueError where it is something else, or was trained on other weights."""
    return checkpoints.read_adapter(Path(path), weights_digest(without_adapters(run.card["weights"])), run.file)


def _held_step(card: Mapping[str, Any]) -> Step:
    config = saved_config(card["config"], "a part of the step", given=["data"])
    refuse_untrusted(config)
    step = build_step(config, World.from_plain(card["world"]), card["parts"])
    if "weights" in card:
        step.load_state_dict(card["weights"])
    return step


def part_cards(config: DictConfig, world: World) -> dict[str, dict[str, Any]]:
    """World, configuration and weights of the runs that `parts` names. ValueError where one is of another world.

    Warns where a part was trained on dates that this training is to learn its errors from.
    """
    cards: dict[str, dict[str, Any]] = {}
    kind = resolve_target(str(config.step._target_))
    for name, path in part_paths(config).items():
        run = open_run(path)
        if unequal := kind.unlike_part(run.step, world):
            raise ValueError(
                f"Expected parts.{name}={path} to be a run on the world of this training; of another are "
                f"{', '.join(unequal)}."
            )
        theirs, ours = (_period(configuration) for configuration in (run.config, config))
        if name == "forecast" and theirs and ours and theirs[0] <= ours[1] and ours[0] <= theirs[1]:
            warn(
                f"parts.{name} was trained on {theirs[0]} to {theirs[1]}, and its errors are learnt from {ours[0]} to "
                f"{ours[1]}: they are smaller there than elsewhere. Hold dates out by data.splits.train."
            )
        cards[name] = {
            "parts": {},
            **{key: run.card[key] for key in ("world", "config", "parts", "weights", "seen") if key in run.card},
        }
    return cards


def _period(config: DictConfig) -> tuple[str, str] | None:
    """The first and last date of a training split."""
    dates = ((config.get("data") or {}).get("splits") or {}).get("train")
    return (str(dates[0]), str(dates[-1])) if dates else None
