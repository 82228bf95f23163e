"""vLLM's completions as TGI's answers, complete and streamed (CONTRACT.md 3.2, 3.6, 4.3).

In vLLM's logprobs, tokens are named either by text or by id. By text they match TGI's, and the ids are in another
field; but the most likely tokens have no ids then, so for `top_n_tokens` all are requested by id. The caller has to
look up their texts: `unnamed` returns the ids, and the known texts are passed as `names`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

import msgspec
from msgspec import Struct

from backends import estimate, problem
from backends.base import BackendError, Cause
from backends.failures import CUT, FAILED
from backends.finishing import BROKEN
from backends.inbound.tgi.passthrough import usage
from backends.inbound.tgi.wire import (
    Choice,
    CompletionCounts,
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
from backends.lenient_json import EventJSON
from backends.odd_events import (
    NO_CHOICES,
    failure_of,
    is_done,
    is_error,
    is_stream,
    no_answer,
    read_event,
    unreadable,
)
from backends.schema import Usage
from backends.shapes import LenientDecoder
from backends.sse import EventReader, EventTooLarge, events

NO_IDS = "The engine does not report its token ids (vLLM's return_token_ids)."
BY_ID = "token_id:"
IMPOSSIBLE = -9999.0  # vLLM's value for minus infinity, which TGI writes as null
BROKEN_CHARACTER = "\ufffd"

# vLLM does not report which of the most likely tokens are special; a generated one is, if its text is missing.
SPECIAL = re.compile(r"<\|.*\|>|<\uff5c.*\uff5c>|</?s>|<(unk|pad|bos|eos|mask|start_of_turn|end_of_turn)>|\[/?INST\]")

Names = Mapping[int, str]

_encode = msgspec.json.Encoder().encode
_completions = LenientDecoder(VllmCompletion)


class Step(Struct):
    """One generated token. `name` is its text, None if it must be looked up; `top` are the most likely, best first."""

    id: int
    name: str | None
    logprob: float | None
    top: list[tuple[int, float]]


class Piece(Struct):
    """The content of one choice: its text, its tokens, and TGI's finish reason, None if it has not ended."""

    text: str
    steps: list[Step]
    finish: str | None


def piece(choice: Choice, asked: TgiRequest) -> Piece:
    """Read a choice, of a complete answer or a chunk. Raises BackendError if vLLM failed or left out the token ids."""
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
    """Return the most likely tokens: vLLM always adds the sampled one, which may not belong there."""
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
    """Return the ids of the tokens whose texts are needed and not in `names`."""
    wanted = {
        token
        for one in pieces
        for step in one.steps
        for token in (*([step.id] if step.name is None else ()), *(top for top, _ in step.top))
    }
    return wanted - names.keys()


class Splitter:
    """Splits an answer's text into the texts of its tokens, as TGI does.

    A token that ends inside a character has an empty text, and the token that completes the character has all of it; a
    special token is not in the text. The names show where each token ends; some tokenizers omit a leading space.
    """

    def __init__(self) -> None:
        self._broken = False  # the last token ended inside a character

    def split(self, one: Piece, names: Names) -> list[GenerateToken]:
        """Return the tokens of the next piece, with their texts."""
        made: list[GenerateToken] = []
        rest = one.text
        for step in one.steps:
            name = names.get(step.id, "") if step.name is None else step.name
            made.append(GenerateToken(step.id, "", step.logprob, special=False))
            if not name or name.endswith(BROKEN_CHARACTER):
                self._broken = True
            else:
                rest = self._take(made, name, rest)
        if rest and made:
            _give(rest, made)
            self._broken = False
        return made

    def _take(self, made: list[GenerateToken], name: str, rest: str) -> str:
        """Set the last token's text; return the rest."""
        token = made[-1]
        before, found, after = rest.partition(name)
        if found and (not before or self._broken):
            if before and BROKEN_CHARACTER not in before and len(made) > 1:
                made[-2].text, before = before, ""
            token.text, rest = before + name, after
        elif rest.startswith(f" {name}"):
            token.text, rest = f" {name}", rest[len(name) + 1 :]
        elif rest and name.startswith(rest):  # cut off after a stop string
            token.text, rest = rest, ""
        else:
            token.text, token.special = name, True
        self._broken = self._broken and token.special
        return rest


