"""The lines on stderr: one for each request, with what it came to and nothing of what was said in it."""

import asyncio
import io
import json
import logging
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway import config
from gateway.access.keys import Keyring
from gateway.access.keys.table import write
from gateway.access.principal import Principal
from gateway.observe.logs import RequestLog, handler
from tests.support.clock import Clock
from tests.support.harness import (
    ANSWER,
    CHAT,
    MODEL,
    STREAM,
    USAGE,
    Asked,
    Gateway,
    Script,
    cuts,
    engine,
    head,
    over,
    piece,
    says,
    streamed,
    until,
    whole,
)
from tests.support.keys import GOOD, PLAIN
from tests.support.processes import answers, served, written

FIELDS = {
    *("time", "level", "event", "request_id", "trace_id", "method", "path", "model", "engine", "deployment"),
    *("attempts", "status", "outcome", "stream", "prompt_tokens", "completion_tokens"),
    *("total_ms", "ttft_ms", "overhead_ms", "key", "cache", "adapted", "error"),
}


class Terminal(io.BytesIO):
    """A stream at whose other end a person sits."""

    def isatty(self) -> bool:
        return True


def logged(front: Gateway, out: io.BytesIO | None = None) -> io.BytesIO:
    """Have the gateway write the lines of its requests here."""
    out = out or io.BytesIO()
    front.services.records.log = RequestLog(out)
    return out


