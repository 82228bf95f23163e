"""Which step of `pipeline` applies to which surface.

    step                          OpenAI    passthrough   TGI       sub-request
    key and its limits            yes       yes           yes       of its request
    model, tier, pin, plan        yes       yes           yes       of its request
    cache                         yes       no            not yet   no
    hedging                       yes       not yet       not yet   no
    admission, retries, failover  yes       yes           yes       yes
    circuit breaker, idle timers  yes       yes           yes       yes
    usage                         yes       yes           yes       no
    metrics, log line             yes       yes           yes       no
    spans                         yes       yes           yes       an attempt's

"not yet": it makes sense there, and has not been done. Only what differs is asked of a Surface; the rest is the same
code for all (`tests/gateway/test_surfaces.py` holds this table to it).
"""

from enum import Enum

from msgspec import Struct


class Applies(Enum):
    """Whether a step applies to a surface."""

    YES = "yes"
    NO = "no"
    NOT_YET = "not yet"


class Surface(Struct, frozen=True):
    """One API that clients speak, or what goes on beside their requests.

    `cache`: answers are stored, replayed, and shared by identical requests in flight; `hedging`: a second engine is
    asked where the first is slow to begin; `usage`: tokens are counted, logged and debited.
    """

    cache: Applies
    hedging: Applies
    usage: Applies


OPENAI = Surface(cache=Applies.YES, hedging=Applies.YES, usage=Applies.YES)
PASSTHROUGH = Surface(cache=Applies.NO, hedging=Applies.NOT_YET, usage=Applies.YES)
TGI = Surface(cache=Applies.NOT_YET, hedging=Applies.NOT_YET, usage=Applies.YES)
SUB_REQUEST = Surface(cache=Applies.NO, hedging=Applies.NO, usage=Applies.NO)
