"""Make the pictures of the gallery by real runs: `python -m building.gallery docs/pictures`, from the folder of runs.

What is trained already is used as it stands, so that pictures can be made anew without training.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

WIDTH = 1000  # pixels


@dataclass(frozen=True)
class Run:
    """One run. files: pictures below its folder of results, and their names in the gallery.

    study: the word of `emul scaling` that makes them, where the run is a study.
    """

    name: str
    files: tuple[tuple[str, str], ...]
    study: str = ""

    @property
    def words(self) -> list[str]:
        return ["scaling", self.study, f"study={self.name}"] if self.study else ["run", f"experiment={self.name}"]

    @property
    def folder(self) -> Path:
        return Path("outputs/scaling" if self.study else "outputs/eval") / self.name


RUNS = (
    Run(
        "planet_sfno",
        (
            ("scorecard.png", "planet_scorecard.png"),
            ("curves.png", "planet_curves.png"),
            ("hero.png", "planet_forecast.png"),
        ),
    ),
    Run(
        "planet_ensemble",
        (
            ("maps/temperature_sigma_0.835_plumes.png", "ensemble_plumes.png"),
            ("maps/temperature_sigma_0.835_5d_probability_errors.png", "ensemble_probability.png"),
        ),
    ),
    Run("lorenz96_unet", (("hero.png", "lorenz96_forecast.png"),)),
    Run("shallow_water_sfno", (("hero.png", "shallow_water_forecast.png"),)),
    Run("planet_sfno", (("frontier.png", "planet_frontier.png"),), study="run"),
    Run("planet_unet", (("rates.png", "planet_rates.png"),), study="rates"),
)


def make(pictures: Path, runs: Sequence[Run] = RUNS, more: Sequence[str] = ()) -> list[Path]:
    """Run what is not there yet, and copy its pictures. more: further keys of the runs."""
    made = []
    for run in runs:
        subprocess.run([sys.executable, "-m", "emul.main", *run.words, *more], check=True)
        for source, target in run.files:
            made.append(shrunk(run.folder / source, pictures / target))
    return made


def shrunk(source: Path, target: Path) -> Path:
    """Copy a picture, not wider than the page, with a palette of 256 colours."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(source) as image:
        picture = image.convert("RGB")
        if picture.width > WIDTH:
            picture = picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)
        picture.quantize(256, dither=Image.Dither.NONE).save(target, optimize=True)
    return target


if __name__ == "__main__":
    chosen = [run for run in RUNS if len(sys.argv) < 3 or run.name in sys.argv[2:]]
    for path in make(Path(sys.argv[1]), chosen):
        print(path, path.stat().st_size)
