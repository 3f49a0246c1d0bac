"""Wrong inputs of new users: each ends in a sentence that says what was expected and what to write, never a traceback.

One process, one small dataset, one trained run. What a message advises is tried where it is a whole assignment.
"""

import os
import re

import pytest

from emul.config.compose import refuse_early
from emul.main import main
from emul.terminal.verbs import find
from example_data import dataset

pytestmark = pytest.mark.slow
DATA = [
    "data=netcdf", "data.path=era5/era5.nc", "variables.prognostic=[temperature,2m_temperature]",
    "data.splits.train=[2001-01-01,2001-02-08]", "data.splits.validation=[2001-02-09,2001-02-18]",
    "data.splits.test=[2001-02-19,2001-03-01]", "model=linear", "training.steps=2", "training.validate_every=1",
    "training.batch_size=2",
]  # fmt: skip
RUN = "run=outputs/train/mine"
STORE = "forecast=outputs/forecast/mine/forecast.zarr"

# (words, with DATA for three dots; what the message says)
CASES = [
    # verbs and flags
    ("trian", "did you mean `emul train`?"),
    ("plot", "`emul --help` lists the verbs"),
    ("help trian", "did you mean `emul train`?"),
    ("train --batch-size 8", "write training.batch_size=8"),
    ("train --epochs", "keys are set as key=value"),
    ("data inspct era5", "did you mean `emul data inspect`?"),
    ("data inspect", "Expected paths or a data source"),
    ("models sfon", "did you mean 'sfno'?"),
    ("losses more", "emul losses takes nothing more"),
    ("losses --config-dir nowhere", "Expected a folder of options at"),
    ("new los x", "write emul new loss my_loss"),
    ("completion bsh", "write emul completion bash"),
    ("options training.batchsize", "did you mean training.batch_size?"),
    ("verify nowhere", "Nothing at nowhere"),
    ("sweep", "give some keys several values"),
    ("init", "write emul init era5/"),
    ("init era5 name=a/b", "got a name with a slash"),
    ("new loss Rough-ness", "small letters, digits and underscores"),
    ("show", "takes one run"),
    ("sweep experiment=planet_sfno", "Nothing varies"),
    ("data convert era5", "write data=netcdf data.path=era5"),
    ("data regrid era5 grid=foo", "No grid 'foo'"),
    ("init era5 model=sfon", "did you mean 'sfno'?"),
    # keys and values of a training
    ("train modle=sfno", "write model=sfno"),
    ("train model=sfon", "write model=sfno"),
    ("train model=no_such_network", "expected one of afno"),
    ("train training.step=5", "write training.steps=5"),
    ("train steps=5", "write training.steps=5"),
    ("train lr=0.1", "write optimizer.lr=0.1"),
    ("train learning_rate=0.1", "write optimizer.lr=..."),
    ("train epochs=5", "write training.steps=..."),
    ("train gpus=2", "write hardware=gpu hardware.devices=..."),
    ("train training.steps", "write training.steps=..."),
    ("train training.steps=ten", "expected a whole number, got the text 'ten'"),
    ("train training.steps=-3", "must not be negative; got -3"),
    ("train training.batch_size=0 training.validate_every=-5", "must be at least 1; got 0 and -5"),
    ("train optimizer.lr=-1", "must be positive; got -1"),
    ("train training.steps=1e3", "got the number 1000.0; write 1000"),
    ("train training.precision=bf16-mixed", "or hardware.precision=bf16-mixed"),
    ("train optimizer.lr=1e-3;", "quote values that hold brackets"),
    ("train loss=mse,mae", "write 'loss=[mse,mae]'; to try several values add --multirun"),
    ("check experiment=planet_sfno model=unet", "leave it out: '~model.embed'"),
    ("train seed=1,2", "add --multirun"),
    ("train model=unet model.chanels=[8]", "write model.channels=[8]"),
    ("train model=unet model.chanels=8", "write model.channels=[8]"),
    ("train model=sfno model.blocks=1", "there is model.block, model.embed, model.layers"),
    ("train loss=[mse,mee]", "write mae in its place"),
    ("train experiment=planet_snfo", "write experiment=planet_sfno"),
    ("train hardware.accelerator=cuda", "expected cpu or gpu or auto"),
    ("train hardware.devices=two", "expected a whole number"),
    ("train ... hardware=ddp hardware.devices=64", "must divide by devices x accumulate = 64; got 2. Take 64"),
    ("train ... name=null", "expected a name such as baseline"),
    ("train ... resume=again name=new", "expected one of exact, changed, anew; got 'again'"),
    ("train ... training.clip=3 name=mine", "say resume=changed to go on"),
    ("check ... loss.mse._target_=mylosses.Mine", "add --trust mylosses"),
    # data
    ("train ... data.path=era5/er5.nc", "did you mean 'era5/era5.nc'?"),
    ("train ... data.path=era5/none.nc", "in era5 there is era5.nc"),
    ("train ... data.path=nowhere/x.nc", "nor is there a folder nowhere"),
    ("train ... data.names=cesmm", "did you mean 'cesm'?"),
    ("train ... data.timestep=5h", "no two times of era5/era5.nc lie 5h apart; they lie 6h apart"),
    ("train ... data.select={level:55}", "'level' has no 55; it has 500, 700, 850"),
    ("check ... data.levels=[500,100]", "100 lies beyond those of the data, 500 to 850"),
    ("check ... variables.prognostic=[{temperature:[500,100]}]", "levels of temperature: 500, 700, 850"),
    ("check ... variables.prognostic=[geopotentail]", "write geopotential"),
    ("check ... variables.prognostic=[z,t,t2m]", "got z; write geopotential"),
    ("check ... variables.prognostic=[z,t,t2m]", "got t; write temperature"),
    ("check ... variables.prognostic=[z,t,t2m]", "got t2m; write 2m_temperature"),
    ("check ... variables.forcing=[2m_dewpoint_temperature]", "there are temperature, 2m_temperature"),
    ("check data=netcdf data.path=era5/era5.nc", "(`emul init PATH` proposes all); there are temperature"),
    ("check ... data.splits.train=[2001-02-30,2001-03-01]", "There is no day 2001-02-30 in the calendar"),
    ("check ... data.splits.test=[1999,2000]", "expected times of the data, 2001-01-01T00:00:00"),
    ("train ... training.batch_size=100000 name=big", "at most the 155 windows of data.splits.train"),
    ("train ... data.path=celsius.nc variables.prognostic=[2m_temperature] name=c", "{2m_temperature: 'degC -> K'}"),
    ("check data=zar data.path=era5/era5.nc", "expected an option of data, got zar; write data=zarr"),
    ("check data=zarrs data.path=nowhere.zarr", "1 fault;"),
    ("check ... data=zarr", "era5/era5.nc is NetCDF: open it with data=netcdf"),
    ("check ... data.path=gs://bucket/era5.zarr", "is a Zarr store: open it with data=zarr"),
    ("train ... data.splits.train=2001", "write the first and the last time: data.splits.train=[2001,2001]"),
    ("check ... variables.prognostic=temperature", "write variables.prognostic=[temperature]"),
    ("check ... variables.prognostic=[temperature,temperature]", "Expected each variable once; got temperature twice"),
    ("check ... model=unet model.channels=[]", "Expected channels of at least one level, such as [32, 64]; got none"),
    ("train ... from_checkpoint=era5/era5.nc", "holds no weights; expected a file of torch.save"),
    ("train ... output=era5/era5.nc", "a file lies where a folder is needed: choose another place"),
    ("train run=outputs/train/mine", "write name=... and the other words of that training"),
    ("data picture era5/era5.nc", "write data=netcdf data.path=era5/era5.nc"),
    # forecasts and scores
    ("forecast", "set run=outputs/train/<name> (`emul list` lists them)"),
    ("forecast run=mine", "write run=outputs/train/mine"),
    ("eval run=outputs/train/mien", "did you mean run=outputs/train/mine?"),
    (f"forecast {RUN} lead=2d", "steps was 4, is 8"),
    (f"forecast {RUN} lead=0 name=o", "write lead=1, in timesteps"),
    (f"forecast {RUN} members=-2 name=o", "members must be at least 1"),
    ("eval compare mine", "give two or more evaluations"),
    (f"forecast {RUN} lead=5days name=o", "30min, 6h, 5d, 1M (month) or 1y"),
    (f"forecast {RUN} lead=1mo name=o", "write lead=122, in timesteps"),
    (f"forecast {RUN} checkpoint=beest name=o", "must be 'best' or 'last'"),
    (f"forecast {RUN} init=2001-13-01 name=o", "Expected a date such as 2003-01-01"),
    (f"forecast {RUN} init=2010-01-01 name=o", "holds 240 times from 2001-01-01"),
    ("eval mine", "write run=outputs/train/mine"),
    ("eval compare mine nope", "No evaluation called 'mine'"),
    (f"eval {RUN} metric=[rsme]", "write metric=rmse"),
    (f"eval {RUN} metric=[crps]", "crps: the forecast has 1 of the 2 members needed"),
    (f"eval {RUN} regions=[europa]", "did you mean 'europe'?"),
    (f"eval {RUN} leads=[36d]", "the forecast has, 6h to 1d"),
    (f"eval {RUN} eval=wb2", "write eval=wb2_deterministic"),
    (f"eval {STORE} truth=era5/none.nc", "in era5 there is era5.nc"),
    (f"eval {STORE} truth=era5/era5.nc baselines=[{{hres:nothing.zarr}}]", "No data at nothing.zarr"),
    (f"eval {RUN} leads=[1mo]", "got 30.4d"),
    (f"eval {RUN} levels=[5000]", "levels: expected some of 500, 700, 850; got [5000]"),
    (f"eval {RUN} significance.level=95", "significance.level: expected a share between 0 and 1, such as 0.95; got 95"),
    (f"eval {RUN} case.init=2001-02-19T01", "case.init=2001-02-19T01 takes in none of the forecast's initial times"),
    ("show outputs/eval/mine", "There is no run at outputs/eval/mine; did you mean 'mine'?"),
    ("weights", "or get NAME; got nothing"),
    ("list outputs=foo", "write output=foo"),
    ("train experiment=own", "add --config-dir my_parts"),
    ("show mien", "did you mean 'mine'?"),
]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with data and a run with a forecast."""
    folder, before = tmp_path_factory.mktemp("home"), os.getcwd()
    os.chdir(folder)
    (folder / "era5").mkdir()
    (folder / "my_parts" / "experiment").mkdir(parents=True)
    (folder / "my_parts" / "experiment" / "own.yaml").write_text("# @package _global_\ntraining: {steps: 2}\n")
    fields = dataset(240).drop_vars(["soil_temperature", "sea_surface_temperature"])
    fields["geopotential"] = (100 * fields["temperature"]).assign_attrs(units="m2 s-2")
    fields.to_netcdf("era5/era5.nc")
    (10 * (fields[["2m_temperature"]] - 280.0)).map(lambda field: field.assign_attrs(units="K")).to_netcdf("celsius.nc")
    assert main(["train", *DATA, "name=mine"]) == 0
    assert main(["forecast", RUN, "lead=1d", "every=2d"]) == 0
    yield folder
    os.chdir(before)


def words_of(text: str) -> list[str]:
    """The words of a case; after a colon in braces a space, which words cannot hold."""
    words = [re.sub(r"(?<=\w):(?=[\w\[.])", ": ", word) if "{" in word else word for word in text.split()]
    return [one for word in words for one in (DATA if word == "..." else [word])]


@pytest.mark.parametrize(("text", "said"), CASES)
def test_each_ends_in_a_sentence(home, text, said, capsys):
    words = words_of(text)
    assert main(words) == 2
    captured = capsys.readouterr()
    told = captured.out + captured.err
    assert said in told
    assert "Traceback" not in told
    verb, advice = find(words[0]), re.search(r"(\S+): [^\n]*; write ([\w.]+=[^\s;]*[^\s;.])\.?$", told, re.M)
    if verb is not None and verb.composes and advice and "..." not in advice[2]:
        mended = [advice[2] if word.partition("=")[0] == advice[1] else word for word in words[1:]]
        assert f"{advice[2].partition('=')[0]}:" not in refusal_of(words[0], mended), "the advice fails in the same way"


def refusal_of(verb: str, words: list[str]) -> str:
    """What the composition of a command is refused with; empty where it is not."""
    try:
        refuse_early(verb, words)
    except ValueError as error:
        return str(error)
    return ""


def test_there_are_sixty():
    assert len({text for text, _ in CASES}) >= 60


def test_overlapping_periods_are_told_by_train_and_on_the_score_card(home, capsys):
    words = [*DATA, "data.splits.test=[2001-01-10,2001-02-20]", "name=seen"]
    assert main(["train", *words]) == 0
    assert "data.splits.test overlaps data.splits.train" in capsys.readouterr().err
    assert main(["forecast", "run=outputs/train/seen", "lead=6h", "every=10d"]) == 0
    assert main(["eval", "run=outputs/train/seen", "pictures=false"]) == 0
    assert "forecasts are of times that the run was trained on" in capsys.readouterr().err
