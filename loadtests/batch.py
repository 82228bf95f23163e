"""A file of requests, as fast as a server takes them: `python -m loadtests.batch FILE URL --out ANSWERS`.

The file is in OpenAI's batch format: a JSON object a line with `custom_id`, `url` and `body`; so are the answers
(https://platform.openai.com/docs/guides/batch). Through the gateway send `--extra '{"service_tier": "flex"}'`: then the
file waits wherever somebody else's request does not. An answer that fails is a line with `error`. Prints what it took
as JSON; exit status 1 if any request failed.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterator
from typing import Any, TextIO

import aiohttp
from rich.console import Console
from rich.progress import Progress

from loadtests.asking import session

Line = dict[str, Any]


async def answer(http: aiohttp.ClientSession, url: str, line: Line, extra: Line) -> Line:
    """Send one request of the file; return its line of the answers."""
    told: Line = {"custom_id": line["custom_id"], "response": None, "error": None}
    try:
        async with http.post(f"{url}{line['url']}", json=line["body"] | extra) as got:
            text = await got.text()
            if got.status != 200:
                return told | {"error": {"code": str(got.status), "message": text}}
            return told | {"response": {"status_code": 200, "body": json.loads(text)}}
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        return told | {"error": {"code": type(error).__name__, "message": str(error)}}


async def run(options: argparse.Namespace, lines: list[Line], out: TextIO | None) -> dict[str, Any]:
    """Send all requests, so many at a time; write each answer as it comes, and return the account of it."""
    left = iter(lines)
    count = {"answered": 0, "failed": 0, "tokens": 0}
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("requests", total=len(lines))

        async def work(http: aiohttp.ClientSession, left: Iterator[Line]) -> None:
            for line in left:
                told = await answer(http, options.url, line, json.loads(options.extra))
                count["failed" if told["error"] else "answered"] += 1
                if told["response"]:
                    count["tokens"] += told["response"]["body"]["usage"]["completion_tokens"]
                if out:
                    print(json.dumps(told), file=out)
                progress.advance(task)

        began = time.perf_counter()
        async with session() as http, asyncio.TaskGroup() as group:
            for _ in range(options.in_flight):
                group.create_task(work(http, left))
        seconds = time.perf_counter() - began
    return count | {"seconds": round(seconds, 3), "tokens_per_second": round(count["tokens"] / seconds, 1)}


def main() -> int:
    """Send the file as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=argparse.FileType("r"), help="requests, in OpenAI's batch format")
    parser.add_argument("url", help="of a server: http://127.0.0.1:8080")
    parser.add_argument("--in-flight", type=int, default=256, help="requests at a time")
    parser.add_argument("--extra", default="{}", help='more fields of each request: {"service_tier": "flex"}')
    parser.add_argument("--out", type=argparse.FileType("w"), help="a file for the answers")
    options = parser.parse_args()
    lines = [json.loads(line) for line in options.file if line.strip()]
    result = asyncio.run(run(options, lines, options.out))
    print(json.dumps(result))
    return 1 if result["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
