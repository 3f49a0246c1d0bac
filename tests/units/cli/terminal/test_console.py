"""What files say is shown and commands no terminal."""

import numpy as np
import xarray as xr
from rich.table import Table

from emul.main import main
from emul.terminal.console import console, stage


def test_control_characters_of_names_and_attributes_are_replaced(tmp_path, capsys, caplog):
    caplog.set_level("WARNING", "zarr")  # its debugging lines, where another test has asked for them, are not ours
    coordinates = {"time": np.arange("2001-01-01", "2001-01-05", dtype="datetime64[D]").astype("datetime64[ns]")}
    coordinates |= {"latitude": np.linspace(75, -75, 6), "longitude": np.arange(12) * 30.0}
    values = np.random.default_rng(0).normal(280, 5, (4, 6, 12))
    told = {"units": "K\x1b[2J\x1b]0;x\x07", "long_name": "a\x9b31m\u202e"}
    dataset = xr.Dataset({"t\x1b[31m": (tuple(coordinates), values, told)}, coordinates)
    dataset.to_zarr(tmp_path / "a.zarr", zarr_format=2)
    assert main(["data", "inspect", str(tmp_path / "a.zarr")]) == 0
    assert main(["data", "inspect", str(tmp_path / "no\x1b[31m.nc")]) == 2
    said = capsys.readouterr()
    assert "t\N{REPLACEMENT CHARACTER}[31m" in said.out
    assert [one for one in said.out + said.err if not one.isprintable() and one != "\n"] == []


def test_no_number_is_cut_in_a_file(capsys):
    whole = Table(show_edge=False)
    for column in range(12):
        whole.add_column(f"lead {column}", no_wrap=True)
    whole.add_row(*(f"{column}{'?+123 % ' * 3}" for column in range(12)))
    console().print(whole)
    text = capsys.readouterr().out
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert text.count("?+123 %") == 36


def test_a_stage_is_one_short_line_in_a_file(capsys):
    stage("1 of 3: train")
    assert capsys.readouterr().out == "1 of 3: train\n"
