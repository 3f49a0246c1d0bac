"""What the command `emul` can do, verb by verb, in words for its reader."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verb:
    """One verb. module: the file that does it; composes: its configuration is conf/<name>.yaml, read by Hydra.

    stand_ins: (key, other key) where the first is also the name of a group of options, which Hydra would take it for.
    """

    name: str
    module: str
    summary: str
    keys: tuple[tuple[str, str], ...] = ()
    examples: tuple[tuple[str, str], ...] = ()
    note: str = ""
    composes: bool = False
    stand_ins: tuple[tuple[str, str], ...] = ()

    def spelled(self, arguments: list[str]) -> list[str]:
        """The arguments with the stand-ins in place of the keys that they stand for."""
        for key, other in self.stand_ins:
            arguments = [
                f"{other}{word.removeprefix(key)}" if word.startswith(f"{key}=") else word for word in arguments
            ]
        return arguments


TRAIN_KEYS = (
    ("data=planet", "where the fields come from (`emul data` lists the sources)"),
    ("model=sfno", "the network (`emul models`)"),
    ("loss=[mse]", "what it learns to make small (`emul losses`); a list"),
    ("constraint=[]", "what every step must keep (`emul constraints`); a list, applied in order"),
    ("training.steps=1000", "optimiser steps; training.flops=1e13: as many as these operations pay for"),
    ("training.batch_size=8", "examples a step"),
    ("optimizer.lr=1e-3", "learning rate at its peak"),
    ("hardware=gpu", "where it runs: cpu, gpu, ddp, fsdp, slurm, debug"),
    ("seed=0", "of weights and of the order of examples"),
    ("name=...", "the run lands in outputs/train/<name>"),
)
VERBS = (
    Verb(
        "train",
        "train",
        "Train an emulator; run again to resume where it stopped.",
        TRAIN_KEYS,
        (
            ("emul train", "an SFNO on the embedded planet"),
            ("emul train model=unet training.steps=200", "another network, fewer steps"),
            ("emul train experiment=planet_sfno", "a named, citable run"),
            ("emul train --multirun model=sfno,unet", "one run after another"),
            ("emul train hardware=slurm --dry-run", "the script of a job; without --dry-run it is submitted"),
            ("emul train --cfg job", "print the configuration, train nothing"),
        ),
        "The same command continues a run that was stopped, to bit-identical weights on the processor.",
        composes=True,
    ),
    Verb(
        "forecast",
        "forecast",
        "Roll a trained emulator forward from many initial dates.",
        (
            ("run=outputs/train/x", "the trained emulator"),
            ("init=2003-01-01/2003-12-31/5d", "initial dates: first/last/every, or a list"),
            ("lead=10d", "how far each forecast goes"),
            ("checkpoint=best", "which weights: best or last"),
            ("hardware=ddp hardware.devices=4", "initial dates spread over processes; also by srun or torchrun"),
            ("share=1/4", "or over the jobs of an array; the last one checks and scores the whole"),
            ("segment=500", "a rollout is saved so often, and goes on from there after a kill"),
            ("repeated=[x]", "forcings that go through their last year again and again where the data end"),
            ("precision=bf16-mixed", "of the network, for speed on GPUs; 32 if not given"),
            ("writer=zarr", "the format (`emul writers`)"),
        ),
        (("emul forecast run=outputs/train/planet_sfno", "the dates and lead the run's own config names"),),
        "Forecasts land in outputs/forecast/<name> in the WeatherBench 2 layout; a stopped forecast resumes.",
        composes=True,
    ),
    Verb(
        "eval",
        "eval",
        "Score forecasts against the truth: table, NetCDF, pictures, report.",
        (
            ("run=outputs/train/x", "the trained emulator whose forecasts are scored"),
            ("forecast=file truth=file", "or any forecast and any truth; also a pattern, a folder or [a.nc,b.nc]"),
            ("metric=[rmse,mae,bias,acc]", "what is measured (`emul metrics`)"),
            ("climatology=file", "normal fields by hour and dayofyear; fitted to the run's training data if not given"),
            ("leads=[1d,5d] inits=2020-01-01/2020-03-31", "which forecasts; all if not given"),
            ("fields=[temperature] levels=[850]", "which variables and levels; all if not given"),
            ("regions=[global,tropics]", "names, or boxes {alps: {latitude: [44,48], longitude: [5,16]}}"),
            (
                "rename= select= units= members=",
                "what the files do not tell: 'units={2m_temperature: K}' select={number: 0}",
            ),
            ("eval=wb2_deterministic", "all of these as published (`emul presets`); what the data lack is left out"),
            ("derive=[wind_speed,vorticity]", "fields computed from others, scored too"),
            ("baselines=[persistence,{hres: file}]", "beside, on the same dates; also [probabilistic_]climatology"),
            ("climate=true", "mean state, variability and trends of long runs, in climate.nc"),
            ("beside={other: outputs/forecast/y}", "other forecasts, whose curves are drawn beside"),
        ),
        (
            ("emul eval run=outputs/train/planet_sfno", "the forecasts of a run"),
            ("emul eval forecast=forecast.zarr truth=era5.zarr", "two files"),
        ),
        "Scores land in outputs/eval/<name>: scores.nc, scorecard.png, report.html.",
        composes=True,
        stand_ins=(("forecast", "forecasts"),),
    ),
    Verb(
        "eval compare",
        "report.compare",
        "Several evaluations side by side: one table, score cards, curves, spectra.",
        (
            ("a b c", "evaluations: names in outputs/eval, or folders with scores.nc"),
            ("baseline=a", "what differences are taken to: one of them (the first), persistence or climatology"),
            ("metric=rmse region=global", "what tables and pictures show"),
            ("name=compare", "the page lands in outputs/eval/<name>"),
            ("level=0.95 least=15", "of the intervals; effective number of initial times that a verdict needs"),
            ("false_discovery=false", "each difference is judged for itself, not with all others of its score card"),
        ),
        (
            ("emul eval compare planet_sfno planet_unet", "two runs on the initial times that both have"),
            ("emul eval compare a b c baseline=persistence", "against persistence"),
        ),
        "What cannot be compared (other truth or grid, no shared initial times) is refused; what is left out is told.",
    ),
    Verb(
        "run",
        "run",
        "Train, forecast and eval in one go; what is done already is skipped.",
        TRAIN_KEYS,
        (
            ("emul run experiment=planet_sfno", "the whole road"),
            ("emul run model=linear training.steps=50", "with any keys of `emul train`"),
        ),
        composes=True,
    ),
    Verb(
        "plan",
        "check",
        "Measure what a training will take: memory, time, the largest batch that fits.",
        (("(any key of `emul train`)", "a few steps are made on its data; nothing is kept"),),
        (
            ("emul plan experiment=planet_sfno", "parameters, operations, memory, samples a second, hours"),
            ("emul plan hardware=slurm hardware.devices=4", "for a job, before it queues"),
        ),
        "Exit code 0: it fits. 2: it does not fit into memory or time, and what to change.",
        composes=True,
    ),
    Verb(
        "sweep",
        "sweep",
        "Train many: grids, lists or random draws over any keys, here or on SLURM.",
        (
            ("(any key of `emul train`)", "with several values: a,b,c or range(5) or interval(1e-4,1e-2)"),
            ("sweep.verb=run", "forecasts and scores of every trial too, compared in the end"),
            ("sweep.jobs=2", "trials at a time; default: one here, all on SLURM"),
            ("sweep.search=grid", "grid, random, or tpe, which learns (pip install 'emul[search]')"),
            ("sweep.trials=20", "how many random or tpe draw"),
            ("sweep.prune=true", "stop trials that lag behind the best third"),
            ("sweep.metric=score", "what is to be small: a column of metrics.csv"),
            ("sweep.name=...", "the sweep lands in outputs/sweep/<name>"),
        ),
        (
            ("emul sweep model=sfno,unet optimizer.lr=1e-3,3e-4 seed=1,2,3", "twelve trainings"),
            ("emul sweep 'optimizer.lr=interval(1e-4,1e-2)' sweep.search=random", "twenty at random"),
            ("emul sweep experiment=bakeoff sweep.verb=run", "every small network at equal operations"),
            ("emul sweep seed=range(8) hardware=slurm hardware.devices=4", "an array of jobs, four GPUs each"),
            ("emul sweep model=sfno,unet --dry-run", "list the trials, and the script of the array; start nothing"),
        ),
        "The same command goes on where a sweep stopped, and trains again only what failed.",
    ),
    Verb(
        "check",
        "check",
        "Find every fault of a configuration at once, without running it.",
        (("(any key of `emul train`)", "names, types, paths, variables, times, shapes"),),
        (
            ("emul check experiment=planet_sfno", "a named run"),
            ("emul check data=netcdf data.path=era5.nc model=unet", "your own data"),
        ),
        "Exit code 0: nothing found. 2: findings, each with its key, what was expected, what stands there, the fix.",
    ),
    Verb(
        "verify",
        "verify",
        "Compare all that was kept with its checksums: runs, forecasts, scores, stores, caches.",
        (("PATH ...", "files or folders; of a folder all that lies below it"),),
        (
            ("emul verify outputs/forecast/planet_sfno", "every chunk, coordinate and score of a forecast"),
            ("emul verify outputs ~/.cache/emul", "all results, and the cached data"),
        ),
        "Exit code 0: as they were written. 2: something was changed, damaged or lost; each fault names its file.",
    ),
    Verb(
        "data",
        "data.main",
        "Make, fetch, inspect, check, regrid, pack or draw data; see how far ahead they can be known.",
        (),
        (
            ("emul data make data=planet", "generate the embedded planet"),
            ("emul data inspect data=planet", "what is in it; also of files and stores by path"),
            ("emul data check era5.zarr", "reads every value: gaps, impossible and missing values, checksums"),
            ("emul data download data=weatherbench2 years=[2018,2020] levels=[500,850] to=era5.zarr", "a part of it"),
            ("emul data regrid era5.nc grid=64x32_equiangular", "method=conservative, bilinear, nearest or spectral"),
            ("emul data picture data=planet", "what it looks like, to outputs/data/planet"),
            ("emul data predictability data=planet", "how fast twins part: the limit of every forecast"),
            ("emul data predictability data=planet cases=12 days=40", "more cases, longer"),
            (
                "emul data convert data=netcdf 'data.path=era5_*.nc' to=era5.zarr",
                "pack it for training; again: add times",
            ),
            ("emul data convert data=planet to=planet.zarr dtype=float16", "half the size; compression=auto: measured"),
            ("emul data statistics data=planet intervals=6h,24h", "means and spreads, for emul train scales=..."),
            ("emul data climatology data=planet", "its normal weather by hour and day of the year, for emul eval"),
            ("emul data climatology era5.zarr years=[1990,2019] quantiles=[0.1,0.9]", "of any file or store"),
        ),
    ),
    Verb(
        "list",
        "training.show",
        "List the trainings in a folder of results.",
        (("[folder]", "outputs, if not given"),),
        (("emul list", "state, score and forecasts of each"),),
    ),
    Verb(
        "show",
        "training.show",
        "Show what a run is: configuration, curves, forecasts, scores, and what may follow.",
        (("RUN", "its folder, or its name below outputs/train"),),
        (("emul show planet_sfno", "a run by its name"),),
    ),
    Verb(
        "options",
        "lists",
        "Show what can be set, with its default and what it means.",
        (("[key]", "a key, the beginning of keys, or a part; without it, the options of the verbs"),),
        (
            ("emul options training.batch_size", "one option"),
            ("emul options training", "all below it"),
            ("emul options model.sfno", "those of a part (`emul models` lists them)"),
        ),
        "`emul train --cfg job` shows the values of a run with the same comments.",
    ),
    Verb(
        "new",
        "new",
        "Write the templates of a part of your own: a Python file and its options.",
        (("loss|model|metric|constraint|dataset NAME", "what it is, and its name"),),
        (
            ("emul new loss curvature", "my_parts/curvature.py and my_parts/loss/curvature.yaml"),
            ("emul train --config-dir my_parts 'loss=[mse,curvature]'", "train with it"),
        ),
        "The files go into the folder of --config-dir or EMUL_CONF; `emul.contracts.check_folder` tests them.",
    ),
    Verb(
        "completion",
        "completion",
        "Print a completion script for your shell.",
        (),
        (
            ('eval "$(emul completion bash)"', "in ~/.bashrc"),
            ('eval "$(emul completion zsh)"', "in ~/.zshrc, after compinit"),
            ("emul completion fish | source", "in ~/.config/fish/config.fish"),
        ),
        "Completes verbs, keys, and the options of every group.",
    ),
    Verb("version", "version", "Print the version.", (), (("emul version", ""),)),
)


# Words of `emul data`; each is a module of emul.data.
DATA_WORDS = (
    "make",
    "inspect",
    "picture",
    "predictability",
    "climatology",
    "convert",
    "statistics",
    "check",
    "regrid",
    "download",
)

# Plural -> group of conf/: the verbs that list what there is.
LISTS = {
    "models": "model",
    "losses": "loss",
    "constraints": "constraint",
    "metrics": "metric",
    "objectives": "objective",
    "optimizers": "optimizer",
    "schedules": "schedule",
    "sources": "data",
    "variables": "variables",
    "writers": "writer",
    "hardware": "hardware",
    "loggers": "logger",
    "experiments": "experiment",
    "presets": "eval",
}


def all_names() -> list[str]:
    """Every verb, lists included."""
    return [verb.name for verb in VERBS] + list(LISTS)


def find(name: str) -> Verb | None:
    """The verb of that name; a list's verb is made on the spot."""
    for verb in VERBS:
        if verb.name == name:
            return verb
    if name in LISTS:
        group = LISTS[name]
        examples: tuple[tuple[str, str], ...] = ((f"emul {name}", f"every option of `{group}=`"),)
        if name == "models":
            examples += (("emul models sfno", "describe one"), ("emul models data=netcdf ...", "sizes on other data"))
        return Verb(name, "lists", f"List what there is for `{group}=`.", (), examples)
    return None


