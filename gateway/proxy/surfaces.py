"""Which step of `pipeline` applies to which surface.

    step                          OpenAI    passthrough   TGI       sub-request
    key and its limits            yes       yes           yes       of its request
    model, tier, pin, plan        yes       yes           yes       of its request
    arm of an experiment          yes       yes           yes       of its request
    shadow                        yes       no            no        no
    cache                         yes       no            no        no
    hedging                       yes       yes           yes       no
    admission, retries, failover  yes       yes           yes       yes
    circuit breaker, idle timers  yes       yes           yes       yes
    usage                         yes       yes           yes       no
    metrics, log line             yes       yes           yes       no
    spans                         yes       yes           yes       an attempt's

The cache holds what the gateway translates, chats and completions. Other answers carry what is of one request alone:
ids by which they are found again (Responses), the engine's own times and seed (TGI). A shadow compares what the gateway
translates, too. Only what differs is asked of a Surface; the rest is the same code for all
(`tests/gateway/test_surfaces.py` holds this table to it).
"""

from msgspec import Struct


class Surface(Struct, frozen=True):
    """One API that clients speak, or what goes on beside their requests.

    `cache`: answers are stored, replayed, and shared by identical requests in flight; `shadow`: an experiment may ask
    the same of both its arms beside; `hedging`: a second engine is asked where the first is slow to begin; `usage`:
    tokens are counted, logged and debited.
    """

    cache: bool
    shadow: bool
    hedging: bool
    usage: bool


OPENAI = Surface(cache=True, shadow=True, hedging=True, usage=True)
PASSTHROUGH = Surface(cache=False, shadow=False, hedging=True, usage=True)
TGI = Surface(cache=False, shadow=False, hedging=True, usage=True)
SUB_REQUEST = Surface(cache=False, shadow=False, hedging=False, usage=False)
