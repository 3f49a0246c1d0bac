"""Weights that others have published: a table of them, fetched once, checked, and never unpickled as code.

A file is fetched whole or not at all. It is kept if it is what the table says (size, sha256), and if it loads as
tensors, numbers and strings alone (`data_pipelines.files.checkpoints.content`). Its card then lies beside it,

    <file>.card.json      the entry of the table, where it came from, its size and sha256

and goes with every run that begins from the file.
"""

from __future__ import annotations

import http.client
import os
import re
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from data_pipelines.conventions.suggestions import suggestion
from data_pipelines.files.atomic import flush_to_disk, sha256
from data_pipelines.files.checkpoints import content
from data_pipelines.files.fingerprints import read_json, write_json

TABLE = Path(__file__).with_name("published_weights.yaml")
PIECE, TIMEOUT = 2**20, 60.0  # bytes, seconds
HUB = re.compile(r"^hf://(?P<repository>[^/]+/[^/]+)/(?P<file>.+)$")
Report = Callable[[str, float], None]


@dataclass(frozen=True)
class PublishedWeights:
    """Describe published weights; what their source does not state is None.

    model: of conf/model. source: hf://<owner>/<repository>/<file>, or an address. train, validation: periods. bytes,
    sha256: of the file. more: what else they need.
    """

    name: str
    model: str
    source: str
    licence: str | None = None
    citation: str | None = None
    train: list[list[str]] | None = None
    validation: list[list[str]] | None = None
    grid: str | None = None
    timestep: str | None = None
    variables: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    more: str | None = None

    @property
    def file_name(self) -> str:
        """The name of the file."""
        return self.source.rpartition("/")[2]

    @property
    def address(self) -> str:
        """Where the file is fetched from without a client of its own."""
        if hub := HUB.match(self.source):
            endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
            return f"{endpoint}/{hub['repository']}/resolve/main/{quote(hub['file'])}"
        scheme, _, rest = self.source.partition("://")
        return f"{scheme}://{quote(rest)}"


def published_weights(table: str | Path | None = None) -> dict[str, PublishedWeights]:
    """Read the table that ships with emul, or another in its form. ValueError where it is not in this form."""
    path = Path(table) if table else TABLE
    rows = yaml.safe_load(path.read_text(encoding="utf-8"))
    field_names = {field.name for field in fields(PublishedWeights)}
    for name, row in rows.items() if isinstance(rows, dict) else [("", None)]:
        if not isinstance(row, dict) or not {"model", "source"} <= row.keys() or not row.keys() < field_names:
            raise ValueError(
                f"Expected entries with model, source and any of {', '.join(sorted(field_names - {'name'}))} in "
                f"{path}; got something else{f' at {name}' if name else ''}."
            )
    return {str(name): PublishedWeights(str(name), **row) for name, row in rows.items()}


def entry_of(name: str, table: str | Path | None = None) -> PublishedWeights:
    """Return an entry by name; ValueError with the nearest name where there is none."""
    entries = published_weights(table)
    if name not in entries:
        raise ValueError(f"There are no published weights '{name}'; {suggestion(name, entries)}")
    return entries[name]


def weights_folder(name: str) -> Path:
    """Return where weights are kept: $XDG_CACHE_HOME/emul/weights/<name>, or below ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "emul" / "weights" / name


def card_path(file: str | Path) -> Path:
    """Return where the card of a file lies."""
    return Path(f"{file}.card.json")


def card_of(file: str | Path | None) -> dict[str, Any] | None:
    """Return the card of a file of published weights; None where none lies beside it."""
    return read_json(card_path(file)) if file is not None and card_path(file).is_file() else None


def fetched(entry: PublishedWeights, folder: Path | None = None, report: Report = lambda text, share: None) -> Path:
    """Fetch the file of an entry, or check the one that is there; its path.

    OSError where it cannot be fetched. ValueError where it is not what the table or its card say, or holds more than
    tensors, numbers and strings; nothing is kept then.
    """
    folder = folder or weights_folder(entry.name)
    path = folder / entry.file_name
    card = card_of(path)
    if path.is_file() and card is not None:
        _refuse_other(entry, path, card["sha256"], report)
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetching-") as temporary:
        unfinished = Path(temporary) / entry.file_name
        _fetch(entry, unfinished, report)
        digest = _refuse_other(entry, unfinished, entry.sha256, report)
        try:
            content(unfinished)
        except ValueError as error:
            raise ValueError(f"{entry.name} of {entry.address} is not kept: {error}") from error
        flush_to_disk(unfinished)
        os.replace(unfinished, path)
    write_json(
        card_path(path), {**asdict(entry), "address": entry.address, "bytes": path.stat().st_size, "sha256": digest}
    )
    return path


def _refuse_other(entry: PublishedWeights, path: Path, digest: str | None, report: Report) -> str:
    """Return the sha256 of a file; ValueError where it or the size is another than expected."""
    size = path.stat().st_size
    if entry.bytes is not None and size != entry.bytes:
        raise ValueError(f"{entry.name}: expected {entry.bytes:,} bytes of {entry.address}; got {size:,}.")
    report("comparing its sha256", 1.0)
    actual = sha256(path)
    if digest is not None and actual != digest:
        raise ValueError(
            f"{entry.name}: expected sha256 {digest} of {path if card_of(path) else entry.address}; got {actual}. It "
            "is another file, or damaged: remove it to fetch it anew."
        )
    return actual


def _fetch(entry: PublishedWeights, unfinished: Path, report: Report) -> None:
    """Write the file of an entry to `unfinished`, by huggingface_hub where it is installed, else over https."""
    hub = HUB.match(entry.source)
    if hub and find_spec("huggingface_hub"):
        _fetch_from_hub(hub["repository"], hub["file"], unfinished)
        return
    if not entry.address.startswith(("https://", "http://")):
        raise ValueError(f"{entry.name}: expected a source hf://... or https://...; got {entry.source}.")
    done = 0
    try:
        with urllib.request.urlopen(entry.address, timeout=TIMEOUT) as answer, open(unfinished, "wb") as file:
            size = int(answer.headers.get("Content-Length") or 0)
            while piece := answer.read(PIECE):
                file.write(piece)
                done += len(piece)
                report(f"{done / 1e6:,.0f} MB", done / size if size else 0.0)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as error:
        raise OSError(
            f"Could not fetch {entry.name} from {entry.address} ({error}); give the command again."
        ) from error
    if size and done != size:
        raise OSError(f"{entry.address} ended after {done:,} of {size:,} bytes; give the command again.")


def _fetch_from_hub(repository: str, name: str, unfinished: Path) -> None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        endpoint = os.environ.get("HF_ENDPOINT")
        downloaded = hf_hub_download(repository, name, local_dir=unfinished.parent / "hub", endpoint=endpoint)
    except (HfHubHTTPError, EntryNotFoundError, LocalEntryNotFoundError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise OSError(f"Could not fetch {name} of {repository} from Hugging Face ({reason}).") from error
    os.replace(downloaded, unfinished)
