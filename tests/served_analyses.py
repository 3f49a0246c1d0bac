"""Analyses in GRIB as weather services publish them, made with ecCodes and served on this machine."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar


class Server(http.server.BaseHTTPRequestHandler):
    """Answer with byte ranges of files, and count what is sent."""

    files: ClassVar[dict[str, bytes]] = {}
    sent: ClassVar[list[int]] = []
    asked: ClassVar[list[dict]] = []

    def log_message(self, *_):
        """Say nothing."""

    def do_GET(self):
        content = self.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        if isinstance(content, dict):
            self.answer(content)
            return
        first, _, last = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        part = content if not first else content[int(first) : int(last) + 1 if last else None]
        self.sent.append(len(part))
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def do_HEAD(self):
        """Tell the size of a file."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.files[self.path])))
        self.end_headers()

    def do_POST(self):
        """Take a request as the Climate Data Store does, which is done at once."""
        inputs = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["inputs"]
        dataset = self.path.split("/")[-2]
        self.asked.append({"dataset": dataset, "key": self.headers["PRIVATE-TOKEN"], **inputs})
        self.answer({"links": [{"rel": "monitor", "href": self.address(f"/api/retrieve/v1/jobs/{dataset}")}]})

    def address(self, path):
        return f"http://{self.headers['Host']}{path}"

    def answer(self, content):
        """Send JSON, in which @ stands for this server."""
        text = json.dumps(content).replace("@", self.address("")).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def message(short_name, level, time, latitude, longitude, values, member=None, edition=2):
    """A field as services publish them: GRIB on latitudes and longitudes, from north to south."""
    import eccodes

    handle = eccodes.codes_grib_new_from_samples(f"GRIB{edition}")
    date = time.item()
    of_member = {"productDefinitionTemplateNumber": 1, "numberOfForecastsInEnsemble": 31, "perturbationNumber": member}
    keys = {
        **({"tablesVersion": 32} if edition == 2 else {}),
        "centre": "ecmf" if member is None else "kwbc", **({} if member is None else of_member),
        "gridType": "regular_ll", "Ni": longitude.size, "Nj": latitude.size,
        "latitudeOfFirstGridPointInDegrees": latitude[0], "latitudeOfLastGridPointInDegrees": latitude[-1],
        "longitudeOfFirstGridPointInDegrees": longitude[0], "longitudeOfLastGridPointInDegrees": longitude[-1],
        "iDirectionIncrementInDegrees": longitude[1] - longitude[0],
        "jDirectionIncrementInDegrees": latitude[0] - latitude[1],
        "dataDate": int(f"{date:%Y%m%d}"), "dataTime": 100 * date.hour, "step": 0,
        "shortName": short_name, "bitsPerValue": 16,
        **({"typeOfLevel": "isobaricInhPa", "level": level} if level else {}),
        **({"typeOfLevel": "surface"} if edition == 1 and not level else {}),
    }  # fmt: skip
    for key, value in keys.items():
        eccodes.codes_set(handle, key, value)
    eccodes.codes_set_values(handle, values.ravel().astype(float))
    content = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    return content


def ecmwf_row(name, level, start, length):
    """A row of the index beside a file of ECMWF's open data."""
    level_keys = {"levtype": "pl", "levelist": str(level)} if level else {"levtype": "sfc"}
    return json.dumps({"param": name, **level_keys, "_offset": start, "_length": length})


@contextmanager
def serving() -> Iterator[str]:
    """Serve `Server.files`, of which there are none at first; the address."""
    Server.files, Server.sent, Server.asked = {}, [], []
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{served.server_port}"
    finally:
        served.shutdown()
        served.server_close()
