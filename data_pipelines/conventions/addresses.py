"""Show addresses of data without the passwords, tokens and signatures that they hold."""

from __future__ import annotations

import re

HIDDEN = "***"
_USER = re.compile(r"(?<=://)[^/@\s]+@")
_QUERY = re.compile(
    r"([?&](?:[\w-]*(?:token|key|sig|signature|secret|password|passwd|credential|auth)[\w-]*)=)[^&\s'\"]+", re.I
)


def masked_address(text: str) -> str:
    """Replace user and password, and secrets of a query, by `***` in an address, or in a text with addresses."""
    return _QUERY.sub(rf"\1{HIDDEN}", _USER.sub(f"{HIDDEN}@", text))
