"""Litestar looks for a route's exception handlers once, and where it is another Litestar, as often as it likes."""

from typing import Any

import pytest
from litestar import Litestar, Response
from litestar.handlers import ASGIRouteHandler
from litestar.testing import TestClient

from gateway.litestar_internals import CachingRoute, route_class


class WithoutMethod:
    """The routes of a later Litestar."""


class WithArguments:
    """The routes of another."""

    def resolve_exception_handlers(self, app: object) -> None:
        """Do nothing."""


def test_the_installed_litestar_is_as_expected(caplog: pytest.LogCaptureFixture) -> None:
    assert route_class() is CachingRoute
    assert caplog.records == []


@pytest.mark.parametrize(
    ("base", "fault"),
    [(WithoutMethod, "has no method resolve_exception_handlers"), (WithArguments, "takes arguments")],
)
def test_a_litestar_that_is_not_as_expected_is_used_as_it_is_and_logged_once(
    base: Any, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert route_class(base) is ASGIRouteHandler
    (record,) = caplog.records
    assert fault in record.getMessage()


@pytest.mark.parametrize("route", [CachingRoute, ASGIRouteHandler])
def test_either_class_answers_and_handles_errors_alike(route: type[ASGIRouteHandler]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["query_string"]:
            raise KeyError
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"well"})

    def handled(_: Any, error: Exception) -> Any:
        return Response(type(error).__name__, status_code=418, media_type="text/plain")

    made = Litestar(
        [route("/a", copy_scope=False)(app)],
        exception_handlers={KeyError: handled},
        openapi_config=None,
        logging_config=None,
    )
    with TestClient(made) as client:
        for _ in range(2):
            assert client.get("/a").text == "well"
            assert (client.get("/a?bad").status_code, client.get("/a?bad").text) == (418, "KeyError")


def test_the_handlers_are_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[ASGIRouteHandler] = []
    theirs = ASGIRouteHandler.resolve_exception_handlers

    def counted(self: ASGIRouteHandler) -> Any:
        asked.append(self)
        return theirs(self)

    monkeypatch.setattr(ASGIRouteHandler, "resolve_exception_handlers", counted)
    made = CachingRoute("/a")
    for _ in range(3):
        made.resolve_exception_handlers()
    assert asked == [made]
