"""What all clients ask. Every client's script gets this as JSON, and the address of the gateway, on its stdin."""

from typing import Any

MODEL = "live"
CONTEXT = 1024  # of the engines, in tokens
PROMPT = "import os\n\ndef main():\n"
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Ünïcödé 你好 🚂: light in the hall, please."},
]
SCHEMA: dict[str, Any] = {  # only what ends by itself: a model of random weights would fill a string to the limit
    "type": "object",
    "properties": {"on": {"type": "boolean"}, "room": {"type": "string", "enum": ["kitchen", "hall"]}},
    "required": ["on", "room"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {"name": "set_light", "description": "Switch a light.", "strict": True, "parameters": SCHEMA},
}
ASKED: dict[str, Any] = {
    "model": MODEL,
    "messages": MESSAGES,
    "prompt": PROMPT,
    "max_tokens": 40,
    "too_long": "hello " * 1500,
    "schema": SCHEMA,
    "tool": TOOL,
    "seeds": list(range(6)),
}
