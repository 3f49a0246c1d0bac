"""Published weights become runs: as torch.load finds them, nested and prefixed, with or without constants."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import test_zoo
import torch
import xarray as xr

import case as zoo
from data_pipelines.conventions.suggestions import ConfigErrors
from data_pipelines.files import checkpoints
from emul.config.compose import compose
from emul.forecast import forecast
from emul.train import train
from emul.training.runs import open_run
from emulators.training.published_weights import converted

MODULE = "emulators.models.stormer"


def stored_weights(name: str) -> dict[str, torch.Tensor]:
    """What a published checkpoint of a stored case holds, with tables that networks keep beside."""
    shapes = json.loads(str(np.load(zoo.FOLDER / f"{name}.npz")["shapes"]))
    weights = {key: zoo.recipe(key, tuple(shape)) for key, shape in shapes.items()}
    return {**weights, "some.attn_mask": torch.zeros(2, 2), "some.num_batches_tracked": torch.tensor(3)}


@pytest.mark.parametrize("name", zoo.names())
def test_every_stored_case_comes_through_the_door(name, tmp_path):
    """Saved as Lightning would, wrapped by DataParallel, optimiser beside: the network that comes out is the same."""
    weights = stored_weights(name)
    wrapped = {"module." + key: value for key, value in weights.items()}
    optimiser = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}
    torch.save({"epoch": 3, "model_state": {"state_dict": wrapped}, "optimizer": optimiser}, tmp_path / "x.ckpt")
    found = checkpoints.state_dicts(checkpoints.content(tmp_path / "x.ckpt"))
    case = zoo.case(name)
    expected = test_zoo.ours(case, weights).state_dict()
    got = test_zoo.ours(case, max(found, key=len)).state_dict()
    assert all(torch.equal(got[key], value) for key, value in expected.items())


@pytest.mark.parametrize("name", ["graphcast", "gencast", "fgn"])
def test_weights_come_as_arrays_too(name, tmp_path):
    """In an .npz with options of the network beside, as DeepMind's are published; what is no archive is refused."""
    weights, file = stored_weights(name), tmp_path / "theirs.npz"
    arrays = {name: value.numpy() for name, value in weights.items() if name.startswith("params:")}
    options = {"model_config:latent_size": np.array(16), "model_config:resolution": np.array(1.0), "license": "CC BY"}
    np.savez(file, **arrays, **options, **{"task_config:pressure_levels": np.arange(13)})
    (found,) = checkpoints.state_dicts(checkpoints.content(file))
    case = zoo.case(name)
    got, expected = (test_zoo.ours(case, some).state_dict() for some in (found, weights))
    assert all(torch.equal(got[key], value) for key, value in expected.items())
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match="may be truncated"):
        checkpoints.content(file)


TINY = [
    "data=planet_tiny", "model=stormer", "model.embed=32", "model.depth=2", "model.heads=4", "hardware.threads=1",
    "training.batch_size=2", "training.validation_cases=2", "training.validation_lead=1", "training.validate_every=2",
    "variables=listed", "variables.prognostic=[temperature,surface_pressure]", "forecast.lead=12h", "forecast.every=5d",
]  # fmt: skip
MEANS = {f"temperature_{level}": 250.0 + level / 100 for level in (70, 280, 595, 885)}


def stormer() -> dict[str, torch.Tensor]:
    """Stormer of five variables on 16x32 points, under its published names."""
    weights = stored_weights("stormer")
    name = "embedding.pos_embed"
    return {f"net.{key}": value for key, value in (weights | {name: zoo.recipe(name, (1, 128, 32))}).items()}


def trained(tmp_path: Path, *words: str, tiny: Sequence[str] = TINY):
    config = compose("train", [*tiny, f"output={tmp_path}", *words])
    return open_run(train(config))


