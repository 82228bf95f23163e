"""A request to an engine as it is on the wire (RFC 9112, 3)."""

import re
from collections.abc import Mapping
from urllib.parse import quote

from gateway.config.base_url import path_below
from gateway.http.errors import InvalidRequest
from gateway.upstream.address import Address

KEPT_TARGETS = 256
RESERVED = "%/:?@!$&'()*+,;=~[]"  # what has a meaning in a path or a query, or has been quoted already
JSON = "application/json"

_stray_percent = re.compile(r"%(?![0-9A-Fa-f]{2})")
_unfit = re.compile(r"[^\t\x20-\x7e\x80-\xff]").search


class RequestWriter:
    """Writes the heads of requests to one engine. `engine` is its dialect; `api_key` goes with each request."""

    def __init__(self, address: Address, engine: str, api_key: str) -> None:
        self._base = address.base
        self._engine = engine
        self._constant = f"host: {address.host_header}\r\n"
        if api_key:
            self._constant += f"authorization: Bearer {fit(api_key)}\r\n"
        self._targets: dict[str, str] = {}

    def head(self, method: str, path: str, headers: Mapping[str, str], length: int | None) -> bytes:
        """Return the head of a request. `headers` have their names in lower case; JSON is the type unless one is given.

        `length`: of the body, in bytes; None if there is none. Raises InvalidRequest for a header that cannot be sent.
        """
        lines = [f"{method} {self.target(path)} HTTP/1.1\r\n{self._constant}"]
        lines += [f"{name}: {fit(value)}\r\n" for name, value in headers.items()]
        if "content-type" not in headers:
            lines.append(f"content-type: {JSON}\r\n")
        if length is not None:
            lines.append(f"content-length: {length}\r\n")
        lines.append("\r\n")
        return "".join(lines).encode("latin-1")

    def target(self, path: str) -> str:
        """Return how a path with its query is asked for; kept, as quoting costs each request."""
        if path not in self._targets:
            if len(self._targets) >= KEPT_TARGETS:  # clients' ids and queries would never end
                self._targets.clear()
            quoted = quote(self._base + path_below(path, self._engine), safe=RESERVED)
            self._targets[path] = _stray_percent.sub("%25", quoted)
        return self._targets[path]


def fit(value: str) -> str:
    """Return a header's value. Raises InvalidRequest if it would end the header, or cannot be written."""
    if _unfit(value):
        raise InvalidRequest("A header has characters that HTTP cannot hold.")
    return value
