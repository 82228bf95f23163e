"""Two engines compared without any traffic: do they answer alike, and is the second not slower?

    python -m loadtests.compare --vllm http://old:8000 --vllm http://new:8000 --rate 2 --minutes 10
    python -m loadtests.compare --tgi http://old:8080 --vllm http://new:8000 --trace requests.jsonl --html report.html

The first engine is the control, the second the treatment. Both are asked the same requests at the same times (open
loop, Poisson), in blocks, one engine at a time; the control is asked twice, so that an engine's own noise is known.
Requests are streamed, and go through a gateway in this process, which speaks each engine's dialect. API keys are read
from POINTSMAN_VLLM_API_KEY, POINTSMAN_TGI_API_KEY and POINTSMAN_OPENAI_API_KEY. Of a trace no text is shown unless it
is wished for (--examples clear). Ctrl-C ends a comparison early; what was measured until then is shown.

Exit status: 0 the treatment is not worse; 1 it is worse, or does not answer alike; 2 inconclusive; 3 an engine could
not be asked, or not to the end; 64 wrong usage (not 2, so that a script tells it from a comparison that says nothing
yet).
"""

import argparse
import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NoReturn

from rich.console import Console
from rich.progress import Progress

from gateway.cli.exit_status import ExitStatus
from gateway.config import ConfigError
from loadtests.compare_front import SIDES, EngineUrl, Front, Unreachable, fronted
from loadtests.compare_html import page
from loadtests.compare_judge import Rules, judged
from loadtests.compare_run import Measured, measure
from loadtests.compare_show import Told, document, status, tables
from loadtests.compare_workload import Prompt, Round, Trace, generated, read_trace, repeated, rounds

USAGE = 64  # EX_USAGE of sysexits.h
ROUNDS = 40  # unless a block's length is given: enough for a verdict, which takes 30
INTERVAL = 10.0  # seconds between two lines of progress, where there is no terminal
WIDTH = 110
Tick = Callable[[Measured], object]


class WrongUsage(Exception):
    """The command line, or what it names, cannot be used; the message says why."""


class Parser(argparse.ArgumentParser):
    """Ends with a status of its own for wrong usage."""

    def error(self, message: str) -> NoReturn:
        """Print the message to stderr, and exit."""
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: {message}\n")


