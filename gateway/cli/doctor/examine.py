"""Sends each question to each engine, directly and through a gateway, and keeps the answers.

The engines are asked in parallel, each with a few questions at a time; those that compare texts come first, one by one.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from backends import BACKENDS
from backends.base import BackendError, ServedModel
from gateway.cli.doctor import ask
from gateway.cli.doctor.aspects import Question
from gateway.cli.doctor.heard import EngineAnswer, Heard, fields, read, tokens, words
from gateway.cli.doctor.questions import HELLO, QUESTIONS
from gateway.config import DeploymentConfig

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
FIRST_TOKENS = 8  # by which an engine's pace is known
COUNTERS = {"vllm": "/tokenize", "tgi": "/chat_tokenize"}
PIN = "x-pointsman-engine"
NOBODY = EngineAnswer(status=0, trouble="not asked")

Tick = Callable[[], object]


class Side(Struct):
    """The answers of one engine: about itself, and by the index of each question its own and the gateway's.

    `twins` are the answers that some questions are compared with. `rest` is what the gateway answered without a pin
    where it refused the pinned request. `pace` is how many seconds a token took at first. `trouble` is why the engine
    could not be asked.
    """

    name: str
    engine: str
    url: str
    trouble: str = ""
    version: str = ""
    served: list[ServedModel] = []
    facts: dict[str, Any] = {}
    auth: str = "open"
    pace: float = 0.0
    raw: dict[int, EngineAnswer] = {}
    via: dict[int, EngineAnswer] = {}
    raw_twins: dict[int, EngineAnswer] = {}
    via_twins: dict[int, EngineAnswer] = {}
    rest: dict[int, EngineAnswer] = {}

    @property
    def model(self) -> str:
        """The name of the model in requests to the engine itself."""
        return self.served[0].model if self.served else ""

    def answers(self, place: int) -> bool:
        """Whether a question was answered, directly and through the gateway, so that it can be judged."""
        return not self.raw.get(place, NOBODY).trouble and not self.via.get(place, NOBODY).trouble

    @property
    def unanswered(self) -> list[str]:
        """The questions that had no answer in their time, or were not asked."""
        places = [place for place in range(len(QUESTIONS)) if self.raw and not self.answers(place)]
        return [f"{QUESTIONS[place].area}: {QUESTIONS[place].check}" for place in places]


async def examine(deployments: list[DeploymentConfig], tick: Tick, patience: float) -> list[Side]:
    """Ask all engines of one model all questions; return what each answered."""
    sides = await asyncio.gather(*(_introduce(one, patience) for one in deployments))
    there = [one for one, side in zip(deployments, sides, strict=True) if not side.trouble]
    await asyncio.gather(
        *(
            _question(deployment, there, side, tick, patience)
            for deployment, side in zip(deployments, sides, strict=True)
            if not side.trouble
        )
    )
    return sides


# --- what is at the URLs ---------------------------------------------------------------------------------------------


async def _introduce(deployment: DeploymentConfig, patience: float) -> Side:
    """Ask an engine what it is, and whether it answers a chat."""
    side = Side(name=deployment.name, engine=deployment.engine, url=deployment.url)
    side.trouble = ask.url_fault(deployment.url)
    return side if side.trouble else await _introduced(deployment, side, patience)


async def _introduced(deployment: DeploymentConfig, side: Side, patience: float) -> Side:
    backend = BACKENDS[deployment.engine]
    async with ask.direct(deployment, patience) as line:
        heard = await line.get(backend.facts_path)
        side.version = await _version(line, deployment.engine, heard)
        try:
            side.served = backend.served(heard.body) if heard.status == 200 else []
        except BackendError:
            side.served = []
        if not side.served or (side.engine == "vllm" and not side.version):
            side.trouble = await _stranger(line, deployment, heard)
        if side.trouble:
            return side
        side.facts = fields(heard.body)
        if deployment.model:
            side.served = [one for one in side.served if deployment.model in (one.name, one.model)] or [
                ServedModel(deployment.model, deployment.model, side.served[0].max_model_len)
            ]
        side.trouble = await _first_words(line, side, bool(deployment.api_key))
    return side


async def _version(line: ask.EngineConnection, engine: str, facts: Heard) -> str:
    if engine == "vllm":
        return str(fields((await line.get("/version")).body).get("version") or "")
    return str(fields(facts.body).get("version") or "")


async def _stranger(line: ask.EngineConnection, deployment: DeploymentConfig, heard: Heard) -> str:
    """Return why what is at the URL is not the engine that it should be."""
    label = BACKENDS[deployment.engine].label
    if heard.trouble:
        return heard.trouble
    if heard.status in (401, 403):
        return _wants_key(deployment.engine, bool(deployment.api_key))
    if deployment.engine != "tgi" and "max_total_tokens" in fields((await line.get("/info")).body):
        return f"this is a TGI, not {label}: use --tgi for it"
    if deployment.engine == "tgi" and "version" in fields((await line.get("/version")).body):
        return "this is a vLLM, not TGI: use --vllm for it"
    response = words(heard) if heard.status != 200 else "200, but not in its protocol"
    return f"this is not {label}: {BACKENDS[deployment.engine].facts_path} answers {response}"


async def _first_words(line: ask.EngineConnection, side: Side, has_key: bool) -> str:
    """Ask for a few tokens; return why there are none, or "". Notes the pace, and whether the engine requires a key."""
    body = {"model": side.model, "messages": HELLO, "max_tokens": FIRST_TOKENS, "temperature": 0}
    began = time.monotonic()
    heard = await line.post(CHAT, body)
    side.pace = (time.monotonic() - began) / FIRST_TOKENS
    answer = read(heard)
    if heard.status in (401, 403):
        return _wants_key(side.engine, has_key)
    if not answer.taken:
        return answer.trouble or f"it does not answer a chat: {answer.error}"
    if has_key:
        without = await line.post(CHAT, body | {"max_tokens": 1}, {"authorization": ""})
        side.auth = "a key" if without.status in (401, 403) else "open, the key is ignored"
    return ""


def _wants_key(engine: str, has_key: bool) -> str:
    if has_key:
        return "it refuses the API key"
    return f"it requires an API key: set POINTSMAN_{engine.upper()}_API_KEY, or api_key_env in the file"


# --- the questions --------------------------------------------------------------------------------------------


async def _question(
    deployment: DeploymentConfig, there: list[DeploymentConfig], side: Side, tick: Tick, patience: float
) -> None:
    """Ask one engine all questions, directly and through a gateway in front of all engines."""
    others = [one for one in there if one.engine != deployment.engine]
    behind = [deployment, *others]
    room = asyncio.Semaphore(ask.SIDE_BY_SIDE)
    async with ask.direct(deployment, patience, side.pace) as line, ask.fronted(behind, patience, side.pace) as front:

        async def put(place: int) -> None:
            async with room:
                await _put(place, QUESTIONS[place], side, line, front)
            tick()

        alone = [place for place, question in enumerate(QUESTIONS) if question.compares_texts]
        for place in alone:
            await put(place)
        await asyncio.gather(*(put(place) for place in range(len(QUESTIONS)) if place not in alone))
        side.trouble = line.given_up


async def _put(
    place: int, question: Question, side: Side, line: ask.EngineConnection, front: ask.EngineConnection
) -> None:
    """Ask one question, directly and through the gateway."""
    own, pin = {"model": side.model}, {PIN: side.engine}
    doctor = {"model": ask.MODEL}
    body = question.body
    if question.twin is not None:
        side.raw_twins[place] = await _ask(line, question, own | question.twin, {})
        side.via_twins[place] = side.raw_twins[place]
        if not question.bare:
            side.via_twins[place] = await _ask(front, question, doctor | question.twin, pin)
    side.raw[place] = await _ask_engine(line, question, own | _body(question, side.raw_twins.get(place)), side.engine)
    body = doctor | _body(question, side.via_twins.get(place))
    side.via[place] = await _ask(front, question, body, pin)
    if side.via[place].status == 400 and not question.refused:
        side.rest[place] = await _ask(front, question, body, {})


def _body(question: Question, twin: EngineAnswer | None) -> dict[str, Any]:
    return question.then(twin) if question.then and twin is not None else question.body


async def _ask_engine(
    line: ask.EngineConnection, question: Question, body: dict[str, Any], engine: str
) -> EngineAnswer:
    """Ask the engine itself; if only tokens are counted, by its path for that where it has one."""
    if question.counts and engine in COUNTERS:
        answer = tokens(await line.post(COUNTERS[engine], body), engine)
        if answer is not None:
            return answer
    return await _ask(line, question, body, {})


async def _ask(
    line: ask.EngineConnection, question: Question, body: dict[str, Any], headers: dict[str, str]
) -> EngineAnswer:
    path = TEXT if question.text else CHAT
    return read(await line.post(path, body, headers), bool(body.get("stream")))
