"""A file of requests in OpenAI's batch format: `python -m loadtests.gpu.make_batch 2000 > batch.jsonl`."""

import argparse
import json
from random import Random

from loadtests.latency import TEXT
from loadtests.throughput import body


def main() -> None:
    """Print so many requests, no two alike."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("requests", type=int)
    parser.add_argument("--model", default="bench")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--prompt-words", type=int, default=128)
    options = parser.parse_args()
    options.stream, options.extra = False, '{"ignore_eos": true}'
    random = Random(len(TEXT))
    for number in range(options.requests):
        line = {"custom_id": str(number), "method": "POST", "url": "/v1/chat/completions"}
        print(json.dumps(line | {"body": body(options, random)}))


if __name__ == "__main__":
    main()