@pytest.mark.slow
def test_published_weights_become_a_run_that_forecasts_and_is_tuned(tmp_path, capsys):
    file, weights = tmp_path / "theirs.ckpt", stormer()
    constants = {"means": MEANS, "stds": {name: torch.tensor([9.0]) for name in MEANS}}
    torch.save({"state_dict": weights, "normalizer": constants}, file)
    run = trained(tmp_path, f"from_checkpoint={file}", "training.steps=0", "name=theirs")
    said = " ".join(capsys.readouterr().err.split())
    assert "standard deviation of surface_pressure were measured here" in said
    assert {run.world.scales[name].mean for name in MEANS} == set(MEANS.values())
    assert {run.world.scales[name].std for name in MEANS} == {9.0}
    assert run.world.scales["surface_pressure"].mean == pytest.approx(1e5, rel=0.1)
    expected = converted({name.removeprefix("net."): value for name, value in weights.items()}, sys.modules[MODULE])
    got = run.step.network.state_dict()
    assert all(torch.equal(got[name], value) for name, value in expected.items())
    assert (forecast(compose("forecast", [f"run={run.folder}", f"output={tmp_path}"])) / "manifest.json").is_file()
    file.unlink()  # a run needs it no more
    again = trained(tmp_path, f"from_checkpoint={file}", "training.steps=0", "name=theirs")
    assert torch.equal(again.step.network.head.weight, run.step.network.head.weight)
    tuned = trained(tmp_path, f"from_checkpoint={run.folder}", "training.steps=2", "name=tuned")
    assert "measured here" not in capsys.readouterr().err
    constants = {name: replace(scale, extent=()) for name, scale in tuned.world.scales.items()}
    assert constants == run.world.scales  # which were made without training, and have seen no range
    assert all(len(scale.extent) == 4 for scale in tuned.world.scales.values())
    change = [(value - expected[name]).abs().max() for name, value in tuned.step.network.state_dict().items()]
    assert 0 < max(change) < 0.1


def ace(channels: int) -> dict[str, torch.Tensor]:
    """An SFNO of 6 channels inside and one block on 16x32 points, as a training of ACE stores it."""
    shapes = {
        "pos_embed": (1, 6, 16, 32), "encoder.0.weight": (6, channels, 1, 1), "encoder.0.bias": (6,),
        "encoder.2.weight": (6, 6, 1, 1), "blocks.0.filter.filter.weight": (1, 6, 6, 16, 2),
        "blocks.0.filter.filter.bias": (1, 6, 1, 1), "blocks.0.inner_skip.weight": (6, 6, 1, 1),
        "blocks.0.inner_skip.bias": (6,), "blocks.0.mlp.fwd.0.weight": (12, 6, 1, 1), "blocks.0.mlp.fwd.0.bias": (12,),
        "blocks.0.mlp.fwd.2.weight": (6, 12, 1, 1), "blocks.0.mlp.fwd.2.bias": (6,),
        "decoder.0.weight": (6, 6 + channels, 1, 1), "decoder.0.bias": (6,), "decoder.2.weight": (channels, 6, 1, 1),
        **{f"blocks.0.norm{n}.{part}": (6,) for n in (0, 1) for part in ("weight", "bias")},
    }  # fmt: skip
    return {f"module.{name}": zoo.recipe(name, shape) for name, shape in shapes.items()}


@pytest.mark.slow
def test_channels_of_published_weights_in_their_own_order(tmp_path):
    """The same network whose channels come in another order, and are named, makes the same forecast."""
    weights, fields = ace(5), []
    order = [3, 0, 4, 2, 1]
    turned = dict(weights)
    for name, axis, before in (("encoder.0", 1, 0), ("decoder.0", 1, 6), ("decoder.2", 0, 0)):
        places = torch.tensor([*range(before), *(before + place for place in order)])
        turned[f"module.{name}.weight"] = weights[f"module.{name}.weight"].index_select(axis, places)
    words = ["model=sfno", "model.embed=6", "model.layers=1", "model.filter_bias=true", "training.steps=0"]
    tiny = [word for word in TINY if not word.startswith("model")]
    own = [*MEANS, "surface_pressure"]
    named = ",".join(own[place] for place in order)
    for name, content, more in (
        ("same", weights, []),
        ("turned", turned, [f"step.reads=[{named}]", f"step.writes=[{named}]"]),
    ):
        torch.save({"stepper": {"module": content}}, tmp_path / f"{name}.tar")
        run = trained(tmp_path, *words, f"from_checkpoint={tmp_path}/{name}.tar", f"name={name}", *more, tiny=tiny)
        written = forecast(compose("forecast", [f"run={run.folder}", f"output={tmp_path}"]))
        with xr.open_zarr(written / "forecast.zarr") as opened:
            fields.append(opened.load())
    xr.testing.assert_allclose(*fields, rtol=1e-5)
    with pytest.raises(ConfigErrors, match=r"step\.writes should name the 5 channels"):
        trained(tmp_path, *words, "step.writes=[surface_pressure]", "name=refused", tiny=tiny)


