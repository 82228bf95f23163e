"""SIMULATORS of inference engines: they speak vLLM's and TGI's wire protocols, and run no model.

Each is a plain ASGI application with its engine's paths, shapes, quirks, error texts and metrics, as recorded from
vLLM 0.32.0 and TGI 3.3.6-dev0 (CONTRACT.md 1 to 6). The text they write is pseudo-words drawn from a hash of
the prompt (`text.py`): the same greedy request gets the same words from both. Every answer carries
`server: pointsman-sim`, so that nobody takes one for an engine.

    read(scope) -> auth -> fault drawn? -> check the body -> permits -> tokens, one sleep each -> the engine's shapes

`engine.py` holds what both do, `vllm*.py` and `tgi*.py` what each does in its own way, `faults.py` how to break them.
"""

from collections.abc import Callable

from backends.sim.engine import Options
from backends.sim.faults import Fault, parse_fault
from backends.sim.http import App
from backends.sim.tgi import Tgi
from backends.sim.vllm import Vllm

__all__ = ["SIMULATORS", "Fault", "Options", "parse_fault"]

SIMULATORS: dict[str, Callable[[Options], App]] = {
    "vllm": lambda options: Vllm(options, other=Tgi),
    "tgi": lambda options: Tgi(options, other=Vllm),
}
