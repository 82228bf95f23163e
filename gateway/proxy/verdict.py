"""Whose fault a failure is: the engine's or the request's.

An engine that answers with a failure has failed, or was asked for what breaks any of them, such as an image that cannot
be read. Which of both, only another deployment can tell: so the verdict waits for the next attempt's end. What two
deployments answer alike is the request's. Where no other can be asked it is not known, and taken for the request's,
too. `Breaker.record_excused` sees to it that an engine that fails at everything is found out all the same. A failed
connection and silence need no verdict: they are the engine's. Nothing here acts: see `attempts.settle`.
"""

from collections.abc import Hashable, Iterable

from gateway.http.errors import Blame, blame

Try = tuple[Hashable, BaseException | None]  # a deployment, and what an attempt there failed of


def agreed(tries: Iterable[Try]) -> type[BaseException] | None:
    """Return the class of failure that two deployments answered alike, or None if there is none such."""
    seen: dict[type[BaseException], Hashable] = {}
    for deployment, failure in tries:
        if failure is None or blame(failure) not in (Blame.REQUEST, Blame.ANSWER):
            continue
        if seen.setdefault(type(failure), deployment) is not deployment:
            return type(failure)
    return None


def is_engines(failure: BaseException | None, alike: type[BaseException] | None, others: bool) -> bool:
    """Whether a failure that an engine answered with is held against it.

    `alike` is what two deployments agreed in; `others` says whether there was another to compare with.
    """
    return others and (alike is None or type(failure) is not alike)
