"""Reads the recorded exchanges in `cases/<engine>/*.http`: what a real vLLM 0.32.0 and a real TGI said on the wire.

A file is the request's head and body, a line `### RESPONSE`, the response's head and body. Heads are shown with LF;
bodies are as sent, chunked ones joined. Where a file is abridged (the long streams, the payload of 2 MB, the buckets
of `/metrics`), the content-length of its head is the original's and is not checked.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

CASES = Path(__file__).parents[1] / "backends" / "cases"
_MARK = re.compile(rb"\n*\n### RESPONSE[^\n]*\n")
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")


class Recorded(NamedTuple):
    """One exchange. Header names are in lower case; bodies are bytes, the response's without chunk framing."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    status: int
    response_headers: dict[str, str]
    response_body: bytes


def names(engine: str) -> list[str]:
    """The names of all exchanges recorded with `engine`, in order."""
    return sorted(path.stem for path in (CASES / engine).glob("*.http"))


def load(path: Path | str) -> Recorded:
    """Read one file: a path, or `engine/name` (`load("vllm/01_chat_plain")`)."""
    file = path if isinstance(path, Path) else CASES / f"{path}.http"
    request, response = _MARK.split(file.read_bytes(), maxsplit=1)
    first, headers, body = _message(request)
    status, response_headers, response_body = _message(response)
    method, target, _ = first.split(" ", 2)
    if "raw_wire" in file.name:
        response_body = _dechunk(response_body)
    elif "event-stream" in response_headers.get("content-type", ""):
        response_body = response_body.rstrip(b"\n") + b"\n\n"
    else:
        response_body = response_body.removesuffix(b"\n")
    return Recorded(method, target, headers, body, int(status.split(" ")[1]), response_headers, response_body)


def _message(raw: bytes) -> tuple[str, dict[str, str], bytes]:
    """First line, headers and body of one message."""
    head, *rest = _BLANK_LINE.split(raw, maxsplit=1)
    first, *lines = head.decode("latin-1").splitlines()
    pairs = (line.split(":", 1) for line in lines)
    return first, {name.strip().lower(): value.strip() for name, value in pairs}, rest[0] if rest else b""


def _dechunk(raw: bytes) -> bytes:
    """Undo chunked transfer coding, for the files that show it."""
    parts = []
    while raw:
        size, rest = raw.split(b"\r\n", 1)
        length = int(size, 16)
        if not length:
            break
        parts.append(rest[:length])
        raw = rest[length + 2 :]
    return b"".join(parts)
