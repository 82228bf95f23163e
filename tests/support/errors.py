"""What errors of the gateway have in common: the envelope, checked field by field."""

from typing import Any


def is_error(body: Any, kind: str = "invalid_request_error") -> dict[str, Any]:
    """Return the error of OpenAI's envelope, whose four fields are always there."""
    error: dict[str, Any] = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == kind
    assert error["message"]
    assert "Traceback" not in error["message"]
    return error
