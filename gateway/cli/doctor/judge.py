"""Turns the engines' answers into findings. Pure: every rule of what breaks a client is here.

ok        the engines agree
handled   they differ, and the gateway hides the difference; the finding says how
differs   a client would notice, and keeps working
broken    a request that OpenAI's API allows fails, or silently changes its meaning
"""

from collections.abc import Iterator
from enum import IntEnum

import msgspec
from msgspec import Struct

from backends import BACKENDS
from gateway.cli.doctor.aspects import Question
from gateway.cli.doctor.examine import NOBODY, Side
from gateway.cli.doctor.heard import EngineAnswer, short
from gateway.cli.doctor.questions import PLAIN, QUESTIONS, SAME_TEXT, WITH_TOOL
from gateway.http.errors import PointsmanError
from gateway.proxy import parse

GENERATION_STOPS = 4  # what OpenAI's API allows


class Severity(IntEnum):
    """How bad a finding is, from the least to the worst."""

    OK = 0
    HANDLED = 1
    DIFFERS = 2
    BROKEN = 3

    @property
    def word(self) -> str:
        """The name that people and `--json` see."""
        return self.name.lower()


class Finding(Struct, frozen=True):
    """One line of the report: what was compared, each engine's answer, and what the gateway does about it."""

    severity: Severity
    area: str
    check: str
    said: dict[str, str]
    does: str = ""


def findings(sides: list[Side], named: bool) -> list[Finding]:
    """Return everything found about the engines of one model; `named`: they share one model name."""
    there = [side for side in sides if side.served and side.raw]
    found = list(_facts(there, named)) if there else []
    for place, question in enumerate(QUESTIONS):
        asked = [side for side in there if side.answers(place)]
        if asked and question not in SAME_TEXT:
            found.append(_judge(place, question, asked))
    if there:
        found.append(_texts(there))
        found += _templates(there)
    return sorted(found, key=lambda finding: AREAS.index(finding.area))


AREAS = ["engine", "context", "prompt", "answers", "defaults", "parameters", "logprobs", "tools", "structured"]
AREAS += ["limits", "errors"]


# --- what the engines report about themselves -----------------------------------------------------------------------


def _facts(sides: list[Side], named: bool) -> Iterator[Finding]:
    yield Finding(Severity.OK, "engine", "version", {side.name: side.version or "unknown" for side in sides})
    yield _models(sides, named)
    keys = {side.name: side.auth for side in sides}
    yield Finding(
        Severity.OK,
        "engine",
        "auth",
        keys,
        "Each engine gets its own key; a client's API key is never forwarded upstream.",
    )
    yield _context(sides)
    for side in sides:
        if side.engine == "tgi":
            yield from _limits(side)


def _models(sides: list[Side], named: bool) -> Finding:
    said = {side.name: ", ".join(one.name for one in side.served) for side in sides}
    if len(set(said.values())) == 1:
        return Finding(Severity.OK, "engine", "models", said)
    if named:
        return Finding(
            Severity.HANDLED,
            "engine",
            "models",
            said,
            "The engines share one model name, which every response carries.",
        )
    does = "Clients see two models. To serve them as one: serve --model NAME, or [[models]] in the file."
    return Finding(Severity.DIFFERS, "engine", "models", said, does)


def _context(sides: list[Side]) -> Finding:
    lengths = {side.name: side.served[0].max_model_len for side in sides}
    inputs = {side.name: side.facts.get("max_input_tokens") for side in sides}
    said = {}
    prompts = set()
    for name, length in lengths.items():
        most = inputs[name]
        narrow = isinstance(most, int) and isinstance(length, int) and most < length - 1
        said[name] = f"{length or 'not told'}" + (f", prompts up to {most}" if narrow else "")
        prompts.add(most if narrow else (length or 0) - 1)
    if len(set(lengths.values())) == 1 and len(prompts) == 1:
        return Finding(Severity.OK, "context", "length in tokens", said, "max_tokens is capped to what is left.")
    does = (
        "What fits one engine fails on the other with 400. "
        "Set vLLM --max-model-len, TGI --max-total-tokens, --max-input-tokens."
    )
    return Finding(Severity.BROKEN, "context", "length in tokens", said, does)


