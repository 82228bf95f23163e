"""Install ahead what tests run in environments of their own: the foreign clients and vLLM. `python -m tests.ahead`

`--no-live` leaves out vLLM, as does `POINTSMAN_LIVE_VLLM`, which names one that already runs. What fails here is told
on stdout and no more: the tests that need it try again, and say why they cannot run.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial

from tests.clients import clients
from tests.clients.clients import Client
from tests.live import vllm_engine


def main() -> None:
    """Make the environments that are not there yet, the slowest first."""
    if "--no-live" not in sys.argv and not os.environ.get("POINTSMAN_LIVE_VLLM"):
        attempt("vLLM", vllm_engine.why_not, vllm_engine.prepare)
    for script in sorted(clients.HERE.glob("*/script.*")):
        client = Client(script.parent.name, ())
        attempt(client.name, partial(clients.why_not, client), partial(clients.prepare, client))


def attempt(name: str, why_not: Callable[[], str | None], prepare: Callable[[], None]) -> None:
    """Make one environment, unless there is a reason not to."""
    try:
        reason = why_not()
        if reason is None:
            prepare()
    except (OSError, subprocess.SubprocessError) as error:
        reason = str(error)
    print(f"{name}: {reason or 'ready'}", flush=True)


if __name__ == "__main__":
    main()