def top_tokens(step: Step, names: Names) -> list[GenerateToken]:
    """Return the most likely tokens of one step."""
    return [
        GenerateToken(
            token, names.get(token, ""), value if value > IMPOSSIBLE else None, is_special(names.get(token, ""))
        )
        for token, value in step.top
    ]


def _give(text: str, made: list[GenerateToken]) -> None:
    """Add text to the last token that clients show; if there is none, the last one has it, and is shown."""
    for token in reversed(made):
        if not token.special:
            token.text += text
            return
    made[-1].text, made[-1].special = text, False


def is_special(name: str) -> bool:
    """Whether a token's text looks like that of a special one."""
    return SPECIAL.fullmatch(name) is not None


# --- complete answers------------------------------------------------------------------------------------------


class Whole:
    """A complete answer of vLLM's, which may have been sent as a stream."""

    def __init__(self, asked: TgiRequest, seed: int, body: bytes) -> None:
        """Read the body. Raises BackendError."""
        self._asked = asked
        self._seed = seed
        chunks = _chunks(body) if is_stream(body) else [_whole(body)]
        counts = next((chunk.usage for chunk in reversed(chunks) if chunk.usage is not None), None)
        choices = [choice for chunk in chunks for choice in chunk.choices]
        if not choices or (counts is None and choices[-1].finish_reason is None):  # neither of a whole answer's signs
            raise no_answer(body, None, NO_CHOICES)
        self._prompt = choices[0] if asked.parameters.decoder_input_details else Choice("")
        self._sequences: dict[int, list[Piece]] = {}
        for choice in choices:
            self._sequences.setdefault(choice.index, []).append(piece(choice, asked))
        if not all(pieces[-1].finish for pieces in self._sequences.values()):
            raise BackendError(Cause.FAILED, CUT)
        self.usage = self._counted(counts)

    def _counted(self, counts: CompletionCounts | None) -> Usage:
        """Return what was worked as vLLM counted it; else an estimate of the answer, the prompt's tokens being -1."""
        if counts is not None:
            return usage(counts.prompt_tokens, counts.completion_tokens)
        pieces = [one for several in self._sequences.values() for one in several]
        size = sum(estimate.text_size(one.text) for one in pieces)
        return estimate.so_far(None, sum(len(one.steps) for one in pieces) or estimate.of_bytes(size))

    def unnamed(self, names: Names) -> set[int]:
        """Return the ids of the tokens whose texts are needed and not in `names`."""
        pieces = [one for several in self._sequences.values() for one in several]
        return unnamed(pieces, names) | ({token for token, by, _ in self._prompt_tokens() if by is None} - names.keys())

    def render(self, names: Names) -> tuple[bytes, int]:
        """Return the body of TGI's answer, and the number of tokens it reports: the best sequence's."""
        sequences = [self._sequence(index, names) for index in sorted(self._sequences)]
        if len(sequences) < self._asked.sequences:  # greedy: TGI's sequences would be equal
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
        """Yield each prompt token's id, text and logprob; the text is None for the first, and if vLLM repaired it."""
        mended = True
        beside = self._prompt.prompt_logprobs or []
        for token, likely in zip(self._prompt.prompt_token_ids or [], beside, strict=False):
            said = (likely or {}).get(str(token))
            name = said.decoded_token if said else None
            yield token, None if mended or not name else name, said.logprob if said else None
            mended = name == ""


def _whole(body: bytes) -> VllmCompletion:
    try:
        return _completions.read(body)
    except problem.UNREADABLE as error:
        raise no_answer(body, None, error) from error


def _chunks(body: bytes) -> list[VllmCompletion]:
    try:
        payloads = EventReader().feed(body)
    except EventTooLarge as error:
        raise unreadable(body, error) from error
    reader = EventJSON()
    chunks = [_read_chunk(payload, reader) for payload in payloads if not is_done(payload)]
    return [chunk for chunk in chunks if chunk is not None]


