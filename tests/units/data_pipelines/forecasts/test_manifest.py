"""Manifests, part files and checks: nothing unfinished, broken or changed passes for a good forecast."""

import numpy as np
import pytest

from data_pipelines.files.atomic import sha256
from data_pipelines.files.batch_records import BatchRecords
from data_pipelines.forecasts.manifest import (
    open_manifest,
    read_manifest,
    verdict,
    verify_checksums,
    write_checksums,
    write_manifest,
)

SETTINGS = {"inits": ["2003-01-01"], "steps": 4, "weights": "abc"}


def test_from_the_first_moment_the_manifest_says_unfinished(tmp_path):
    made = open_manifest(tmp_path / "f", SETTINGS, {"config": "lead: 1d"})
    found = read_manifest(tmp_path / "f")
    assert found == made
    assert (found["verdict"], found["finished"]) == ("failed", False)
    assert "unfinished" in found["reasons"][0]
    assert {"revision", "versions", "config", "created"} <= set(found)
    assert verify_checksums(tmp_path / "f") == [f"{tmp_path / 'f'} is not finished: {found['reasons'][0]}"]


def test_other_settings_are_refused_by_name(tmp_path):
    open_manifest(tmp_path, SETTINGS, {})
    assert open_manifest(tmp_path, SETTINGS, {})["settings"] == SETTINGS
    with pytest.raises(ValueError, match=r"other settings \(steps was 4, is 8; weights was abc, is x\)"):
        open_manifest(tmp_path, SETTINGS | {"steps": 8, "weights": "x"}, {})


def test_a_forecast_without_manifest_is_not_taken_over(tmp_path):
    (tmp_path / "forecast.zarr").mkdir()
    with pytest.raises(ValueError, match=r"without manifest\.json"):
        open_manifest(tmp_path, SETTINGS, {})


def test_manifests_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No manifest\.json"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 1, "verd')
    with pytest.raises(ValueError, match="cannot be read"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="something else"):
        read_manifest(tmp_path)


def test_checksums_find_what_was_changed_missing_or_added(tmp_path):
    store = tmp_path / "forecast.zarr"
    store.mkdir()
    names = {f"forecast.zarr/{name}": content for name, content in (("a", b"one"), ("b", b"two"))}
    for name, content in names.items():
        (tmp_path / name).write_bytes(content)
    manifest = open_manifest(tmp_path / "m", SETTINGS, {})
    sums = write_checksums(tmp_path, {name: sha256(tmp_path / name) for name in names})
    write_manifest(tmp_path, manifest | {"checksums": sums})
    assert verify_checksums(tmp_path) == []
    (store / "a").write_bytes(b"on")
    (store / "b").unlink()
    (store / "c").write_bytes(b"three")
    faults = verify_checksums(tmp_path)
    assert len(faults) == 3
    assert "forecast.zarr/a was changed or truncated" in faults[0]
    assert "forecast.zarr/b is missing" in faults[1]
    assert "forecast.zarr/c was added" in faults[2]
    (tmp_path / "checksums.sha256").write_text("")
    assert "was changed" in verify_checksums(tmp_path)[0]


@pytest.mark.parametrize(
    ("faults", "pairs", "expected"), [([], 4, "verified"), ([], 3, "unverified"), (["q: NaN"], 4, "failed")]
)
def test_verdicts(faults, pairs, expected):
    judged, reasons = verdict(faults, pairs, 4)
    assert judged == expected
    assert bool(reasons) == (expected != "verified")


def test_a_part_counts_only_while_it_and_its_files_are_whole(tmp_path):
    (tmp_path / "chunk").write_bytes(b"content")
    parts = BatchRecords(tmp_path)
    assert parts.read(0) is None
    parts.write(0, {"sum": np.arange(3.0)}, {"chunk": sha256(tmp_path / "chunk")})
    arrays, checksums = parts.read(0)
    assert (arrays["sum"] == np.arange(3.0)).all()
    assert list(checksums) == ["chunk"]
    (tmp_path / "chunk").write_bytes(b"conten")
    assert parts.read(0) is None
    (tmp_path / "chunk").write_bytes(b"content")
    whole = next(parts.folder.glob("*.npz")).read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        next(parts.folder.glob("*.npz")).write_bytes(whole[:length])
        assert parts.read(0) is None
    next(parts.folder.glob("*.npz")).write_bytes(whole)
    (tmp_path / "chunk").unlink()
    assert parts.read(0) is None
