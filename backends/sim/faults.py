"""How a simulator can be told to misbehave: `NAME[:N][@SHARE]`, as on the command line.

`overload@0.3` refuses three requests of ten, `cut:5` closes the connection after five tokens, `stall` never says the
first one. N counts tokens (for `slow-first`: seconds); 0 is before the first. A fault whose N lies behind the end of
the answer does nothing. Faults strike requests that generate; `unhealthy` strikes `/health` alone.
"""

from random import Random

import msgspec

KINDS = {
    "overload": "the engine's own busy answer",
    "error": "the generation fails after N tokens, in the engine's own way",
    "stall": "nothing more is said after N tokens, the connection stays open",
    "cut": "the connection is closed after N tokens, the answer unfinished",
    "garbage": "a 200 that is not JSON, or after N tokens an event that is not",
    "half-event": "the answer ends in the middle of a JSON value after N tokens",
    "slow-first": "the first token takes N seconds (5 if not said)",
    "html": "502 and an HTML page, as from a proxy in between",
    "wrong-dialect": "the answer comes in the other engine's shapes",
    "run-on": "the model's end is not noticed: the answer goes on to the most tokens",
    "template": "the chat template adds a system prompt that nobody sent",
    "empty-tool": "TGI: the model writes `{ }` where a tool call was wanted",
    "unhealthy": "/health says 503",
}


class Fault(msgspec.Struct, frozen=True):
    """One way to misbehave: of which kind, after how many tokens, for which share of the requests."""

    kind: str
    after: int = 0
    share: float = 1.0


class Broken(Exception):
    """A fault strikes now, in the middle of an answer. The engine decides what that looks like."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


def parse_fault(text: str) -> Fault:
    """Read the form of the command line; ValueError says what was wrong and what there is."""
    head, at, share = text.strip().partition("@")
    kind, colon, after = head.partition(":")
    if kind not in KINDS:
        raise ValueError(f"unknown fault {kind!r}; there are {', '.join(KINDS)}")
    if colon and not after.isdecimal():
        raise ValueError(f"fault {text!r}: {after!r} is not a whole number, as in {kind}:5")
    try:
        fraction = float(share) if at else 1.0
    except ValueError:
        fraction = -1.0
    if not 0 <= fraction <= 1:
        raise ValueError(f"fault {text!r}: the share is a number from 0 to 1, as in {kind}@0.3")
    return Fault(kind, int(after) if colon else 5 if kind == "slow-first" else 0, fraction)


def draw(faults: tuple[Fault, ...], rng: Random) -> Fault | None:
    """The fault that strikes this request: the first whose share is hit."""
    return next((fault for fault in faults if fault.kind != "unhealthy" and rng.random() < fault.share), None)
