"""This gateway beside others, in one run: CPU per request and per event, added latency, memory.

    python -m loadtests.peers --out peers.json && python -m loadtests.plot peers.json

Of LiteLLM, vllm-router, sglang-router, Portkey and nginx those are measured that are installed
(`loadtests.peers_launch` says how each is started); all stand before the same upstream, which answers at once
(`loadtests.upstream`). In each round every peer, in random order, gets whole answers from a number of clients, the same
as streams, and an open loop at a low rate. CPU is the process's and its children's, from /proc: of a request, and of an
event as what a stream takes beyond a whole answer, by its events. Added latency is the open loop's p50 less the
upstream's own. Linux only.
"""

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from loadtests.asking import AskFailed, ask
from loadtests.open_loop import due_times, paced, percentile
from loadtests.peers_launch import PEERS, Peer
from loadtests.soak_stage import family, free_port, rss

TICK = os.sysconf("SC_CLK_TCK")
DIRECT = "direct"


@dataclass
class Running:
    """A peer that runs, and what was measured of it, a value a round: CPU in microseconds, latency in milliseconds."""

    url: str
    pid: int
    headers: dict[str, str]
    us_per_request: list[float] = field(default_factory=list)
    us_per_event: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    rss_mib: float = 0.0

    def told(self, direct: list[float]) -> dict[str, Any]:
        """Return what there is to say of it."""
        added = [round(mine - base, 3) for mine, base in zip(self.p50_ms, direct, strict=True)]
        cpu = {"us_per_request": self.us_per_request, "us_per_event": self.us_per_event}
        return {**cpu, "p50_ms": self.p50_ms, "added_ms": added, "rss_mib": round(self.rss_mib, 1)}


def cpu(pid: int) -> float:
    """Return the CPU seconds of a process and its children, as /proc has them (proc(5): utime and stime)."""
    total = 0
    for one in family(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


@contextmanager
def started(command: list[str]) -> Iterator[int]:
    """Run a process, silently; give its id."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield child.pid
    finally:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(10)
        child.kill()


def request(stream: bool) -> dict[str, Any]:
    """Return what every peer is asked."""
    said = {"model": "bench", "messages": [{"role": "user", "content": "Say some words, please."}], "max_tokens": 64}
    return said | ({"stream": True, "stream_options": {"include_usage": True}} if stream else {})


def client(peer: Running) -> aiohttp.ClientSession:
    """Return a session with the headers that a peer wants."""
    return aiohttp.ClientSession(headers=peer.headers, connector=aiohttp.TCPConnector(limit=0))


async def answers(peer: Running, patience: float) -> None:
    """Wait until a peer answers. Raises AskFailed when patience is at its end."""
    until = time.monotonic() + patience
    async with client(peer) as http:
        while True:
            try:
                await ask(http, peer.url, request(False))
                return
            except AskFailed:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(0.5)


async def burn(peer: Running, options: argparse.Namespace, stream: bool) -> float:
    """Return the microseconds of CPU of one request, of as many as the options say from so many clients."""
    requests = range(options.requests)
    left = iter(requests)
    async with client(peer) as http:

        async def work() -> None:
            for _ in left:
                await ask(http, peer.url, request(stream))

        before = cpu(peer.pid)
        await asyncio.gather(*(work() for _ in range(options.clients)))
        spent = cpu(peer.pid) - before
    return round(spent * 1e6 / len(requests), 1)


async def latency(peer: Running, options: argparse.Namespace, seed: int) -> float:
    """Return the p50 of whole answers at the rate, from when each was due, in milliseconds."""
    took: list[float] = []
    loop = asyncio.get_running_loop()
    async with client(peer) as http:

        async def one(_: int, due: float) -> None:
            await ask(http, peer.url, request(False))
            took.append((loop.time() - due) * 1000)

        await paced(due_times(options.rate, options.seconds, Random(seed)), one)
    return percentile(took, 50) or 0.0


async def measure(peer: Running, options: argparse.Namespace, seed: int) -> None:
    """Measure one peer for one round."""
    plain = await burn(peer, options, False)
    streamed = await burn(peer, options, True)
    peer.us_per_request.append(plain)
    peer.us_per_event.append(round(max(0.0, streamed - plain) / options.events, 2))
    peer.p50_ms.append(await latency(peer, options, seed))
    peer.rss_mib = max(peer.rss_mib, rss(peer.pid))


def launch(stack: ExitStack, options: argparse.Namespace) -> dict[str, Running]:
    """Start the upstream and all peers that are installed."""
    folder, port = Path(stack.enter_context(TemporaryDirectory())), free_port()
    url = f"http://127.0.0.1:{port}"
    served = [sys.executable, "-m", "loadtests.upstream", "--port", str(port), "--events", str(options.events)]
    running = {DIRECT: Running(url, stack.enter_context(started(served)), {})}
    for name, wanted in PEERS.items():
        port = free_port()
        peer: Peer | None = wanted(url, port, folder) if name in options.peers else None
        if peer:
            pid = stack.enter_context(started(peer.command))
            running[name] = Running(f"http://127.0.0.1:{port}", pid, peer.headers)
    return running


async def attempted(
    running: dict[str, Running], failed: dict[str, str], name: str, work: Coroutine[Any, Any, None]
) -> None:
    """Do some work with a peer; one that fails is left out from then on, and the reason kept."""
    try:
        await work
    except AskFailed as error:
        failed[name] = str(error)
        del running[name]


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """Start, measure and end all peers; return what was measured."""
    random = Random(options.seed)
    failed: dict[str, str] = {}
    with ExitStack() as stack, Progress(console=Console(stderr=True)) as progress:
        running = launch(stack, options)
        for name in progress.track([*running], description="starting"):
            await attempted(running, failed, name, answers(running[name], options.patience))
        seeds = [random.getrandbits(32) for _ in range(options.rounds)]
        turns = [(name, seed) for seed in seeds for name in random.sample([*running], len(running))]
        for name, seed in progress.track(turns, description="measuring"):
            if name in running:
                await attempted(running, failed, name, measure(running[name], options, seed))
    direct = running[DIRECT].p50_ms
    told = {name: peer.told(direct) for name, peer in running.items()}
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    return {"machine": machine, "options": vars(options), "failed": failed, "peers": told}


def show(result: dict[str, Any]) -> None:
    """Print the table: the median of the rounds."""
    table = Table("peer", "CPU µs a request", "CPU µs an event", "p50 ms", "added ms", "MiB")
    for name, told in result["peers"].items():
        cells = [percentile(told[key], 50) for key in ("us_per_request", "us_per_event", "p50_ms", "added_ms")]
        table.add_row(name, *map(str, cells), str(told["rss_mib"]))
    Console().print(table)
    for name, why in result["failed"].items():
        print(f"{name}: failed ({why}), and was left out")


def chosen(text: str) -> list[str]:
    """Read a list of peers' names. Raises ArgumentTypeError."""
    names = text.split(",")
    if unknown := [name for name in names if name not in PEERS]:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(PEERS)}")
    return names


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=chosen, default=[*PEERS], help="names, with commas; default: all installed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=2000, help="whole, and as many streamed, a round")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--events", type=int, default=64, help="of a stream")
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second, open loop")
    parser.add_argument("--seconds", type=float, default=5.0, help="of the open loop, a round")
    parser.add_argument("--patience", type=float, default=90.0, help="seconds for each to start")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="a file for the result, as JSON")
    options = parser.parse_args()
    result = asyncio.run(run(options))
    show(result)
    if options.out:
        options.out.write_text(json.dumps(result, indent=2, default=str) + "\n")


if __name__ == "__main__":
    main()