def _limits(side: Side) -> Iterator[Finding]:
    """Compare the limits in TGI's `/info`."""
    facts = side.facts
    stops = facts.get("max_stop_sequences")
    if isinstance(stops, int):
        fits = stops >= GENERATION_STOPS
        does = "" if fits else f"Launch TGI with --max-stop-sequences {GENERATION_STOPS}."
        yield Finding(
            Severity.OK if fits else Severity.BROKEN, "limits", "stop strings", {side.name: f"up to {stops}"}, does
        )
    batch = facts.get("max_client_batch_size")
    if isinstance(batch, int):
        does = "Each prompt is sent as a request of its own."
        yield Finding(Severity.HANDLED, "limits", "prompts a request", {side.name: f"up to {batch}"}, does)
    permits = facts.get("max_concurrent_requests")
    if isinstance(permits, int):
        said = {side.name: f"{permits}, then 429"}
        does = "503 with Retry-After, as for vLLM; --max-concurrent-requests is TGI's limit."
        yield Finding(Severity.HANDLED, "limits", "requests at once", said, does)


# --- the questions --------------------------------------------------------------------------------------------


def _judge(place: int, question: Question, sides: list[Side]) -> Finding:
    """Judge one question: by errors first, then by what is in the answers."""
    raw = {side.name: _look(question, side.raw[place], side.raw_twins.get(place)) for side in sides}
    via = {side.name: _look(question, side.via[place], side.via_twins.get(place)) for side in sides}

    def finding(severity: Severity, does: str = "") -> Finding:
        return Finding(severity, question.area, question.check, raw, does)

    if question.refused:
        return finding(*_refusal(question, [side.raw[place] for side in sides], [side.via[place] for side in sides]))
    failed = [side for side in sides if not side.via[place].taken]
    if failed:
        return finding(*_failure(place, question, failed))
    wrong = question.right and set(via.values()) != {question.right}
    if wrong or len(set(via.values())) > 1:
        why = question.note or _why_no_call([side for side in sides if via[side.name] != question.right], place)
        return finding(_severity(question), f"{_through(via)} {why}")
    if question.counts and (other := _other_tokens(place, sides)):
        return finding(_severity(question), f"{other} {question.note}")
    if all(side.raw[place].taken for side in sides) and set(raw.values()) == set(via.values()):
        return finding(Severity.OK)
    return finding(Severity.HANDLED, question.how or _adapted(place, sides))


def _look(question: Question, answer: EngineAnswer, twin: EngineAnswer | None) -> str:
    """Return what the question compares in an answer."""
    if not answer.taken:
        return short(answer.error or answer.trouble, 70)
    if twin is not None and not twin.taken:
        return "nothing to compare with"
    return question.aspect(answer, twin or answer)


def _refusal(question: Question, raw: list[EngineAnswer], via: list[EngineAnswer]) -> tuple[Severity, str]:
    """Judge a request that must be refused: alike on all engines and by the status, never inside a 200."""
    statuses = {answer.status for answer in via}
    if 200 in statuses or len(statuses) > 1 or any(answer.status >= 500 for answer in via):
        return Severity.BROKEN, "Through the gateway: " + ", ".join(answer.error or "taken" for answer in via)
    alike = len({(answer.status, answer.taken) for answer in raw}) == 1 and raw[0].status == via[0].status
    return (Severity.OK if alike and len(raw) > 1 else Severity.HANDLED), question.how


def _failure(place: int, question: Question, failed: list[Side]) -> tuple[Severity, str]:
    """Judge a request that fails through the gateway when it is pinned to an engine."""
    first = failed[0]
    answer = first.via[place]
    lacking = unsupported(question, first.engine)
    elsewhere = first.rest.get(place)
    # If the engine does not support it, the other is always chosen; otherwise it may be so by chance.
    if lacking and elsewhere is not None and elsewhere.taken and elsewhere.engine and elsewhere.engine != first.engine:
        return Severity.HANDLED, f"Sent to {elsewhere.engine}; pinned to {first.engine}: 400 {answer.param}."
    if lacking:
        return Severity.DIFFERS, f"{BACKENDS[first.engine].label} does not support it: 400 that names {lacking}."
    said = f"Through the gateway, {first.name}: {short(answer.error)}. "
    return Severity.BROKEN, (said + _mend(place, question, failed)).strip()