@pytest.mark.slow
def test_weights_of_another_network_are_refused_with_what_differs(tmp_path):
    file = tmp_path / "theirs.pt"
    torch.save(stormer(), file)
    words = [f"from_checkpoint={file}", "training.steps=0"]
    with pytest.raises(ConfigErrors, match=r"gathering.query: expected 48, got 32; position.*set model as it was"):
        trained(tmp_path, *words, "model.embed=48")
    with pytest.raises(ConfigErrors, match=r"it has no place for embedding\."):
        trained(tmp_path, *words, "model=vit")
    with pytest.raises(FileNotFoundError, match="No weights at"):
        trained(tmp_path, "from_checkpoint=nowhere.pt")
    torch.save({"epoch": 3}, file)
    with pytest.raises(ConfigErrors, match="no tensors"):
        trained(tmp_path, *words)


def test_a_file_that_holds_code_is_not_loaded(tmp_path):
    torch.save({"state_dict": stormer(), "hparams": Path("x")}, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match=r"tensors, numbers and strings alone.*torch.save\(x\['state_dict'\]"):
        checkpoints.content(tmp_path / "x.ckpt")


def test_safetensors(tmp_path):
    save_file = pytest.importorskip("safetensors.torch").save_file
    weights = stored_weights("stormer")
    save_file(weights, tmp_path / "x.safetensors")
    found = checkpoints.content(tmp_path / "x.safetensors")
    assert all(torch.equal(found[name], value) for name, value in weights.items())


@pytest.mark.slow
def test_constants_in_files_of_their_own(tmp_path):
    """By name, as ClimaX and Stormer publish them, or in order, as FourCastNet does."""
    np.savez(tmp_path / "mean.npz", **{name: np.array([value]) for name, value in MEANS.items()}, other=np.ones(1))
    np.save(tmp_path / "std.npy", np.arange(1.0, 6.0).reshape(1, 5, 1, 1))
    files = f"scales={{mean: {tmp_path}/mean.npz, std: {tmp_path}/std.npy}}"
    run = trained(tmp_path, files, "training.steps=0", "model.depth=1")
    assert {run.world.scales[name].mean for name in MEANS} == set(MEANS.values())
    assert [run.world.scales[name].std for name in run.world.prognostic.channels] == [1.0, 2.0, 3.0, 4.0, 5.0]
    np.save(tmp_path / "std.npy", np.ones(4))
    with pytest.raises(ValueError, match=r"scales.std: expected numbers by channel.*or 5 in their order.*shape \(4,\)"):
        trained(tmp_path, files, "training.steps=0", "name=other")


def deepmind(name: str, read: int, written: int) -> dict[str, np.ndarray]:
    """A stored case in an .npz with other numbers of channels."""
    nodes, names = "params:grid2mesh_gnn/~_networks_builder/encoder_nodes_", ("grid_nodes", "mesh_nodes")
    out = "params:mesh2grid_gnn/~_networks_builder/decoder_nodes_grid_nodes_mlp/~/linear_1"
    shapes = {f"{nodes}{kind}_mlp/~/linear_0:w": (read + 3, 16) for kind in names}
    shapes |= {f"{out}:w": (16, written), f"{out}:b": (written,)}
    weights = {key: value for key, value in stored_weights(name).items() if key.startswith("params:")}
    return {key: value.numpy() for key, value in (weights | {k: zoo.recipe(k, v) for k, v in shapes.items()}).items()}


@pytest.mark.slow
def test_published_weights_of_a_denoiser_in_their_own_order(tmp_path):
    """States, noisy channels and the level come in the order that `reads` says, and the level is no channel."""
    weights = deepmind("gencast", 10, 5)
    np.savez(tmp_path / "theirs.npz", **weights)
    channels = [*MEANS, "surface_pressure"]
    reads = [*sorted(channels), *(f"noisy_{name}" for name in sorted(channels)), "noise_level"]
    options = {**zoo.case("gencast").options, "hidden": 64}
    words = [f"model.{key}={value}" for key, value in options.items()]
    words += ["model=gencast", "step=denoising", "objective=diffusion", f"step.reads=[{','.join(reads)}]"]
    words += [f"step.writes=[{','.join(sorted(channels))}]", "sampler.levels=2", "training.steps=0"]
    tiny = [word for word in TINY if not word.startswith("model")]
    run = trained(tmp_path, f"from_checkpoint={tmp_path / 'theirs.npz'}", *words, "name=theirs", tiny=tiny)
    theirs = {name: torch.from_numpy(value) for name, value in weights.items()}
    expected = converted(theirs, sys.modules["emulators.models.gencast"])
    got = run.step.network.state_dict()
    assert all(torch.equal(got[name], value) for name, value in expected.items())
    assert (forecast(compose("forecast", [f"run={run.folder}", f"output={tmp_path}"])) / "manifest.json").is_file()
