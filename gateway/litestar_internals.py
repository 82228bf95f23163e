"""What the gateway overrides in Litestar, and the public way for where it is not as expected.

Written for Litestar 2.24 and 2.25: for each request its router calls `resolve_exception_handlers()` of the route's
handler, which takes no arguments and collects the same handlers anew, although its docstring says that it does so
once. Where there is no such method, or it takes arguments, a warning says so and Litestar's own class is used: the
answers are the same, and each request takes some microseconds more.
"""

import inspect
import logging
from typing import Any

from litestar.handlers import ASGIRouteHandler
from litestar.types import ExceptionHandlersMap

log = logging.getLogger("pointsman")


class CachingRoute(ASGIRouteHandler):
    """A route that looks for its exception handlers once."""

    _found: "ExceptionHandlersMap | None" = None

    def resolve_exception_handlers(self) -> ExceptionHandlersMap:
        """Return them."""
        if self._found is None:
            self._found = super().resolve_exception_handlers()
        return self._found


def route_class(base: Any = ASGIRouteHandler) -> type[ASGIRouteHandler]:
    """Return the class of routes: `CachingRoute` if Litestar is as expected, else Litestar's own, and log why."""
    fault = route_fault(base)
    if not fault:
        return CachingRoute
    log.warning("litestar is not as expected (%s): each request takes a little more CPU time", fault)
    return ASGIRouteHandler


def route_fault(base: Any) -> str:
    """Return what is not as `CachingRoute` expects it, or nothing."""
    method = getattr(base, "resolve_exception_handlers", None)
    if not inspect.isfunction(method):
        return "ASGIRouteHandler has no method resolve_exception_handlers"
    if list(inspect.signature(method).parameters) != ["self"]:
        return "ASGIRouteHandler.resolve_exception_handlers takes arguments"
    return ""
