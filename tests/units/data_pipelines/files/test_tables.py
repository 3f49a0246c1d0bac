"""Text in CSV files is no formula, and numbers stay numbers."""

import csv

import pytest

from data_pipelines.files.tables import MetricsTable, plain_cell, read_rows
from data_pipelines.verification.run_results import write_table


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "-", "--x"])
def test_formulas_are_text(text):
    assert plain_cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["-1", "-1.5e-3", "+2", "-inf", "", "rmse", "a=b", -1.0, 3, None, "'x"])
def test_all_else_stays(value):
    assert plain_cell(value) == value


def test_tables_of_sweeps_and_trainings(tmp_path):
    write_table(tmp_path / "results.csv", [{"name": "=HYPERLINK(1)", "-lr": "-0.5", "score": -1.5}, {"name": "b"}])
    with open(tmp_path / "results.csv", newline="") as file:
        assert list(csv.reader(file)) == [
            ["name", "'-lr", "score"], ["'=HYPERLINK(1)", "-0.5", "-1.5"], ["b", "", ""],
        ]  # fmt: skip
    table = MetricsTable(tmp_path / "metrics.csv")
    table.append({"=loss": -2.0}, 1)
    assert (tmp_path / "metrics.csv").read_text().splitlines() == ["step,'=loss", "1,-2.0"]
    assert read_rows(tmp_path / "metrics.csv") == [{"step": 1, "=loss": -2.0}]
