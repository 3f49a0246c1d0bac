"""Fetch single fields out of GRIB files on a server, by an index of their bytes.

Weather services publish beside each file an index of its messages: ECMWF as lines of JSON with offset and length, NOAA
as lines `number:offset:d=date:PARAMETER:level:step:` in which a message ends where the next begins. The messages that
are needed are fetched by byte range, neighbours together, and written to a file that is whole or not there.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from data_pipelines.files.atomic import atomic_file

TIMEOUT = 60.0  # seconds
GAP = 2**16  # bytes between two messages that are fetched with them in one range


@dataclass(frozen=True)
class Message:
    """Locate one field. name: its parameter and level as the index writes them. stop: None, to the end of the file."""

    name: tuple[str, str]
    start: int
    stop: int | None


def ecmwf_index(text: str) -> list[Message]:
    """Read an index of ECMWF's open data; a name is parameter and pressure level, empty at the surface."""
    rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    return [
        Message(
            (str(row["param"]), str(row["levelist"]) if row["levtype"] == "pl" else ""),
            int(row["_offset"]),
            int(row["_offset"]) + int(row["_length"]),
        )
        for row in rows
        if row["levtype"] in ("pl", "sfc")
    ]


def noaa_index(text: str) -> list[Message]:
    """Read an index of NOAA; a name is parameter and level in its words, such as TMP and `500 mb`."""
    rows = [line.split(":") for line in text.splitlines() if line.strip()]
    starts = sorted({int(row[1]) for row in rows})
    stops = dict(pairwise(starts))
    return [Message((row[3], row[4]), int(row[1]), stops.get(int(row[1]))) for row in rows]


def text_at(address: str) -> str | None:
    """Return the text at an address; None where there is nothing. OSError where it cannot be reached."""
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT) as answer:
            content: bytes = answer.read()
            return content.decode()
    except urllib.error.HTTPError as error:
        if error.code in (403, 404):
            return None
        raise OSError(f"Could not read {address} ({error}).") from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as error:
        raise OSError(f"Could not reach {address} ({error}).") from error


def chosen_messages(
    indices: Mapping[str, Iterable[Message]], names: Sequence[tuple[str, str]]
) -> dict[str, list[Message]]:
    """Return the messages of these names by the file that has them, the first of several; in the order of the files.

    indices: of each file, by its address. ValueError that lists the fields that all of them lack.
    """
    absent, messages = list(names), dict[str, list[Message]]()
    for address, index in indices.items():
        by_name = {message.name: message for message in index}
        matches = [by_name[name] for name in absent if name in by_name]
        absent = [name for name in absent if name not in by_name]
        if matches:
            messages[address] = sorted(matches, key=lambda message: message.start)
    if absent:
        refuse_absent([" ".join(filter(None, name)) for name in absent], " and ".join(indices))
    return messages


def refuse_absent(names: Sequence[str], origin: str) -> None:
    """Raise ValueError that lists fields which a service does not have."""
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    raise ValueError(f"{origin} has no {', '.join(names[:8])}{more}; leave them out: data.fields, data.levels.")


def fetch_messages(
    parts: Sequence[tuple[str, Sequence[Message]]], path: Path, report: Callable[[str, float], None]
) -> None:
    """Write messages of files, by their addresses, to one at `path`.

    OSError where what comes is not what an index says.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    pieces = [(address, *piece) for address, messages in parts for piece in joined(messages)]
    with atomic_file(path) as unfinished, open(unfinished, "wb") as file:
        for number, (address, first, stop, inside) in enumerate(pieces, start=1):
            content = _range(address, first, stop)
            for message in inside:
                end = None if message.stop is None else message.stop - first
                field = content[message.start - first : end]
                if field[:4] != b"GRIB" or field[-4:] != b"7777" or int.from_bytes(field[8:16], "big") != len(field):
                    raise OSError(
                        f"{address}: expected the GRIB message {' '.join(message.name).strip()} at byte "
                        f"{message.start}; got something else. The file may be in the making: try again."
                    )
                file.write(field)
            report(f"{number} of {len(pieces)} pieces", number / len(pieces))


def joined(messages: Sequence[Message]) -> list[tuple[int, int | None, list[Message]]]:
    """Return byte ranges that hold messages in ascending order, neighbours together: (first, stop, messages)."""
    ranges: list[tuple[int, int | None, list[Message]]] = []
    for message in messages:
        if ranges and ranges[-1][1] is not None and message.start - ranges[-1][1] <= GAP:
            first, _, inside = ranges.pop()
            ranges.append((first, message.stop, [*inside, message]))
        else:
            ranges.append((message.start, message.stop, [message]))
    return ranges


def _range(address: str, first: int, stop: int | None) -> bytes:
    last = "" if stop is None else str(stop - 1)
    request = urllib.request.Request(address, headers={"Range": f"bytes={first}-{last}"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            content: bytes = answer.read()
            if answer.status != 206:
                raise OSError(f"{address} sends whole files alone (status {answer.status}); expected byte ranges.")
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as error:
        raise OSError(f"Could not fetch bytes {first} to {last or 'the end'} of {address} ({error}).") from error
    if stop is not None and len(content) != stop - first:
        raise OSError(f"{address}: expected {stop - first:,} bytes from {first} on; got {len(content):,}.")
    return content
