"""Step 7c: one deployment after the other, until one answers or nothing is to be gained by asking more.

An attempt holds its place at the deployment until it ends: when it fails, when another has won, or when the request
is over. How it ended is told to the deployment's breaker, once.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from gateway.http.context import NEVER, Attempt, Exchange
from gateway.http.errors import RETRY_AFTER, EngineFailed, EngineSilent, ModelFailed, Unavailable
from gateway.proxy.retry import wait
from gateway.services import Services
from gateway.upstream.connection import Unreachable
from gateway.upstream.models import Offer

T = TypeVar("T")
Ask = Callable[[Attempt], Coroutine[Any, Any, T]]

THE_ENGINES_DOING = (EngineFailed, EngineSilent, Unreachable)

log = logging.getLogger("pointsman")


async def first_good(
    offers: Sequence[Offer], ask: Ask[T], exchange: Exchange, services: Services, patience: float = NEVER
) -> T:
    """Ask the deployments in order; return the first good answer. Raises the last one's PointsmanError.

    `patience` is how long each may be silent, in seconds. Once the client has its 200, whose headers name the engine,
    there is no other.
    """
    services.budget.earn()
    while True:
        attempt = await _begin(offers, exchange, services)
        exchange.patience = patience
        try:
            _check_open(attempt)
            answer = await _asked(attempt, offers, ask, exchange, services)
        except (Exception, asyncio.CancelledError) as error:
            failure = exchange.ended_by(error)
            end(attempt, failure, services)
            pause = _pause(failure, offers, exchange, services)
            if pause is None:
                raise failure from error
        else:
            _settle(exchange.answering or attempt, services)
            return answer
        exchange.answering = exchange.stopped = None
        exchange.patience = NEVER
        if pause:
            await asyncio.sleep(pause)


def end(attempt: Attempt, failure: BaseException | None, services: Services) -> None:
    """Note how an attempt ended, and give its place back; nothing more happens the second time."""
    if attempt.ended:
        return
    now = attempt.ended = services.clock()
    attempt.failure = failure
    target = attempt.offer.target
    if failure is None:
        _note_success(attempt, now)
    elif not isinstance(failure, THE_ENGINES_DOING) or isinstance(failure, ModelFailed):
        target.breaker.undecided(attempt.trial)
    elif target.breaker.failed(attempt.trial, now):
        log.warning("%s is left alone for %.1f s: %s", target.name, target.breaker.opened_until - now, failure)
    services.admission.give_back(attempt.offer)


def finish(exchange: Exchange, services: Services) -> None:
    """Give back all that a request still holds."""
    if exchange.admitted:
        exchange.admitted = False
        for attempt in exchange.attempts:
            end(attempt, exchange.failure, services)
        services.admission.leave()


def _settle(attempt: Attempt, services: Services) -> None:
    """Let a trial decide as soon as there is a good answer, or its beginning: the rest of a stream may take long."""
    if attempt.trial:
        _note_success(attempt, services.clock())
        attempt.trial = False


def _note_success(attempt: Attempt, now: float) -> None:
    target = attempt.offer.target
    if target.breaker.succeeded(attempt.trial, now):
        target.returned(now)


async def _begin(offers: Sequence[Offer], exchange: Exchange, services: Services) -> Attempt:
    new = not exchange.attempts
    if not new:
        offers = _next(offers, exchange, services.clock()) or offers
    offer = await services.admission.take(offers, exchange.tier, new)
    exchange.admitted = True
    return _at(offer, exchange, services)


def _at(offer: Offer, exchange: Exchange, services: Services) -> Attempt:
    now = exchange.heard = services.clock()
    target = offer.target
    if not exchange.attempts:
        exchange.passed("queue", now)
    attempt = Attempt(offer, now, target.breaker.allows(now) and target.begins(now))
    exchange.attempts.append(attempt)
    exchange.answering = attempt
    return attempt


def _left(offers: Sequence[Offer], exchange: Exchange) -> Sequence[Offer]:
    """Return the deployments that have not been asked yet."""
    if not exchange.attempts:
        return offers
    tried = {id(attempt.offer) for attempt in exchange.attempts}
    return [offer for offer in offers if id(offer) not in tried]


def _next(offers: Sequence[Offer], exchange: Exchange, now: float) -> Sequence[Offer]:
    """Return the deployments to be asked next: those that have not been, or all again; none that is left alone."""
    allowed = [offer for offer in offers if offer.target.breaker.allows(now)]
    return _left(allowed, exchange) or allowed


def _check_open(attempt: Attempt) -> None:
    """See that the deployment is not left alone since its place was waited for. Raises Unavailable."""
    target = attempt.offer.target
    if target.breaker.opened_until and not attempt.trial:
        raise Unavailable(f"The engine {target.name} has failed too often.", headers={"retry-after": RETRY_AFTER})


def _pause(failure: BaseException, offers: Sequence[Offer], exchange: Exchange, services: Services) -> float | None:
    """Return how long to wait before the next attempt, or None if there is to be none."""
    over = exchange.stopped is not None and not isinstance(exchange.stopped, EngineSilent)
    following = _next(offers, exchange, services.clock())
    if over or exchange.status or not following:
        return None
    elsewhere = all(attempt.offer is not following[0] for attempt in exchange.attempts)
    rules = services.config.retries
    return wait(failure, len(exchange.attempts), elsewhere, rules, services.budget, services.random)


# --- hedging --------------------------------------------------------------------------------------------------


async def _asked(attempt: Attempt, offers: Sequence[Offer], ask: Ask[T], exchange: Exchange, services: Services) -> T:
    """Ask one deployment; where the model is hedged and it is slow to begin, a second beside it."""
    after = exchange.hedge_after
    if not after or len(offers) == 1:
        return await ask(attempt)
    first = asyncio.create_task(ask(attempt))
    racing = {first: attempt}
    try:
        await asyncio.wait(racing, timeout=after)
        other = None if first.done() or exchange.status else _another(offers, exchange, services)
        if other is not None:
            racing[asyncio.create_task(ask(other))] = other
        return await _winner(racing, exchange, services)
    finally:
        await _stop(racing, exchange, services)


def _another(offers: Sequence[Offer], exchange: Exchange, services: Services) -> Attempt | None:
    """Begin a second attempt, if a deployment has room now and the budget allows it."""
    left = [offer for offer in _left(offers, exchange) if offer.target.ready(services.clock())]
    offer = services.admission.take_now(left)
    if offer is None:
        return None
    if not services.budget.spend():
        services.admission.give_back(offer)
        return None
    attempt = _at(offer, exchange, services)
    exchange.answering = None  # until one has won, nobody's name is told
    return attempt


async def _winner(racing: "dict[asyncio.Task[T], Attempt]", exchange: Exchange, services: Services) -> T:
    """Return the first good answer and forget whose it was; raise what the last one failed of if there is none."""
    while True:
        done, _ = await asyncio.wait(racing, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            attempt = racing[task]
            exchange.answering = attempt
            failure = task.exception()
            if failure is None:
                del racing[task]
                return task.result()
            if len(racing) == 1:
                return task.result()  # raises
            del racing[task]
            end(attempt, failure, services)


async def _stop(racing: "dict[asyncio.Task[Any], Attempt]", exchange: Exchange, services: Services) -> None:
    """End those that have not won; if nobody has, as the request was stopped, that is why."""
    for task in racing:
        task.cancel()
    for task, attempt in list(racing.items()):
        result: Any = (await asyncio.gather(task, return_exceptions=True))[0]
        if hasattr(result, "close"):
            result.close()
        failure = result if isinstance(result, BaseException) else asyncio.CancelledError()
        end(attempt, exchange.stopped or failure, services)
