"""Arguments become typed settings by one grammar."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from data_pipelines.conventions.suggestions import ConfigErrors
from emul.config.settings import read_settings, refuse_others


@dataclass(frozen=True)
class Example:
    count: int = 1
    share: float | None = None
    name: str = "x"
    lengths: list[str] | None = None
    years: str | int | list[str | int] | None = None
    labels: Mapping[str, Any] | None = None
    kind: Literal["a", "b"] = "a"
    quick: bool = False


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("count=3", 3), ("share=2", 2.0), ("share=1e-3", 1e-3), ("share=null", None), ("name=2024", "2024"),
        ("name=a,b.zarr", "a,b.zarr"), ("name=gs://x/y.zarr?z=1", "gs://x/y.zarr?z=1"), ("name='a b'", "a b"),
        ("lengths=6h", ["6h"]), ("lengths=6h,24h", ["6h", "24h"]), ("lengths=[6h,24h]", ["6h", "24h"]),
        ("years=[2018,2020]", [2018, 2020]), ("years=2018", 2018), ("years=1990/2019", "1990/2019"),
        ("years=[2000-01-01,2000-03]", ["2000-01-01", "2000-03"]), ("labels={number: 0}", {"number": 0}),
        ("kind=b", "b"), ("quick=true", True),
    ],
)  # fmt: skip
def test_values(word, value):
    settings, rest = read_settings(Example, [word, "data=planet", "store.zarr"])
    found = getattr(settings, word.partition("=")[0])
    assert (found, type(found)) == (value, type(value))
    assert rest == ["data=planet", "store.zarr"]


def test_every_fault_is_told_at_once():
    with pytest.raises(ConfigErrors) as error:
        read_settings(Example, ["count=1.5", "kind=c", "quick=yes", "lenghts=6h", "data.path=x", "output=y"])
    told = {finding.key: finding for finding in error.value.findings}
    assert set(told) == {"count", "kind", "quick", "lenghts"}
    assert told["kind"].expected == "a or b"
    assert told["lenghts"].fix == "did you mean lengths=?"


def test_keys_with_a_prefix():
    settings, rest = read_settings(Example, ["part.count=2", "count=7"], "part.")
    assert (settings.count, rest) == (2, ["count=7"])
    with pytest.raises(ConfigErrors, match=r"part\.cuont: .*write part\.count"):
        read_settings(Example, ["part.cuont=2"], "part.")


def test_others_are_refused():
    refuse_others(["a", "b.zarr"], Example, "emul x")
    with pytest.raises(ConfigErrors, match="kinds: expected a setting of `emul x`"):
        refuse_others(["kinds=3"], Example, "emul x")
