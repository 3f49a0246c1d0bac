"""GRIB files of forecasts: read back by ecCodes and cfgrib as what was written, within what packing allows."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from data_pipelines.conventions.canonical import first_member
from data_pipelines.forecasts.grib_writer import GribCode, GribWriter, MessageTemplate
from data_pipelines.forecasts.layout import Layout
from data_pipelines.opening.datasets import open_dataset
from emulators.grid import equiangular_grid, gaussian_grid
from emulators.grids.catalogue import named_grid
from emulators.variables import Variable, VariableSet
from emulators.world import Vertical, World

eccodes = pytest.importorskip("eccodes")
cfgrib = pytest.importorskip("cfgrib")

SIX_HOURS = np.timedelta64(21_600, "s")
INITS = np.array(["2003-01-01", "2003-01-01T12"], dtype="datetime64[s]")
PRESSURE = VariableSet(
    (
        Variable("temperature", "K", (200.0, 500.0, 850.0)),
        Variable("specific_humidity", "kg kg-1", (850.0, 500.0)),
        Variable("2m_temperature", "K"),
        Variable("total_precipitation_6hr", "m"),
    )
)
SIGMA = VariableSet((Variable("temperature", "K", (0.25, 0.75)), Variable("surface_pressure", "Pa")))
ISOBARIC = Vertical("pressure")
A, B = (0.0, 2000.0, 0.0), (0.0, 0.4, 1.0)
GRIDS = {"equiangular": equiangular_grid(8, poles=True), "centres": equiangular_grid(8), "gaussian": gaussian_grid(8)}


def written(folder, grid, variables=PRESSURE, vertical=ISOBARIC, members=0, **options):
    """Write a forecast of two initial times and three leads; its layout and fields ([member,] init, lead, channel)."""
    world = World(grid, variables, SIX_HOURS, vertical=vertical)
    layout = Layout(world, INITS, 3, 2, 2, members=members)
    writer = GribWriter(**options)
    writer.refuse_unsuited(layout)
    generator = np.random.default_rng(0)
    shape = (*([members] if members else []), 2, 3, variables.size, *grid.shape)
    values = generator.normal(0.0, 1.0, shape)
    for variable in variables:
        mean, spread = {"K": (270, 20), "kg kg-1": (5e-3, 1e-3), "m": (1e-3, 2e-4), "Pa": (1e5, 1e3)}[variable.units]
        channels = (..., variables.slice(variable.name), slice(None), slice(None))
        values[channels] = mean + spread * values[channels]
    values = values.astype(np.float32)
    folder.mkdir(exist_ok=True)
    writer.open(folder, layout)
    for lead in range(3):
        writer.write(0, lead, values[..., lead, :, :, :])
    sums = writer.export(writer.finish(0))
    writer.close()
    return layout, values, sums


def messages(path):
    """The messages of a file as keys and values."""
    with open(path, "rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            yield handle
            eccodes.codes_release(handle)


@pytest.mark.parametrize("packing", ["grid_ccsds", "grid_simple"])
@pytest.mark.parametrize("name", GRIDS)
def test_values_come_back_within_the_packing(tmp_path, name, packing):
    grid = GRIDS[name]
    layout, values, sums = written(tmp_path, grid, packing=packing)
    files = sorted((tmp_path / "grib").iterdir())
    assert [path.name for path in files][:2] == ["20030101T0000_00006h.grib2", "20030101T0000_00012h.grib2"]
    assert len(files) == 6
    assert {f"grib/{path.name}" for path in files} < sums.keys()
    channels = {("t", 200): 0, ("t", 500): 1, ("t", 850): 2, ("q", 850): 3, ("q", 500): 4, ("2t", 2): 5, ("tp", 0): 6}
    seen = set()
    for number, path in enumerate(files):
        init, lead = divmod(number, 3)
        for handle in messages(path):
            key = eccodes.codes_get(handle, "shortName"), eccodes.codes_get_long(handle, "level")
            stored = values[init, lead, channels[key]].astype(np.float64) * (1000.0 if key[0] == "tp" else 1.0)
            step = 2.0 ** eccodes.codes_get_long(handle, "binaryScaleFactor")
            step /= 10.0 ** eccodes.codes_get_long(handle, "decimalScaleFactor")
            read = eccodes.codes_get_values(handle).reshape(grid.shape)
            assert np.abs(read - stored).max() <= 0.5 * step * (1 + 1e-6) + 1e-7 * np.abs(stored).max()
            assert step < np.ptp(stored) / 2**15
            latitude, longitude = (eccodes.codes_get_array(handle, key) for key in ("latitudes", "longitudes"))
            np.testing.assert_allclose(latitude, grid.points[0], atol=1e-5)
            np.testing.assert_allclose(longitude, grid.points[1], atol=1e-5)
            assert eccodes.codes_get_long(handle, "edition") == 2
            date, time = (eccodes.codes_get_long(handle, f"validity{part}") for part in ("Date", "Time"))
            assert f"{date}T{time:04d}" == f"{layout.valid_times[init, lead].item():%Y%m%dT%H%M}"
            if key[0] == "tp":
                assert eccodes.codes_get(handle, "stepRange") == f"{6 * lead}-{6 * lead + 6}"
                assert eccodes.codes_get(handle, "stepType") == "accum"
            seen.add((number, key))
    assert len(seen) == 6 * len(channels)


def test_cfgrib_and_our_own_reader_take_a_file_for_what_it_is(tmp_path):
    _, values, _ = written(tmp_path, GRIDS["equiangular"])
    path = tmp_path / "grib" / "20030101T1200_00012h.grib2"
    levels = xr.open_dataset(path, engine="cfgrib", filter_by_keys={"shortName": "t"}, backend_kwargs={"indexpath": ""})
    assert levels["t"].attrs["units"] == "K"
    levels = levels.sortby("isobaricInhPa")
    assert levels["isobaricInhPa"].values.tolist() == [200.0, 500.0, 850.0]
    np.testing.assert_allclose(levels["t"], values[1, 1, :3], atol=2e-3)
    ours = open_dataset(str(path), engine="grib", filter={"typeOfLevel": "isobaricInhPa", "shortName": "t"})
    ours = first_member(ours)["temperature"].sortby("level").squeeze()
    np.testing.assert_allclose(ours, values[1, 1, :3], atol=2e-3)


def test_members_levels_and_missing_values(tmp_path):
    layout, values, _ = written(tmp_path, GRIDS["gaussian"], SIGMA, Vertical("hybrid", A, B), members=3)
    path = tmp_path / "grib" / "20030101T0000_00018h.grib2"
    numbers = []
    for handle in messages(path):
        member = eccodes.codes_get_long(handle, "perturbationNumber")
        numbers.append((eccodes.codes_get(handle, "shortName"), member, eccodes.codes_get_long(handle, "level")))
        assert eccodes.codes_get_long(handle, "numberOfForecastsInEnsemble") == 3
        if numbers[-1][0] == "t":
            np.testing.assert_allclose(eccodes.codes_get_array(handle, "pv"), [*A, *B], rtol=1e-6)
            field = values[member, 0, 2, numbers[-1][2] - 1]
            np.testing.assert_allclose(eccodes.codes_get_values(handle).reshape(field.shape), field, atol=2e-3)
    assert numbers == [
        *(("t", m, n) for m in range(3) for n in (1, 2)), *(("sp", m, 0) for m in range(3)),
    ]  # fmt: skip
    template = MessageTemplate(layout.world.lat_lon, Vertical("pressure"), bits=16, packing="grid_simple", centre=255)
    holed = values[0, 0, 0, 2].copy()
    holed[2, 3] = np.nan
    (tmp_path / "one.grib2").write_bytes(template.message(holed, GribCode("sst"), INITS[0], SIX_HOURS))
    template.close()
    (read,) = (eccodes.codes_get_values(h).reshape(holed.shape) for h in messages(tmp_path / "one.grib2"))
    assert np.argwhere(read == 9999.0).tolist() == [[2, 3]]  # what ecCodes gives for a missing value
    np.testing.assert_allclose(read[0], holed[0], atol=0.1)


def test_a_part_of_the_variables_and_levels(tmp_path):
    layout, _, _ = written(tmp_path / "all", GRIDS["centres"])
    world = layout.world
    writer = GribWriter(variables=["temperature", "2m_temperature"], levels=[850])
    other = replace(layout, block=3)
    values = np.full((2, world.predicted.size, *world.grid.shape), 280.0, np.float32)
    values += np.arange(world.grid.shape[1])
    writer.open(tmp_path, other)
    for lead in range(3):
        writer.write(0, lead, values)
    writer.export(writer.finish(0))
    writer.close()
    found = [
        (eccodes.codes_get(h, "shortName"), eccodes.codes_get_long(h, "level"))
        for h in messages(tmp_path / "grib" / "20030101T0000_00006h.grib2")
    ]
    assert found == [("t", 850), ("2t", 2)]


REFUSED = {
    "no short name of ecCodes is kept here for slow_variable": (
        VariableSet((Variable("slow_variable", "1"),)),
        {},
        None,
    ),
    "no vorticity; predicted are": (PRESSURE, {"variables": ["vorticity"]}, None),
    "no level 300; there are": (PRESSURE, {"levels": [300]}, None),
    "writes grids of latitudes and longitudes": (PRESSURE, {}, "healpix:2"),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_has_no_place_in_grib_is_refused_beforehand(sentence):
    variables, options, grid = REFUSED[sentence]
    world = World(named_grid(grid) if grid else GRIDS["centres"], variables, SIX_HOURS, vertical=Vertical("pressure"))
    with pytest.raises(ValueError, match=sentence):
        GribWriter(**options).refuse_unsuited(Layout(world, INITS, 3, 2, 1))
    if "slow" in sentence:
        GribWriter(names={"slow_variable": "2t"}).refuse_unsuited(Layout(world, INITS, 3, 2, 1))
    with pytest.raises(ValueError, match="bits within 1"):
        GribWriter(bits=40)
