"""Whose fault a failure is, as two or three deployments tell: the law alone, without a gateway."""

import pytest

from gateway.http.errors import (
    BodyTooLarge,
    ClientDisconnected,
    EngineFailed,
    InvalidRequest,
    ModelNotFound,
    ProtocolViolated,
    RateLimited,
    Unavailable,
    UpstreamConnectError,
    UpstreamIdleTimeout,
    UpstreamReset,
)
from gateway.proxy.verdict import agreed, is_engines

A, B, C = object(), object(), object()

# name: what failed where, and what two deployments agreed in
TRIES: dict[str, tuple[list[tuple[object, BaseException | None]], type[BaseException] | None]] = {
    "nothing yet": ([], None),
    "one": ([(A, EngineFailed("x"))], None),
    "one, twice": ([(A, EngineFailed("x")), (A, EngineFailed("x"))], None),
    "two alike": ([(A, EngineFailed("x")), (B, EngineFailed("y"))], EngineFailed),
    "two unlike": ([(A, EngineFailed("x")), (B, ProtocolViolated("x"))], None),
    "two alike around another": ([(A, EngineFailed("x")), (B, Unavailable("x")), (C, EngineFailed("x"))], EngineFailed),
    "one at work still": ([(A, EngineFailed("x")), (B, None)], None),
    "two refuse": ([(A, BodyTooLarge("x")), (B, BodyTooLarge("x"))], BodyTooLarge),
    "two have no room": ([(A, Unavailable("x")), (B, Unavailable("x"))], None),
    "two have a limit": ([(A, RateLimited("x")), (B, RateLimited("x"))], None),
    "two do not have the model": ([(A, ModelNotFound("x")), (B, ModelNotFound("x"))], None),
    "two reset": ([(A, UpstreamReset("x")), (B, UpstreamReset("x"))], None),
    "two are silent": ([(A, UpstreamIdleTimeout("x")), (B, UpstreamIdleTimeout("x"))], None),
    "two cannot be reached": ([(A, UpstreamConnectError("x")), (B, UpstreamConnectError("x"))], None),
    "the client left": ([(A, ClientDisconnected()), (B, ClientDisconnected())], None),
    "a fault of the gateway's": ([(A, ValueError("x")), (B, ValueError("x"))], None),
}


@pytest.mark.parametrize("name", TRIES)
def test_what_two_deployments_answer_alike_is_agreed_and_nothing_else(name: str) -> None:
    tries, alike = TRIES[name]
    assert agreed(tries) is alike


@pytest.mark.parametrize(
    ("failure", "alike", "others", "counts"),
    [
        (EngineFailed("x"), None, True, True),  # another did it, or failed otherwise
        (EngineFailed("x"), EngineFailed, True, False),  # another failed alike
        (ProtocolViolated("x"), EngineFailed, True, True),  # two others did, and this one failed otherwise
        (EngineFailed("x"), InvalidRequest, True, True),
        (EngineFailed("x"), None, False, False),  # nobody to compare with
    ],
)
def test_an_engine_is_blamed_for_what_it_alone_fails_at(
    failure: BaseException, alike: type[BaseException] | None, others: bool, counts: bool
) -> None:
    assert is_engines(failure, alike, others) is counts