def _mean_logprob(sequence: Sequence) -> float:
    values = [token.logprob or 0.0 for token in sequence.tokens]
    return sum(values) / len(values) if values else 0.0


def _at_the_end(finish: str | None, written: int, asked: TgiRequest) -> str:
    """Return the finish reason; TGI checks the limit before it looks at the last token."""
    limit = asked.parameters.max_new_tokens
    return "length" if finish is None or (limit is not None and written >= limit) else finish


# --- streams --------------------------------------------------------------------------------------------------


class StreamReader:
    """Reads vLLM's stream. After each `feed`, check the attributes."""

    def __init__(self, asked: TgiRequest) -> None:
        self.prompt_tokens = 0
        self.completion_tokens = -1  # the engine has not said them
        self.finished = False  # the stream is complete
        self.failure: BackendError | None = None
        self._asked = asked
        self._events = EventReader()
        self._json = EventJSON()
        self._ended = False  # the finish reason has come

    def feed(self, data: bytes) -> list[Piece]:
        """Take the bytes of one read, split anywhere; return the pieces that they complete."""
        pieces: list[Piece] = []
        try:
            for payload in self._events.feed(data):
                if is_done(payload):
                    self.end()
                    break
                pieces += self._take(_read_chunk(payload, self._json))
        except EventTooLarge as error:
            self.failure = unreadable(self._events.remains, error)
        except BackendError as failure:
            self.failure = failure
        return pieces

    def end(self) -> list[Piece]:
        """Note the end of the body: sets `failure` if no finish reason came, `[DONE]` or not.

        Returns the pieces of a whole answer that came in the place of a stream.
        """
        pieces: list[Piece] = []
        document = self._events.document
        try:
            if document is not None:
                pieces = self._take(_whole(document))
        except BackendError as failure:
            self.failure = failure
        if not self._ended and self.failure is None:
            self.failure = BackendError(Cause.FAILED, CUT)
        self.finished = self.failure is None
        return pieces

    def _take(self, chunk: VllmCompletion | None) -> list[Piece]:
        if chunk is None:
            return []
        if chunk.usage is not None:
            self.prompt_tokens, self.completion_tokens = chunk.usage.prompt_tokens, chunk.usage.completion_tokens
        made = []
        for choice in chunk.choices[:1]:
            self.prompt_tokens = self.prompt_tokens or len(choice.prompt_token_ids or ())
            made.append(piece(choice, self._asked))
            self._ended = self._ended or choice.finish_reason is not None
        return made


def _read_chunk(payload: bytes, reader: EventJSON) -> VllmCompletion | None:
    """Read an event; return None if it says nothing. Raises BackendError if it is an error, or cannot be read."""
    try:
        return _completions.decode(payload)
    except problem.UNREADABLE:
        value = read_event(payload, reader)
    if value is None:
        return None
    if is_error(value):
        raise failure_of(value, None)
    try:
        return _completions.convert(value)
    except problem.UNREADABLE as error:
        raise unreadable(payload, error) from error


class StreamWriter:
    """Writes TGI's events: one for each token, the last with the complete text."""

    def __init__(self, asked: TgiRequest, seed: int) -> None:
        self.written = 0
        self._asked = asked
        self._seed = None if asked.greedy else seed
        self._text = asked.inputs if asked.full_text else ""
        self._splitter = Splitter()

    def write(self, pieces: list[Piece], names: Names, prompt_tokens: int) -> bytes:
        """Return the events of the pieces, as bytes. `prompt_tokens` is reported in the last one."""
        payloads: list[bytes] = []
        for one in pieces:
            self._text += one.text
            made = self._splitter.split(one, names)
            if not made and (one.text or one.finish):  # of an engine without token ids; TGI's last event has a token
                made, one.steps = [GenerateToken(0, one.text, None, special=not one.text)], [Step(0, "", None, [])]
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
