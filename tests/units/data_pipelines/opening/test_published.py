"""Published weights from a server on this machine: whole, the same again, and data alone."""

import http.server
import json
import pickle
import re
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import yaml

from data_pipelines.batches.seen import seen_of_published
from data_pipelines.files.atomic import sha256
from data_pipelines.opening.published import card_of, entry_of, fetched, published_weights
from data_pipelines.options.folders import options_of
from emul.main import main
from emulators.grids.catalogue import named_grid

COMMIT = "0" * 40


class Served(http.server.BaseHTTPRequestHandler):
    """Answer for files under /files/ as a web server, under /owner/repository/resolve/ as the hub does."""

    files: ClassVar[dict[str, bytes]] = {}
    cut: ClassVar[int] = 0

    def log_message(self, *_):
        """Say nothing."""

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, with_body):
        content = self.files.get(self.path.rpartition("/")[2])
        if content is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", '"abc"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if with_body:
            self.wfile.write(content[: len(content) - self.cut])


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The address of a server with the files of `Served.files`."""
    torch.save({"state_dict": {"head.weight": torch.arange(6.0).reshape(2, 3)}}, tmp_path / "good.ckpt")
    (tmp_path / "bad.ckpt").write_bytes(pickle.dumps(print))
    Served.files = {name: (tmp_path / name).read_bytes() for name in ("good.ckpt", "bad.ckpt")}
    Served.cut = 0
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Served)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{served.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield address
    served.shutdown()
    served.server_close()


@pytest.fixture
def table(server, tmp_path):
    rows = {
        name: {"model": "unet", "source": f"{server}/files/{name}.ckpt", "train": [["1979", "2017"]], "licence": "MIT"}
        for name in ("good", "bad", "absent")
    }
    rows["on_the_hub"] = {"model": "unet", "source": "hf://owner/repository/good.ckpt"}
    path = tmp_path / "table.yaml"
    path.write_text(yaml.safe_dump(rows))
    return path


def test_the_table_that_ships_is_sound():
    entries = published_weights()
    assert len(entries) >= 9
    for name, entry in entries.items():
        assert entry.model in options_of("model"), name
        assert entry.source.startswith(("hf://", "https://")), name
        assert " " not in entry.address
        if entry.grid and " " not in entry.grid:
            named_grid(entry.grid)
        assert all(len(period) == 2 for period in [*(entry.train or []), *(entry.validation or [])]), name
        assert entry.citation, name
        assert entry.bytes is None or entry.bytes > 1e8, name
        assert entry.sha256 is None or re.fullmatch("[0-9a-f]{64}", entry.sha256), name


def test_a_file_is_fetched_once_and_described(table, tmp_path):
    path = fetched(entry_of("good", table))
    assert path == tmp_path / "cache" / "emul" / "weights" / "good" / "good.ckpt"
    assert path.read_bytes() == Served.files["good.ckpt"]
    card = card_of(path)
    assert (card["sha256"], card["bytes"], card["licence"]) == (sha256(path), path.stat().st_size, "MIT")
    Served.files = {}
    assert fetched(entry_of("good", table)) == path
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"good: expected sha256 .* another file, or damaged"):
        fetched(entry_of("good", table))


def test_what_runs_code_is_not_kept(table, tmp_path):
    with pytest.raises(ValueError, match=r"bad of http.* is not kept: .* cannot be loaded as tensors"):
        fetched(entry_of("bad", table))
    assert list((tmp_path / "cache" / "emul" / "weights" / "bad").iterdir()) == []


def test_what_is_absent_cut_or_another_is_not_kept(table, tmp_path):
    with pytest.raises(OSError, match=r"Could not fetch absent from .*404"):
        fetched(entry_of("absent", table))
    rows = yaml.safe_load(table.read_text())
    rows["good"] |= {"sha256": "0" * 64}
    table.write_text(yaml.safe_dump(rows))
    with pytest.raises(ValueError, match="good: expected sha256 0000"):
        fetched(entry_of("good", table))
    rows["good"] |= {"bytes": 7}
    table.write_text(yaml.safe_dump(rows))
    with pytest.raises(ValueError, match="good: expected 7 bytes"):
        fetched(entry_of("good", table))
    Served.cut = 10
    with pytest.raises(OSError, match=r"ended after|Could not fetch"):
        fetched(entry_of("good", table))
    assert not list((tmp_path / "cache").rglob("*.ckpt"))


@pytest.mark.parametrize("client", ["huggingface_hub", "none"])
def test_the_hub_with_its_client_and_without(table, client, monkeypatch):
    if client == "none":
        monkeypatch.setattr("data_pipelines.opening.published.find_spec", lambda name: None)
    elif find_spec(client) is None:
        pytest.skip(f"no {client}")
    path = fetched(entry_of("on_the_hub", table))
    assert path.read_bytes() == Served.files["good.ckpt"]
    assert [file.name for file in path.parent.iterdir() if file.is_dir()] == []


def test_the_verb(table, tmp_path, capsys):
    rows = yaml.safe_load(table.read_text())
    table.write_text(yaml.safe_dump({**rows, "large": rows["good"] | {"bytes": 5_025_579_446}}))
    assert main(["weights", "list", f"table={table}"]) == 0
    listed = {line.split()[0]: line.split()[2:] for line in capsys.readouterr().out.splitlines() if line.split()}
    assert listed["good"] == ["1979-2017", "not", "stated", "MIT"]
    assert listed["large"] == ["1979-2017", "5.03", "GB", "MIT"]
    assert main(["weights", "get", "good", f"table={table}", f"to={tmp_path / 'here'}"]) == 0
    assert f"emul train model=unet from_checkpoint={tmp_path / 'here' / 'good.ckpt'}" in capsys.readouterr().out
    assert json.loads((tmp_path / "here" / "good.ckpt.card.json").read_text())["name"] == "good"
    assert main(["weights", "show", "stormer_1p40625_patch_2"]) == 0
    said = capsys.readouterr().out
    assert "arXiv 2312.03876" in said
    assert "not stated" in said
    assert main(["weights", "show", "stormer"]) == 2
    assert "There are no published weights 'stormer'" in capsys.readouterr().err
    assert main(["weights", "fetch"]) == 2
    table.write_text("good: 3")
    assert main(["weights", "list", f"table={table}"]) == 2
    assert "Expected entries with model, source" in capsys.readouterr().err


def test_the_dates_of_an_entry_are_those_a_run_has_seen(table):
    seen = seen_of_published(card_of(fetched(entry_of("good", table))), "good.ckpt")
    assert (seen.train, seen.unknown) == ((("1979", "2017"),), ())
    assert seen_of_published(card_of(fetched(entry_of("on_the_hub", table))), "good.ckpt").unknown == ("good.ckpt",)
    assert seen_of_published(None, str(Path("a", "b.pt"))).unknown == ("b.pt",)
