"""`pointsman doctor`: sends live engines the same requests, and reports how they differ and what the gateway does then.

Every request goes to the engine itself and, pinned to it, through a gateway in this process: what the report says of
the gateway is what the gateway did.

    ask         the only file that opens a connection
    questions   the table of the requests
    aspects     what is compared in the answers
    heard       reads responses leniently
    examine     sends the questions to the engines
    progress    how far it is
    judge       from answers to findings; defines what counts as broken
    show        the table, the JSON document and the exit status
"""

import asyncio
import logging
import sys
from collections.abc import Callable

import msgspec
from rich.console import Console

from gateway.cli.doctor import ask
from gateway.cli.doctor.examine import examine
from gateway.cli.doctor.judge import findings
from gateway.cli.doctor.progress import shown
from gateway.cli.doctor.questions import QUESTIONS
from gateway.cli.doctor.show import WIDTH, Report, document, status, tables
from gateway.cli.exit_status import CommandFailed, ExitStatus
from gateway.config import Config, DeploymentConfig

__all__ = ["diagnose", "run"]


def run(config: Config, as_json: bool, patience: float = ask.ANSWER_TIMEOUT) -> int:
    """Examine all engines, print the report, return the exit status.

    `patience` is how long to wait for an answer besides its tokens, in seconds. Raises CommandFailed if it is
    interrupted.
    """
    logging.getLogger("pointsman").setLevel(logging.CRITICAL)  # the report has what the gateway would log
    with shown(len(QUESTIONS) * sum(len(engines) for _, engines in groups(config))) as tick:
        try:
            reports = asyncio.run(diagnose(config, tick, patience))
        except KeyboardInterrupt:
            raise CommandFailed(ExitStatus.UNREACHABLE, "interrupted before all engines were asked") from None
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(document(reports))).decode() + "\n")
    else:
        Console(width=None if sys.stdout.isatty() else WIDTH).print(tables(reports))
    return status(reports)


async def diagnose(
    config: Config, tick: Callable[[], object] = lambda: None, patience: float = ask.ANSWER_TIMEOUT
) -> list[Report]:
    """Return the findings for each model of a checked configuration. `tick` is called after each question."""
    reports = []
    for name, deployments in groups(config):
        sides = await examine(deployments, tick, patience)
        reports.append(Report(name, sides, findings(sides, bool(name))))
    return reports


def groups(config: Config) -> list[tuple[str, list[DeploymentConfig]]]:
    """Return the engines to compare with each other: those of each named model, and all that have no name."""
    named = [(model.name, model.deployments) for model in config.models if model.name]
    unnamed = [deployment for model in config.models if not model.name for deployment in model.deployments]
    return [*named, *([("", unnamed)] if unnamed else [])]
