"""What each error class says of itself: the one classification that breaker, retries, metrics and surfaces read."""

import asyncio
from typing import get_args

import pytest

from gateway.api.tgi.errors import render
from gateway.http import errors
from gateway.http.errors import (
    Blame,
    BodyTooLarge,
    ClientDisconnected,
    Conflict,
    CredentialsRefused,
    EngineFailed,
    EngineTimeout,
    Internal,
    InvalidRequest,
    ModelFailed,
    ModelNotFound,
    NotFound,
    NotImplementedByEngine,
    Outcome,
    PaymentRequired,
    PointsmanError,
    ProtocolViolated,
    RateLimited,
    Retry,
    ShuttingDown,
    Unauthorized,
    Unavailable,
    UnsupportedMedia,
    UpstreamBroken,
    UpstreamConnectError,
    UpstreamIdleTimeout,
    UpstreamReset,
    blame,
    error_type,
    outcome,
    retryable,
)

CLASSES = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, PointsmanError)]

# class: outcome, whether it is worth a retry, whom it blames, the status and error_type of TGI
TABLE: dict[type[PointsmanError], tuple[str, Retry, Blame, int, str]] = {
    InvalidRequest: ("client_error", Retry.NEVER, Blame.REQUEST, 422, "validation"),
    PaymentRequired: ("client_error", Retry.ELSEWHERE, Blame.REQUEST, 402, "invalid_request_error"),
    NotFound: ("client_error", Retry.ELSEWHERE, Blame.REQUEST, 422, "validation"),
    ModelNotFound: ("client_error", Retry.ELSEWHERE, Blame.NOBODY, 422, "validation"),
    Conflict: ("client_error", Retry.ELSEWHERE, Blame.REQUEST, 409, "invalid_request_error"),
    BodyTooLarge: ("client_error", Retry.ELSEWHERE, Blame.REQUEST, 413, ""),
    UnsupportedMedia: ("client_error", Retry.ELSEWHERE, Blame.REQUEST, 415, ""),
    NotImplementedByEngine: ("client_error", Retry.ELSEWHERE, Blame.REQUEST, 501, "invalid_request_error"),
    Unauthorized: ("client_error", Retry.NEVER, Blame.NOBODY, 401, ""),
    RateLimited: ("rate_limited", Retry.ANYWHERE, Blame.NOBODY, 429, "overloaded"),
    Internal: ("internal", Retry.NEVER, Blame.NOBODY, 500, "server_error"),
    EngineFailed: ("engine_error", Retry.ANYWHERE, Blame.ANSWER, 424, "generation"),
    ProtocolViolated: ("engine_error", Retry.ANYWHERE, Blame.ANSWER, 424, "generation"),
    UpstreamBroken: ("engine_error", Retry.ANYWHERE, Blame.CONNECTION, 424, "generation"),
    UpstreamReset: ("engine_error", Retry.ANYWHERE, Blame.CONNECTION, 424, "generation"),
    ModelFailed: ("engine_error", Retry.ELSEWHERE, Blame.REQUEST, 424, "generation"),
    CredentialsRefused: ("engine_error", Retry.ELSEWHERE, Blame.NOBODY, 424, "generation"),
    Unavailable: ("overloaded", Retry.ANYWHERE, Blame.NOBODY, 429, "overloaded"),
    UpstreamConnectError: ("unreachable", Retry.ANYWHERE, Blame.CONNECTION, 429, "overloaded"),
    ShuttingDown: ("aborted", Retry.NEVER, Blame.NOBODY, 429, "overloaded"),
    EngineTimeout: ("timeout", Retry.NEVER, Blame.NOBODY, 424, "generation"),
    UpstreamIdleTimeout: ("timeout", Retry.ELSEWHERE, Blame.CONNECTION, 424, "generation"),
}


@pytest.mark.parametrize("kind", TABLE, ids=lambda kind: kind.__name__)
def test_an_error_says_what_is_made_of_it(kind: type[PointsmanError]) -> None:
    error = kind("It went {wrong}.")
    word, retry, blamed, status, tgi_type = TABLE[kind]
    rendered = render(error)
    assert (outcome(error), retryable(error), blame(error)) == (word, retry, blamed)
    assert (rendered.status, b"error_type" in rendered.body) == (status, bool(tgi_type))
    assert tgi_type.encode() in rendered.body


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_class_has_a_known_outcome_and_an_error_type(kind: type[PointsmanError]) -> None:
    error = kind("x")
    assert outcome(error) in get_args(Outcome)
    assert error_type(error) == (kind.code or kind.type)


@pytest.mark.parametrize(
    ("failure", "word", "kind"),
    [
        (None, "ok", ""),
        (ClientDisconnected(), "client_left", "client_left"),
        (asyncio.CancelledError(), "aborted", "aborted"),
        (ValueError("a bug"), "internal", "internal"),
    ],
)
def test_what_is_no_error_of_ours_has_a_word_too(failure: BaseException | None, word: str, kind: str) -> None:
    assert (outcome(failure), error_type(failure)) == (word, kind)
