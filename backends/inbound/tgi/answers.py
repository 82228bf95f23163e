"""vLLM's completions as TGI's answers: whole, and event by event (CONTRACT.md 3.2, 3.6, 4.3).

vLLM names tokens either by text or by id. By text it says what TGI says, and the ids are beside it; but the likeliest
tokens come without ids then, so that for `top_n_tokens` all come by id. Their texts are asked for: `unnamed` says
which, and whoever calls passes what it knows as `names`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

import msgspec
from msgspec import Struct

from backends import problem
from backends.base import BackendError, Cause
from backends.failures import CUT, FAILED, NOT_THE_PROTOCOL, classify
from backends.finishing import BROKEN
from backends.inbound.tgi.translate import decoded
from backends.inbound.tgi.wire import (
    Choice,
    GenerateAnswer,
    GenerateDetails,
    GenerateToken,
    PrefillToken,
    Sequence,
    StreamDetails,
    StreamEvent,
    TgiRequest,
    TopStreamEvent,
    VllmCompletion,
)
from backends.schema import Usage
from backends.sse import DONE, EventReader, EventTooLarge, events

NO_IDS = "The engine does not say which tokens it wrote (vLLM's return_token_ids)."
BY_ID = "token_id:"
IMPOSSIBLE = -9999.0  # vLLM's word for minus infinity, which TGI writes as null
BROKEN_CHARACTER = "\ufffd"

# vLLM does not say which of the likeliest tokens are special; a generated one shows by its text's absence.
SPECIAL = re.compile(r"<\|.*\|>|<\uff5c.*\uff5c>|</?s>|<(unk|pad|bos|eos|mask|start_of_turn|end_of_turn)>|\[/?INST\]")

Names = Mapping[int, str]

NOBODY = GenerateToken(0, "", None, special=False)

_encode = msgspec.json.Encoder().encode
_chunk = msgspec.json.Decoder(VllmCompletion).decode


class Step(Struct):
    """One generated token; its name is None where its text has to be asked for, `top` are the likeliest, best first."""

    id: int
    name: str | None
    logprob: float | None
    top: list[tuple[int, float]]


class Piece(Struct):
    """What one choice adds: its text, the tokens it is made of, and why it ended, if it did."""

    text: str
    steps: list[Step]
    finish: str | None


def piece(choice: Choice, asked: TgiRequest) -> Piece:
    """Read a choice, whole or of a chunk. Raises BackendError if vLLM gave up, or left out what was asked for."""
    ids, beside = choice.token_ids or [], choice.logprobs
    if choice.finish_reason in BROKEN:
        raise BackendError(Cause.FAILED, FAILED)
    said = 0 if beside is None else len(beside.tokens)
    if len(ids) != said or (beside is not None and len(beside.token_logprobs) != said):
        raise BackendError(Cause.PROTOCOL_ERROR, NO_IDS)
    steps = []
    for place, token in enumerate(ids):
        assert beside is not None
        name = None if beside.tokens[place].startswith(BY_ID) else beside.tokens[place]
        likely = beside.top_logprobs[place] if place < len(beside.top_logprobs) else None
        steps.append(Step(token, name, beside.token_logprobs[place], _top(likely, asked)))
    return Piece(choice.text, steps, _finish(choice, asked))


def _top(likely: dict[str, float] | None, asked: TgiRequest) -> list[tuple[int, float]]:
    """Return the likeliest tokens: vLLM puts the drawn one among them, whether or not it belongs there."""
    most = asked.parameters.top_n_tokens
    if not most or not likely:
        return []
    pairs = [(int(name.removeprefix(BY_ID)), value) for name, value in likely.items() if name.startswith(BY_ID)]
    return sorted(pairs, key=lambda pair: -pair[1])[:most]


def _finish(choice: Choice, asked: TgiRequest) -> str | None:
    match choice.finish_reason:
        case None:
            return None
        case "length":
            return "stop_sequence" if "" in asked.parameters.stop and asked.parameters.max_new_tokens != 1 else "length"
        case "stop" if not isinstance(choice.stop_reason, str):
            return "eos_token"
    return "stop_sequence"


def unnamed(pieces: Iterable[Piece], names: Names) -> set[int]:
    """Return the tokens whose texts are wanted and not known."""
    wanted = {
        token
        for one in pieces
        for step in one.steps
        for token in (*([step.id] if step.name is None else ()), *(top for top, _ in step.top))
    }
    return wanted - names.keys()


class Splitter:
    """Gives each token of an answer its share of the text, as TGI does.

    A token inside a character has none, the one that completes it has all of it; a special token is not in the
    text. The names tell where each ends; some tokenizers leave a leading blank out of them.
    """

    def __init__(self) -> None:
        self._broken = False  # the last token ended inside a character

    def split(self, one: Piece, names: Names) -> list[GenerateToken]:
        """Return the tokens of the next piece."""
        made: list[GenerateToken] = []
        rest = one.text
        for step in one.steps:
            name = names.get(step.id, "") if step.name is None else step.name
            made.append(GenerateToken(step.id, "", step.logprob, special=False))
            if not name or name.endswith(BROKEN_CHARACTER):
                self._broken = True
            else:
                rest = self._take(made, name, rest)
        if rest:
            next((token for token in reversed(made) if not token.special), NOBODY).text += rest
            self._broken = False
        return made

    def _take(self, made: list[GenerateToken], name: str, rest: str) -> str:
        """Give the last token its text; return what is left."""
        token = made[-1]
        before, found, after = rest.partition(name)
        if found and (not before or self._broken):
            if before and BROKEN_CHARACTER not in before and len(made) > 1:
                made[-2].text, before = before, ""
            token.text, rest = before + name, after
        elif rest.startswith(f" {name}"):
            token.text, rest = f" {name}", rest[len(name) + 1 :]
        elif rest and name.startswith(rest):  # cut behind a stop text
            token.text, rest = rest, ""
        else:
            token.text, token.special = name, True
        self._broken = self._broken and token.special
        return rest


def top_tokens(step: Step, names: Names) -> list[GenerateToken]:
    """Return the likeliest tokens at one place."""
    return [
        GenerateToken(
            token, names.get(token, ""), value if value > IMPOSSIBLE else None, is_special(names.get(token, ""))
        )
        for token, value in step.top
    ]


def is_special(name: str) -> bool:
    """Whether a token's text looks like that of a special one."""
    return SPECIAL.fullmatch(name) is not None


