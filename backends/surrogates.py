r"""Halves of UTF-16 pairs in JSON, such as `"\ud83d"`: no characters of their own (RFC 8259, section 8.2). Pure.

msgspec refuses them, as UTF-8 does; the standard library's `json` reads them, and so do the SDKs.
"""

import json
import re
from typing import Any

_LONE = re.compile("[\ud800-\udfff]")
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def replaced(value: Any) -> Any:
    """Return decoded JSON with U+FFFD for each half that stands alone; halves that belong together are joined."""
    if isinstance(value, str):
        return _well_formed(value) if _LONE.search(value) else value
    if isinstance(value, list):
        return [replaced(item) for item in value]
    if isinstance(value, dict):
        return {replaced(name): replaced(item) for name, item in value.items()}
    return value


def _well_formed(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def find_lone(body: bytes) -> tuple[str, str] | None:
    r"""Return the first half that stands alone in a JSON text, as `\ud83d`, and where; None if there is none.

    Where is a path, as in `messages[0].content`; it is empty if the text is no JSON otherwise.
    """
    if b"\\ud" not in body and b"\\uD" not in body:
        return None
    half = next((found["lone"] for found in _ESCAPE.finditer(body) if found["lone"]), None)
    return None if half is None else ("\\" + half.decode(), _place(body))


def _place(body: bytes) -> str:
    try:
        return (_path(json.loads(body)) or "").removeprefix(".")
    except (ValueError, RecursionError):
        return ""


def _path(value: Any) -> str | None:
    """Return the path of the first text with a half that stands alone; None if there is none."""
    if isinstance(value, str):
        return "" if _LONE.search(value) else None
    steps: list[tuple[str, Any]] = []
    if isinstance(value, dict):
        steps = [(f".{_well_formed(name)}", item) for name, item in value.items()]
    elif isinstance(value, list):
        steps = [(f"[{place}]", item) for place, item in enumerate(value)]
    return next((step + below for step, item in steps if (below := _path(item)) is not None), None)