def first_of(words: list[str]) -> tuple[Verb | None, list[str]]:
    """The verb, of two words or of one, with which a command begins, and the words after it."""
    double = find(" ".join(words[:2])) if len(words) > 1 else None
    return (double, words[2:]) if double else (find(words[0]) if words else None, words[1:])


def overview() -> str:
    """The text of `emul --help`."""
    lines = [
        "emul - train, forecast with, and verify machine-learning emulators of weather and climate",
        "",
        "Usage: emul <verb> [key=value ...]",
        "",
        *_columns([(verb.name, verb.summary) for verb in VERBS]),
        "",
        "What there is to choose from:",
        *_wrapped(list(LISTS)),
        "",
        "Examples:",
        *_columns(
            [
                ("emul run experiment=planet_sfno", "a planet, a trained emulator, its forecasts, their scores"),
                ("emul train model=unet training.steps=200", "train another network for 200 steps"),
                ("emul forecast run=outputs/train/planet_unet", "forecast with it"),
                ("emul eval run=outputs/train/planet_unet", "score the forecasts"),
                ("emul check experiment=planet_sfno", "look for faults before anything runs"),
            ]
        ),
        "",
        "`emul <verb> --help` explains a verb. Everything lands in outputs/<verb>/<name>.",
        "Set EMUL_TRACEBACK=1 to see where an error comes from.",
    ]
    return "\n".join(lines)


