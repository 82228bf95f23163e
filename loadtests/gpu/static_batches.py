"""Static batches against continuous batching: transformers' `generate` beside a running vLLM, on the same requests.

    python -m loadtests.gpu.static_batches MODEL --vllm http://127.0.0.1:8000 --batch 64 --rate 20 --out FILE

Prompts of 128 random tokens, answers of 16 to 256 tokens, every length as likely; the same of both. First all requests
at once, in batches of --batch (vLLM: as many in flight): useful tokens per second. Then open loop: requests come as a
Poisson process; the static server takes what waits, up to a batch, and all of a batch have their answers when its
longest is done. Useful tokens are those that were asked for: a static batch also computes what its shorter rows throw
away.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers import LlamaForCausalLM

from loadtests.asking import COMPLETIONS, ask, session
from loadtests.open_loop import due_times, percentile

PROMPT = 128  # tokens
ANSWERS = (16, 256)


@dataclass(frozen=True)
class Request:
    """A request: when it is due, in seconds, its prompt's tokens, and how many are to come."""

    due: float
    prompt: list[int]
    tokens: int


def requests(due: Sequence[float], random: Random) -> list[Request]:
    """Return a request for each time."""
    return [Request(at, [random.randrange(100, 40_000) for _ in range(PROMPT)], random.randint(*ANSWERS)) for at in due]


def generate(model: LlamaForCausalLM, batch: Sequence[Request]) -> None:
    """Run one static batch to the end of its longest answer."""
    ids = torch.tensor([one.prompt for one in batch], device=model.device)
    longest = max(one.tokens for one in batch)
    with torch.inference_mode():
        model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, pad_token_id=2,
            max_new_tokens=longest, min_new_tokens=longest,
        )  # fmt: skip
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def static(model: LlamaForCausalLM, asked: Sequence[Request], size: int) -> dict[str, Any]:
    """Serve requests as they fall due, in static batches; return what was seen."""
    began, took, place = time.perf_counter(), [], 0
    while place < len(asked):
        now = time.perf_counter() - began
        waiting = [one for one in asked[place : place + size] if one.due <= now]
        if not waiting:
            time.sleep(asked[place].due - now)
            continue
        generate(model, waiting)
        place += len(waiting)
        ended = time.perf_counter() - began
        took += [(ended - one.due) * 1000 for one in waiting]
    return told(asked, took, time.perf_counter() - began)


async def continuous(url: str, asked: Sequence[Request], size: int) -> dict[str, Any]:
    """Send the same requests to vLLM as they fall due, at most so many at once; return what was seen."""
    room, took = asyncio.Semaphore(size), []
    async with session() as http, asyncio.TaskGroup() as group:
        began = time.perf_counter()

        async def one(request: Request) -> None:
            body = {"model": "bench", "prompt": request.prompt, "max_tokens": request.tokens, "temperature": 0}
            async with room:
                answered = await ask(http, url, body | {"ignore_eos": True}, COMPLETIONS)
            took.append((answered.ended - began - request.due) * 1000)

        for request in asked:
            await asyncio.sleep(max(0.0, began + request.due - time.perf_counter()))
            group.create_task(one(request))
    return told(asked, took, time.perf_counter() - began)


def told(asked: Sequence[Request], took: list[float], seconds: float) -> dict[str, Any]:
    """Return what there is to say of a run."""
    useful = sum(one.tokens for one in asked)
    times = {f"p{point}": percentile(took, point) for point in (50, 95)}
    return {
        "requests": len(asked),
        "seconds": round(seconds, 2),
        "useful_tokens_per_second": round(useful / seconds, 1),
        "total_ms": times,
    }


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--vllm", required=True, help="URL of a vLLM that serves the same model as `bench`")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--batches", type=int, default=3, help="of the run at once")
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second, open loop")
    parser.add_argument("--seconds", type=float, default=15.0, help="of the open loop")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    model = LlamaForCausalLM.from_pretrained(options.model, dtype=torch.bfloat16)
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    random = Random(1)
    at_once = requests([0.0] * options.batch * options.batches, random)
    in_time = requests(due_times(options.rate, options.seconds, random), random)
    warm = requests([0.0] * min(8, options.batch), random)
    static(model, warm, options.batch)
    asyncio.run(continuous(options.vllm, warm, options.batch))
    result: dict[str, Any] = {"options": vars(options)}
    for name, asked in (("at_once", at_once), ("open_loop", in_time)):
        found = {"continuous": asyncio.run(continuous(options.vllm, asked, options.batch))}
        found["static"] = static(model, asked, options.batch)
        result[name] = found
        options.out.write_text(json.dumps(result, indent=2, default=str) + "\n")
        print(name, json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
