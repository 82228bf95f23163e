"""The engines' dialects: pure translation between OpenAI's API and each engine's wire format (`CONTRACT.md`).

Rule: nothing here (`sim/` apart) waits, opens a socket, reads a clock or the environment, or imports more than
the standard library and msgspec. Bytes in, events out (`tests/test_layering.py` checks it).
"""

from backends.base import Backend
from backends.openai import OpenAI
from backends.tgi import TGI
from backends.vllm import VLLM

BACKENDS: dict[str, Backend] = {
    "vllm": VLLM(),
    "tgi": TGI(),
    "openai": OpenAI(),
}