# --- whole answers --------------------------------------------------------------------------------------------


class Whole:
    """A whole answer of vLLM's, which may have come as a stream."""

    def __init__(self, asked: TgiRequest, seed: int, body: bytes) -> None:
        """Read it. Raises BackendError."""
        self._asked = asked
        self._seed = seed
        chunks = _chunks(body) if body.startswith(b"data:") else [decoded(body, VllmCompletion)]
        counts = next((chunk.usage for chunk in reversed(chunks) if chunk.usage is not None), None)
        choices = [choice for chunk in chunks for choice in chunk.choices]
        if not choices or counts is None:
            raise BackendError(Cause.PROTOCOL_ERROR, NOT_THE_PROTOCOL)
        self.usage = Usage(
            prompt_tokens=counts.prompt_tokens,
            completion_tokens=counts.completion_tokens,
            total_tokens=counts.prompt_tokens + counts.completion_tokens,
        )
        self._prompt = choices[0] if asked.parameters.decoder_input_details else Choice("")
        self._sequences: dict[int, list[Piece]] = {}
        for choice in choices:
            self._sequences.setdefault(choice.index, []).append(piece(choice, asked))
        if not all(pieces[-1].finish for pieces in self._sequences.values()):
            raise BackendError(Cause.FAILED, CUT)

    def unnamed(self, names: Names) -> set[int]:
        """Return the tokens whose texts are wanted and not known."""
        pieces = [one for several in self._sequences.values() for one in several]
        return unnamed(pieces, names) | ({token for token, by, _ in self._prompt_tokens() if by is None} - names.keys())

    def render(self, names: Names) -> tuple[bytes, int]:
        """Return TGI's answer, and how many tokens it counts: the best sequence's."""
        sequences = [self._sequence(index, names) for index in sorted(self._sequences)]
        if len(sequences) < self._asked.sequences:  # greedy: TGI would draw the same again and again
            sequences *= self._asked.sequences
        best = max(range(len(sequences)), key=lambda place: _mean_logprob(sequences[place]))
        first = sequences.pop(best)
        written = first.generated_tokens or self.usage.completion_tokens
        answer = GenerateAnswer(first.generated_text)
        if self._asked.details:
            answer.details = GenerateDetails(
                finish_reason=first.finish_reason,
                generated_tokens=written,
                seed=first.seed,
                prefill=first.prefill,
                tokens=first.tokens,
                best_of_sequences=sequences or None,
                top_tokens=first.top_tokens,
            )
        return _encode([answer] if self._asked.compat else answer), written

    def _sequence(self, index: int, names: Names) -> Sequence:
        pieces, asked, splitter = self._sequences[index], self._asked, Splitter()
        steps = [step for one in pieces for step in one.steps]
        wants_top = bool(asked.parameters.top_n_tokens)
        return Sequence(
            generated_text=(asked.inputs if asked.full_text else "") + "".join(one.text for one in pieces),
            finish_reason=_at_the_end(pieces[-1].finish, len(steps), asked),
            generated_tokens=len(steps),
            seed=None if asked.greedy else self._seed + index,
            prefill=[
                PrefillToken(token, names.get(token, "") if name is None else name, value)
                for token, name, value in self._prompt_tokens()
            ],
            tokens=[token for one in pieces for token in splitter.split(one, names)],
            top_tokens=[top_tokens(step, names) for step in steps] if wants_top else [],
        )

    def _prompt_tokens(self) -> Iterator[tuple[int, str | None, float | None]]:
        """Yield id, text if it is known, and logprob: vLLM leaves out the first, and mends broken characters."""
        mended = True
        beside = self._prompt.prompt_logprobs or []
        for token, likely in zip(self._prompt.prompt_token_ids or [], beside, strict=False):
            said = (likely or {}).get(str(token))
            name = said.decoded_token if said else None
            yield token, None if mended or not name else name, said.logprob if said else None
            mended = name == ""