def unsupported(question: Question, engine: str) -> str | None:
    """Return the parameter that the engine does not support, or that the gateway's parser refuses."""
    read = parse.completion if question.text else parse.chat
    try:
        call = read(msgspec.json.encode(question.body), "doctor", 0)
    except PointsmanError as error:
        return error.param
    return BACKENDS[engine].unsupported(call)


def _severity(question: Question) -> Severity:
    return Severity.DIFFERS if question.loose else Severity.BROKEN


def _through(via: dict[str, str]) -> str:
    said = ", ".join(f"{name} {text}" for name, text in via.items())
    return f"Through the gateway: {said}."


def _mend(place: int, question: Question, sides: list[Side]) -> str:
    """Return the advice that follows from what the engines said; none if they said something else."""
    found = []
    for side in sides:
        symptom, advice = question.mend.get(side.engine, ("", ""))
        if symptom and symptom in side.raw[place].error + side.via[place].error:
            found.append(advice)
    return " ".join(dict.fromkeys(found))


def _why_no_call(sides: list[Side], place: int) -> str:
    """Return why an engine called no tool, as far as it can be seen."""
    if any("length" in side.via[place].finishes for side in sides):
        return "It was cut by max_tokens."
    if any(leaves_out_tools(side) for side in sides):
        return "The chat template leaves the tools out of the prompt."
    return "The model did not call the tool."


def leaves_out_tools(side: Side) -> bool | None:
    """Return whether a vLLM's prompt is the same with a tool and without; None if it did not say."""
    without, within = (side.raw.get(QUESTIONS.index(question), NOBODY).ids for question in (PLAIN, WITH_TOOL))
    return without == within if side.engine == "vllm" and without and within else None


def _templates(sides: list[Side]) -> Iterator[Finding]:
    """Tell which chat templates leave tools out of the prompt: their models never call one, and nothing fails."""
    known = {side.name: lacks for side in sides if (lacks := leaves_out_tools(side)) is not None}
    if not known:
        return
    said = {name: "leaves tools out of the prompt" if lacks else "has the tools" for name, lacks in known.items()}
    if not any(known.values()):
        yield Finding(Severity.OK, "tools", "chat template", said)
    elif any(side.engine == "tgi" for side in sides):
        does = "The gateway says the tools as TGI does, and reads the calls as TGI's (tools_in_prompt)."
        yield Finding(Severity.HANDLED, "tools", "chat template", said, does)
    else:
        does = 'No tool is ever called: launch vLLM with --chat-template, or set tools_in_prompt = "always".'
        yield Finding(Severity.BROKEN, "tools", "chat template", said, does)


def _other_tokens(place: int, sides: list[Side]) -> str:
    """Return a note if the counts of tokens are equal and the tokens are not; else ""."""
    answers = [side.raw[place] for side in sides]
    if (
        len({answer.prompt_tokens for answer in answers}) == 1
        and len({answer.ids for answer in answers if answer.ids}) > 1
    ):
        return "The counts are equal, the tokens are not."
    return ""


def _adapted(place: int, sides: list[Side]) -> str:
    names = {name for side in sides for name in side.via[place].adapted.split(",") if name}
    return f"Adapted: {', '.join(sorted(names))}." if names else "Adapted by the gateway."


def _texts(sides: list[Side]) -> Finding:
    """Compare greedy texts; only if all differ is it a sign of different weights."""
    places = [QUESTIONS.index(question) for question in SAME_TEXT]
    answers = [[side.via.get(place, NOBODY) for side in sides] for place in places]
    complete = [row for row in answers if all(answer.taken for answer in row)]
    said = (
        {side.name: repr(short(row.texts[0], 30)) for side, row in zip(sides, complete[0], strict=True)}
        if complete
        else {}
    )
    same = sum(len({answer.texts for answer in row}) == 1 for row in complete)
    if len(sides) == 1 or not complete:
        return Finding(Severity.OK, "answers", "greedy texts", said, "Nothing to compare with.")
    does = f"{same} of {len(complete)} equal through the gateway."
    if same:
        return Finding(Severity.OK, "answers", "greedy texts", said, does)
    return Finding(
        Severity.DIFFERS, "answers", "greedy texts", said, does + " Check that weights and precision are the same."
    )