async def lines(front: Gateway, out: io.BytesIO) -> list[dict[str, Any]]:
    await until(lambda: not front.services.sweep.open)
    front.services.records.flush()
    return [json.loads(line) for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_line_of_an_answer_says_who_what_where_and_how_long(stream: bool) -> None:
    clock = Clock()

    class SlowKeyring(Keyring):
        def check(self, presented: str, now: float) -> Principal:
            clock.now += 0.125
            return super().check(presented, now)

    async def slow(asked: Asked, writer: asyncio.StreamWriter) -> None:
        clock.now += 0.25
        writer.write(streamed(*STREAM) if stream else whole(ANSWER))

    async with over(slow, clock=clock) as (front, _):
        out = logged(front)
        front.services.keyring = SlowKeyring(write([PLAIN]))
        answer = await front.post(CHAT | {"stream": stream}, x_api_key=GOOD)
        (line,) = await lines(front, out)
    assert set(line) == FIELDS
    assert line["event"] == "request"
    assert line["level"] == "info"
    assert datetime.fromisoformat(line["time"]).timestamp() == front.services.wall()
    assert line["request_id"] == answer.headers["x-request-id"]
    assert (line["method"], line["path"], line["status"]) == ("POST", "/v1/chat/completions", 200)
    assert (line["model"], line["engine"], line["deployment"]) == (MODEL, "vllm", "vllm")
    assert (line["outcome"], line["error"], line["attempts"], line["stream"]) == ("ok", None, 1, stream)
    assert (line["prompt_tokens"], line["completion_tokens"]) == (USAGE["prompt_tokens"], USAGE["completion_tokens"])
    assert line["key"] == PLAIN.id
    assert line["overhead_ms"] == float(answer.headers["x-pointsman-overhead-ms"]) == 125
    assert (line["total_ms"], line["ttft_ms"]) == (375, 375 if stream else None)


# what the engine says, what is asked, the level, the status, the outcome and the error's code
REFUSED: dict[str, tuple[Script, dict[str, Any], str, int, str, str | None]] = {
    "no such model": (says(b""), CHAT | {"model": "x"}, "info", 404, "client_error", "model_not_found"),
    "no request": (says(b""), {"model": MODEL}, "info", 400, "client_error", None),
    "it failed": (says(whole({"message": "x"}, "500 x")), CHAT, "warning", 502, "engine_error", "engine_error"),
    "it broke off": (
        cuts(head() + piece(STREAM[0])),
        CHAT | {"stream": True},
        "warning",
        200,
        "engine_error",
        "engine_error",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_the_line_of_a_failure_has_the_errors_code_and_not_its_words(case: str) -> None:
    script, body, level, status, outcome, code = REFUSED[case]
    async with over(script, retries=config.RetriesConfig(attempts=1)) as (front, _):
        out = logged(front)
        await front.post(body)
        (line,) = await lines(front, out)
    assert (line["level"], line["status"], line["outcome"], line["error"]["code"]) == (level, status, outcome, code)
    assert set(line["error"]) == {"type", "code"}


async def test_what_operators_ask_is_not_logged_and_the_configuration_can_turn_it_all_off() -> None:
    async with over(says(whole(ANSWER))) as (front, _):
        out = logged(front)
        for path in ("/healthz", "/health", "/ping", "/readyz", "/metrics"):
            await front.client.get(path)
        assert await lines(front, out) == []
        quiet = msgspec.structs.replace(front.services.config, logging=config.LoggingConfig(requests=False))
        front.services.reload.take(quiet)
        await front.post(CHAT)
        assert await lines(front, out) == []


async def test_a_person_reads_a_line_of_text() -> None:
    async with over(says(streamed(*STREAM))) as (front, _):
        out = logged(front, Terminal())
        await front.post(CHAT | {"stream": True})
        await front.post(CHAT | {"model": "x"})
        await until(lambda: not front.services.sweep.open)
    front.services.records.flush()
    answered, refused = out.getvalue().decode().splitlines()
    assert f"200 POST /v1/chat/completions {MODEL} vllm ok" in answered
    assert answered.endswith("12+2 tokens")
    assert "404 POST /v1/chat/completions - client_error model_not_found" in refused


async def test_no_path_commands_a_terminal_or_begins_a_line_of_its_own() -> None:
    async with over(says(b"")) as (front, _):
        out, terminal = logged(front), Terminal()
        await front.client.get("/v1/models/%1b[2J%0afaked")
        (line,) = await lines(front, out)
        logged(front, terminal)
        await front.client.get("/v1/models/%1b[2J%0afaked")
        await until(lambda: not front.services.sweep.open)
    front.services.records.flush()
    assert line["path"] == "/v1/models/\x1b[2J\nfaked"
    assert b" /v1/models/?[2J?faked - " in terminal.getvalue()
    assert terminal.getvalue().count(b"\n") == 1


async def test_a_request_is_none_the_worse_for_a_log_that_is_closed() -> None:
    async with over(says(whole(ANSWER))) as (front, _):
        logged(front).close()
        assert (await front.post(CHAT)).status_code == 200
        assert (await front.post(CHAT)).status_code == 200


# --- the whole of stderr --------------------------------------------------------------------------------------


async def test_no_secret_and_nothing_that_was_said_is_ever_on_stderr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLANTED", "planted-engine-key")
    file = tmp_path / "pointsman.toml"
    async with engine(answers()) as behind:
        file.write_text(written({"m": {"v": f'{behind.url}\napi_key_env = "PLANTED"'}}))
        async with served(file) as front:
            secret = {"authorization": "Bearer planted-client-key", "x-api-key": "planted-too", "cookie": "planted"}
            said = [{"role": "user", "content": "planted-prompt"}]
            for more in ({}, {"stream": True}, {"model": "planted-model"}, {"temperature": "planted-value"}):
                body = CHAT | {"model": "m", "messages": said, "user": "planted-user"} | more
                await front.client.post("/v1/chat/completions?planted=1", json=body, headers=secret)
            behind.stop()
            await front.client.post(
                "/v1/chat/completions", json=CHAT | {"model": "m", "messages": said}, headers=secret
            )
            assert behind.asked[0].headers["authorization"] == "Bearer planted-engine-key"
            front.process.terminate()
            await front.ended()
            lines = [json.loads(line) for line in front.said.splitlines()]
    assert len([line for line in lines if line["event"] == "request"]) == 5
    assert [line for line in lines if line.get("logger") == "pointsman"]
    assert "planted" not in front.said
    assert "Grüße" not in front.said  # which is what the engine answered


class TextTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def own_log(out: io.StringIO) -> logging.Logger:
    """Return a logger that has what the gateway's has, and shares nothing with it."""
    made = logging.Logger("pointsman")
    made.addHandler(handler(out))
    return made


def test_the_gateways_own_line_is_json_with_its_traceback() -> None:
    out = io.StringIO()
    try:
        raise ValueError("planned")
    except ValueError:
        own_log(out).exception("%s failed", "it")
    (line,) = [json.loads(line) for line in out.getvalue().splitlines()]
    assert (line["event"], line["level"], line["logger"]) == ("it failed", "error", "pointsman")
    assert "ValueError: planned" in line["exception"]
    assert datetime.fromisoformat(line["time"]).tzinfo is not None


def test_the_gateways_own_line_is_text_for_a_person() -> None:
    out = TextTerminal()
    own_log(out).info("%s is back", "it")
    assert out.getvalue().endswith("INFO it is back\n")
