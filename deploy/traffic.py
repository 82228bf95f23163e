"""Some traffic for the demo's dashboards, until it is stopped: python traffic.py http://127.0.0.1:8080 demo-model.

Streamed and whole chats, some of them pinned to an engine, some asked before, some wrong; a few at a time.
"""

import json
import random
import sys
import time
from threading import Thread
from urllib.error import URLError
from urllib.request import Request, urlopen

SUBJECTS = ("continuous batching", "paged attention", "prefix caching", "speculative decoding", "tensor parallelism")
PINS = ("", "", "", "vllm", "tgi")
CLIENTS = 4
PAUSE = 0.5  # seconds at most, between two requests of a client


def main() -> None:
    """Run the clients."""
    url, model = sys.argv[1:]
    for number in range(CLIENTS):
        Thread(target=client, args=(url, model, random.Random(number)), daemon=True).start()
    while True:
        time.sleep(3600)


def client(url: str, model: str, chance: random.Random) -> None:
    """Ask one question after the other; a gateway that is away or refuses is asked again all the same."""
    while True:
        try:
            with urlopen(question(url, model, chance), timeout=60) as answer:
                answer.read()
        except (URLError, ConnectionError, TimeoutError):
            pass
        time.sleep(chance.uniform(0, PAUSE))


def question(url: str, model: str, chance: random.Random) -> Request:
    """Return a request: one in fifty is a mistake, one in two has a temperature of 0 and may come from the cache."""
    asked = {
        "model": model,
        "messages": [{"role": "user", "content": f"Explain {chance.choice(SUBJECTS)}."}],
        "max_tokens": chance.randint(10, 120),
        "temperature": 3 if chance.random() < 0.02 else chance.choice((0, 0.7)),
        "stream": chance.random() < 0.8,
    }
    headers = {"content-type": "application/json"}
    if pin := chance.choice(PINS):
        headers["x-pointsman-engine"] = pin
    return Request(f"{url}/v1/chat/completions", json.dumps(asked).encode(), headers)


if __name__ == "__main__":
    main()