def _chunks(body: bytes) -> list[VllmCompletion]:
    try:
        payloads = EventReader().feed(body)
    except EventTooLarge as error:
        raise BackendError(Cause.PROTOCOL_ERROR, NOT_THE_PROTOCOL) from error
    return [_read_chunk(payload) for payload in payloads if payload != DONE]


def _mean_logprob(sequence: Sequence) -> float:
    values = [token.logprob or 0.0 for token in sequence.tokens]
    return sum(values) / len(values) if values else 0.0


def _at_the_end(finish: str | None, written: int, asked: TgiRequest) -> str:
    """TGI looks at the limit before it looks at what the last token is."""
    limit = asked.parameters.max_new_tokens
    return "length" if finish is None or (limit is not None and written >= limit) else finish


# --- streams --------------------------------------------------------------------------------------------------


class StreamReader:
    """Reads vLLM's stream. After each `feed`, look at the attributes."""

    def __init__(self, asked: TgiRequest) -> None:
        self.prompt_tokens = 0
        self.finished = False  # all has been said
        self.failure: BackendError | None = None
        self._asked = asked
        self._events = EventReader()
        self._ended = False  # the last token has come

    def feed(self, data: bytes) -> list[Piece]:
        """Take one read, cut anywhere; return the pieces that it completed."""
        pieces: list[Piece] = []
        try:
            for payload in self._events.feed(data):
                if payload == DONE:
                    self.finished = True
                    self.end()
                    break
                pieces += self._take(payload)
        except EventTooLarge:
            self.failure = BackendError(Cause.PROTOCOL_ERROR, NOT_THE_PROTOCOL)
        except BackendError as failure:
            self.failure = failure
        return pieces

    def end(self) -> None:
        """Say that the body has ended: without its last token the answer was cut, `[DONE]` or not."""
        if not self._ended and self.failure is None:
            self.failure = BackendError(Cause.FAILED, CUT)
        self.finished = self.failure is None

    def _take(self, payload: bytes) -> list[Piece]:
        chunk = _read_chunk(payload)
        if chunk.usage is not None:
            self.prompt_tokens = chunk.usage.prompt_tokens
        made = []
        for choice in chunk.choices[:1]:
            self.prompt_tokens = self.prompt_tokens or len(choice.prompt_token_ids or ())
            made.append(piece(choice, self._asked))
            self._ended = self._ended or choice.finish_reason is not None
        return made


def _read_chunk(payload: bytes) -> VllmCompletion:
    try:
        return _chunk(payload)
    except problem.UNREADABLE as error:
        raise _event_failure(payload) from error


def _event_failure(payload: bytes) -> BackendError:
    """Read an event that is no chunk: vLLM's error, or nonsense."""
    try:
        value = msgspec.json.decode(payload)
    except problem.UNREADABLE:
        value = None
    said = value.get("error") if isinstance(value, dict) else None
    if said is None:
        return BackendError(Cause.PROTOCOL_ERROR, NOT_THE_PROTOCOL)
    status = said.get("code") if isinstance(said, dict) else None
    return classify(status if isinstance(status, int) else 500, problem.read_value(value), None)


class StreamWriter:
    """Writes TGI's events: one for each token, the last with the text."""

    def __init__(self, asked: TgiRequest, seed: int) -> None:
        self.written = 0
        self._asked = asked
        self._seed = None if asked.greedy else seed
        self._text = asked.inputs if asked.full_text else ""
        self._splitter = Splitter()

    def write(self, pieces: list[Piece], names: Names, prompt_tokens: int) -> bytes:
        """Return the events for some pieces."""
        payloads: list[bytes] = []
        for one in pieces:
            self._text += one.text
            made = self._splitter.split(one, names)
            if one.finish and not made:  # it has never been seen that vLLM ends without a token; TGI's event has one
                made, one.steps = [GenerateToken(0, "", None, special=True)], [Step(0, "", None, [])]
            for place, (token, step) in enumerate(zip(made, one.steps, strict=True)):
                self.written += 1
                ends = one.finish if place == len(made) - 1 else None
                payloads.append(_encode(self._made(token, top_tokens(step, names), ends, prompt_tokens)))
        return events(payloads)

    def _made(
        self, token: GenerateToken, top: list[GenerateToken], finish: str | None, prompt_tokens: int
    ) -> StreamEvent | TopStreamEvent:
        details = None
        if finish and self._asked.parameters.details:
            finish = _at_the_end(finish, self.written, self._asked)
            details = StreamDetails(finish, self.written, self._seed, prompt_tokens)
        text = self._text if finish else None
        if top:
            return TopStreamEvent(self.written, token, top, text, details)
        return StreamEvent(self.written, token, text, details)
