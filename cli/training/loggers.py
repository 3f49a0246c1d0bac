"""Loggers of a training: metrics.csv, TensorBoard, MLflow, Weights & Biases, a picture of the curves.

Each is built with the run folder, the step that the training resumes at and that of its last validation, so that what
an interrupted run logged after its checkpoint is dropped. None of them can stop a training.
"""

from __future__ import annotations

import hashlib
import importlib.util
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from data_pipelines.files.atomic import atomic_file, write_text
from data_pipelines.files.metrics_table import MetricsTable, read_rows

INK = "#22577a"


@dataclass(frozen=True)
class Place:
    """Hold what loggers are built with. start: step that the training resumes at; validated: of its last validation."""

    folder: Path
    name: str
    start: int = 0
    validated: int = -1


class Named(Logger):
    """Give a logger its name. The config is not logged: the run folder holds it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing."""


class Unstoppable(Named):
    """Build another logger when first needed; warn once it fails, and leave it out from then on."""

    def __init__(self, name: str, make: Callable[[], Logger]) -> None:
        super().__init__(name)
        self._make, self._failed = make, False
        self._logger: Logger | None = None

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._attempt(lambda logger: logger.log_metrics(metrics, step))

    @rank_zero_only
    def save(self) -> None:
        if self._logger is not None:
            self._attempt(lambda logger: logger.save())

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._logger is not None:
            self._attempt(lambda logger: logger.finalize(status))

    def _attempt(self, work: Callable[[Logger], Any]) -> None:
        if self._failed:
            return
        try:
            if self._logger is None:
                self._logger = self._make()
            work(self._logger)
        except Exception as error:  # a logger may fail in any way
            self._failed = True
            warnings.warn(
                f"logger.{self._name} failed and is left out from now on ({type(error).__name__}: {error}); the "
                "training goes on.",
                stacklevel=4,
            )


class MetricsFile(Named):
    """Log to metrics.csv."""

    def __init__(self, table: MetricsTable) -> None:
        super().__init__("metrics")
        self.table = table

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.table.append(metrics, step)

    @rank_zero_only
    def save(self) -> None:
        self.table.save()


def metrics_file(place: Place) -> Logger:
    """metrics.csv."""
    return MetricsFile(MetricsTable(place.folder / "metrics.csv", place.start, place.validated))


def tensorboard(place: Place) -> Logger:
    """Event files in the run folder's `tensorboard`."""
    return Unstoppable(
        "tensorboard",
        lambda: TensorBoardLogger(place.folder, name="", version="tensorboard", purge_step=place.start + 1),
    )


def mlflow(place: Place, *, experiment: str = "emul", uri: str | None = None) -> Logger:
    """A run in MLflow. uri: of the tracking server; null for a database in the run folder, which needs no network."""
    refuse_absent("mlflow")
    noted = place.folder / "mlflow_run.txt"

    def start() -> Logger:
        from pytorch_lightning.loggers import MLFlowLogger

        logger = MLFlowLogger(
            experiment_name=experiment,
            run_name=place.name,
            tracking_uri=uri or f"sqlite:///{(place.folder / 'mlflow.db').resolve()}",
            artifact_location=None if uri else (place.folder / "mlruns").resolve().as_uri(),
            run_id=noted.read_text().strip() if place.start and noted.exists() else None,
        )
        write_text(noted, str(logger.run_id))
        return logger

    return Unstoppable("mlflow", start)


def wandb(place: Place, *, project: str = "emul", entity: str | None = None, offline: bool = True) -> Logger:
    """A run in Weights & Biases. offline: kept in the run folder's `wandb`, to be sent by `wandb sync`."""
    refuse_absent("wandb")
    identity = hashlib.sha256(str(place.folder.resolve()).encode()).hexdigest()[:12]

    def start() -> Logger:
        from pytorch_lightning.loggers import WandbLogger

        return WandbLogger(
            name=place.name,
            save_dir=place.folder,
            project=project,
            entity=entity,
            offline=offline,
            id=identity,
            resume=None if offline else "allow",
        )

    return Unstoppable("wandb", start)


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Two panels, the loss on a logarithmic axis; written beside and moved into place."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    for axis, name in zip(figure.subplots(1, 2), ("loss", "score"), strict=True):
        points = np.array([(row["step"], row[name]) for row in rows if np.isfinite(row.get(name, np.nan))])
        if points.size:
            axis.plot(*points.T, color=INK, marker="o" if name == "score" else None, markersize=3, linewidth=1)
            axis.set_yscale("log")
        axis.set(xlabel="step", title=name)
        axis.spines[["top", "right"]].set_visible(False)
    with atomic_file(path) as unfinished:
        FigureCanvasAgg(figure).print_png(unfinished)


class Curves(Named):
    """Draw curves.png, loss and validation score by step, after each validation."""

    def __init__(self, folder: Path) -> None:
        super().__init__("curves")
        self.folder = folder

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if "score" not in metrics:
            return
        draw(read_rows(self.folder / "metrics.csv"), self.folder / "curves.png")


def curves(place: Place) -> Logger:
    """curves.png, from metrics.csv."""
    return Unstoppable("curves", lambda: Curves(place.folder))


def refuse_absent(package: str) -> None:
    """ValueError where a logger was chosen whose package is not installed."""
    if importlib.util.find_spec(package) is None:
        raise ValueError(f"logger={package} needs the package {package}: pip install 'emul[{package}]'.")