def parser() -> Parser:
    """Return what reads the command line."""
    made = Parser("loadtests.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for kind in ("vllm", "tgi", "openai"):
        kinds = partial(given, kind)
        made.add_argument(f"--{kind}", dest="engines", metavar="URL", action="append", type=kinds, help="an engine")
    made.add_argument("--model", action="append", default=[], metavar="NAME", help="of both engines, or one for each")
    made.add_argument("--trace", type=Path, metavar="FILE.jsonl", help="recorded requests, as for `pointsman compat`")
    made.add_argument("--greedy", action="store_true", help="ask all of the trace at temperature 0")
    made.add_argument("--rate", type=positive, default=2.0, metavar="R", help="requests a second, to one engine [2]")
    made.add_argument("--minutes", type=positive, default=10.0, metavar="M", help="of asking, in all [10]")
    made.add_argument("--block", type=positive, metavar="SECONDS", help=f"[so that there are {ROUNDS} rounds]")
    made.add_argument("--max-tokens", type=int, default=128, help="of the longest answer to a generated request [128]")
    made.add_argument("--margin", type=positive, default=0.05, help="by which a time may be longer [0.05]")
    made.add_argument("--no-logprobs", action="store_true", help="ask for none: then ties are not told from errors")
    made.add_argument("--examples", choices=("redacted", "clear"), help="[clear, redacted with a trace]")
    made.add_argument("--patience", type=positive, default=15.0, help="seconds for a first sign of life [15]")
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    made.add_argument("--html", type=Path, metavar="FILE", help="write one page with plots, too")
    return made


def given(kind: str, url: str) -> tuple[str, str]:
    """Return an engine as the command line names it."""
    return kind, url


def positive(text: str) -> float:
    """Return a number above 0. Raises ArgumentTypeError."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


def engines(options: argparse.Namespace) -> list[EngineUrl]:
    """Return the two engines, in the order in which they were given. Raises WrongUsage."""
    names: list[str] = options.model
    urls: list[tuple[str, str]] = options.engines or []
    if len(urls) != len(SIDES):
        raise WrongUsage(f"expected two engines (--vllm URL, --tgi URL), got {len(urls)}")
    if len(names) > len(SIDES):
        raise WrongUsage(f"--model: expected one name or two, got {len(names)}")
    names = names * 2 if len(names) == 1 else names or ["", ""]
    return [EngineUrl(kind, url, name) for (kind, url), name in zip(urls, names, strict=True)]


def read(path: Path, greedy: bool) -> Trace:
    """Return the recorded requests. Raises WrongUsage if there are none."""
    try:
        trace = read_trace(path, greedy)
    except OSError as error:
        raise WrongUsage(f"--trace: {path}: {error.strerror}") from error
    if not trace.prompts:
        why = "; ".join(f"{count} times {reason}" for reason, count in trace.skipped.items())
        raise WrongUsage(f"--trace: {path}: no request in it that can be compared{why and f' ({why})'}")
    return trace


def planned(options: argparse.Namespace, trace: Trace | None) -> list[Round]:
    """Return all rounds."""
    random, seconds = Random(options.seed), 60 * options.minutes
    source: Iterator[Prompt] = repeated(trace.prompts) if trace else generated(random, options.max_tokens)
    return rounds(source, options.rate, seconds, options.block or seconds / 3 / ROUNDS, SIDES, random)


def chosen(front: Front) -> dict[str, str]:
    """Return the engines' names of the model. Raises WrongUsage if they serve others than are meant."""
    names = {}
    for side in SIDES:
        served, wanted = front.served(side), front.engines[side].model
        if wanted and wanted not in served and front.engines[side].kind != "tgi":
            raise WrongUsage(f"--model: the {side} serves {', '.join(served)}, not {wanted}")
        names[side] = wanted or served[0]
    if len(set(names.values())) > 1 and not any(engine.model for engine in front.engines.values()):
        both = " and ".join(f"{name} (the {side})" for side, name in names.items())
        again = " ".join(f"--model {name}" for name in names.values())
        raise WrongUsage(f"the engines serve other models: {both}; if they are the same, say {again}")
    return names


async def compare(options: argparse.Namespace, plan: Sequence[Round], skipped: dict[str, int], into: Measured) -> Told:
    """Ask the engines; return whom was asked what. Raises WrongUsage, ConfigError, Unreachable.

    Who interrupts it gets what was measured until then.
    """
    async with fronted(engines(options), dict(os.environ), options.patience) as front:
        names = chosen(front)
        told = Told(
            front.engines,
            names,
            {side: front.fingerprint(side) for side in SIDES},
            workload(options, skipped),
            len(plan),
            (options.examples or ("redacted" if options.trace else "clear")) == "clear",
        )
        with shown(len(plan) * 3) as tick, suppress(asyncio.CancelledError):
            into.stopped = "interrupted"  # until it is known better
            into.stopped = await measure(front, plan, not options.no_logprobs, into, tick)
    return told


def workload(options: argparse.Namespace, skipped: dict[str, int]) -> dict[str, Any]:
    """Return what was asked, for the report."""
    asked = {"trace": options.trace.name, "greedy": options.greedy, "skipped_lines": skipped} if options.trace else {}
    made = {} if options.trace else {"generated_by_seed": options.seed, "max_tokens": options.max_tokens}
    load = {"rate": options.rate, "minutes": options.minutes, "logprobs": not options.no_logprobs}
    return {**asked, **made, **load}


@contextmanager
def shown(total: int) -> Iterator[Tick]:
    """Show on stderr how far it is: a bar, or a line now and then where there is no terminal."""
    clock, said = time.monotonic, [time.monotonic()]

    def line(measured: Measured) -> None:
        if clock() - said[0] >= INTERVAL:
            said[0] = clock()
            words = f"{measured.blocks} of {total} blocks, {len(measured.triples)} prompts compared"
            print(f"Asking the engines: {words}", file=sys.stderr, flush=True)

    if not sys.stderr.isatty():
        yield line
        return
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Asking the engines", total=total)
        yield lambda measured: progress.update(task, completed=measured.blocks)


def run(options: argparse.Namespace) -> int:
    """Compare, and print the report; return the exit status. Raises WrongUsage, ConfigError, Unreachable."""
    trace = read(options.trace, options.greedy) if options.trace else None
    plan, measured = planned(options, trace), Measured()
    told = asyncio.run(compare(options, plan, trace.skipped if trace else {}, measured))
    findings = judged(measured, Rules(options.margin, planned=len(plan)), Random(options.seed))
    if options.html:
        options.html.write_text(page(measured, findings, told), encoding="utf-8")
    if options.json:
        print(json.dumps(document(measured, findings, told), indent=1))
    else:
        Console(width=None if sys.stdout.isatty() else WIDTH).print(tables(measured, findings, told))
    return status(measured, findings)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare as the command line says; return the exit status."""
    logging.getLogger("pointsman").setLevel(logging.CRITICAL)  # the report has what the gateway would log
    options = parser().parse_args(arguments)
    try:
        return run(options)
    except WrongUsage as error:
        faults, ends = [str(error)], USAGE
    except ConfigError as error:
        faults, ends = error.faults, USAGE
    except Unreachable as error:
        faults, ends = [str(error)], int(ExitStatus.UNREACHABLE)
    except OSError as error:
        faults, ends = [f"{error.filename}: {error.strerror}"], int(ExitStatus.FAILED)
    for fault in faults:
        print(f"loadtests.compare: {fault}", file=sys.stderr)
    return ends


if __name__ == "__main__":
    sys.exit(main())