def explanation(verb: Verb) -> str:
    """The text of `emul <verb> --help`."""
    usage = "<bash|zsh|fish>" if verb.name == "completion" else "[key=value ...]" if verb.keys else ""
    usage = f"a b [c ...] {usage}" if verb.name == "eval compare" else usage
    usage = "PATH ..." if verb.name == "verify" else usage
    usage = f"<{'|'.join(DATA_WORDS)}> [key=value ...]" if verb.name == "data" else usage
    lines = [f"emul {verb.name} - {verb.summary}", "", f"Usage: emul {verb.name} {usage}".rstrip()]
    if verb.keys:
        lines += ["", "Main keys:", *_columns(list(verb.keys))]
    lines += ["", "Examples:", *_columns(list(verb.examples))]
    if verb.note:
        lines += ["", verb.note]
    if verb.composes:
        flags = [
            ("--cfg job", "print the configuration and stop"),
            ("--multirun", "try every combination of values given as key=a,b,c"),
            ("--config-dir DIR", "a folder of your own options and Python files; also EMUL_CONF"),
            ("--trust NAME", "a package or folder whose parts may run; remembered for later commands"),
            ("--info", "where the configuration comes from"),
        ]
        lines += ["", "Flags:", *_columns(flags)]
    return "\n".join(lines)


def _columns(rows: list[tuple[str, str]]) -> list[str]:
    width = max(len(left) for left, _ in rows) + 2
    return [f"  {left:<{width}}{right}".rstrip() for left, right in rows]


def _wrapped(words: list[str], width: int = 96) -> list[str]:
    lines = ["  " + words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) + 2 > width:
            lines.append("  " + word)
        else:
            lines[-1] += f", {word}"
    return lines
