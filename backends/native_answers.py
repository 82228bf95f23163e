"""vLLM's completions as TGI's answers: whole, and event by event (contract sections 3.2, 3.6, 4.3).

vLLM names tokens either by text or by id. By text it says what TGI says, and the ids are beside it; but the likeliest
tokens come without ids then, so that for `top_n_tokens` all come by id. Their texts are asked for: `unnamed` says
which, and whoever calls passes what it knows as `names`.
"""

import re
from collections.abc import Iterable, Mapping
from itertools import islice

import msgspec
from msgspec import Struct

from backends import problem
from backends.base import BackendError, Cause
from backends.native import decoded
from backends.native_wire import (
    Asked,
    Choice,
    Completion,
    Details,
    Generated,
    PrefillToken,
    Sequence,
    StreamDetails,
    StreamEvent,
    Token,
    TopStreamEvent,
)
from backends.openai import BROKEN, CUT, FAILED, NOT_THE_PROTOCOL, classify
from backends.schema import Usage
from backends.sse import DONE, EventReader, EventTooLarge, events

BY_ID = "token_id:"
BROKEN_CHARACTER = "\ufffd"

# vLLM does not say which of the likeliest tokens are special; a generated one shows by its text's absence.
SPECIAL = re.compile(r"<\|.*\|>|<\uff5c.*\uff5c>|</?s>|<(unk|pad|bos|eos|mask|start_of_turn|end_of_turn)>|\[/?INST\]")

Names = Mapping[int, str]

_encode = msgspec.json.Encoder().encode
_chunk = msgspec.json.Decoder(Completion).decode


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


def piece(choice: Choice, asked: Asked) -> Piece:
    """Read a choice, whole or of a chunk. Raises BackendError if vLLM gave up, or left out what was asked for."""
    ids, beside = choice.token_ids or [], choice.logprobs
    if choice.finish_reason in BROKEN:
        raise BackendError(Cause.FAILED, FAILED)
    if ids and (beside is None or not len(ids) == len(beside.tokens) == len(beside.token_logprobs)):
        raise BackendError(Cause.NONSENSE, NOT_THE_PROTOCOL)
    steps = []
    for place, token in enumerate(ids):
        assert beside is not None
        name = None if beside.tokens[place].startswith(BY_ID) else beside.tokens[place]
        likely = beside.top_logprobs[place] if place < len(beside.top_logprobs) else None
        steps.append(Step(token, name, beside.token_logprobs[place], _top(likely, asked)))
    return Piece(choice.text, steps, _finish(choice, asked))


def _top(likely: dict[str, float] | None, asked: Asked) -> list[tuple[int, float]]:
    """Return the likeliest tokens: vLLM puts the drawn one among them, whether or not it belongs there."""
    most = asked.parameters.top_n_tokens
    if not most or not likely:
        return []
    pairs = [(int(name.removeprefix(BY_ID)), value) for name, value in likely.items() if name.startswith(BY_ID)]
    return sorted(pairs, key=lambda pair: -pair[1])[:most]


def _finish(choice: Choice, asked: Asked) -> str | None:
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


def tokens(one: Piece, names: Names) -> list[Token]:
    """Give each token its share of the text, as TGI does.

    A token inside a character has none, the one that completes it has all of it; a special token is not in the
    text. The names tell where each ends; some tokenizers leave a leading blank out of them.
    """
    made: list[Token] = []
    rest, broken = one.text, False
    for step in one.steps:
        name = names.get(step.id, "") if step.name is None else step.name
        token = Token(step.id, "", step.logprob, special=False)
        made.append(token)
        if not name or name.endswith(BROKEN_CHARACTER):
            broken = True
            continue
        before, found, after = rest.partition(name)
        if found and (not before or broken):
            if before and BROKEN_CHARACTER not in before:
                made[-2].text, before = before, ""
            token.text, rest = before + name, after
        elif rest.startswith(f" {name}"):
            token.text, rest = f" {name}", rest[len(name) + 1 :]
        elif rest and name.startswith(rest):  # cut behind a stop text
            token.text, rest = rest, ""
        else:
            token.text, token.special = name, True
        broken = broken and token.special
    if rest:
        next((token for token in reversed(made) if not token.special), Token(0, "", None, special=False)).text += rest
    return made


def top_tokens(step: Step, names: Names) -> list[Token]:
    """Return the likeliest tokens at one place."""
    return [
        Token(token, names.get(token, ""), value, bool(SPECIAL.fullmatch(names.get(token, ""))))
        for token, value in step.top
    ]


# --- whole answers --------------------------------------------------------------------------------------------


class Whole:
    """A whole answer of vLLM's."""

    def __init__(self, asked: Asked, seed: int, body: bytes) -> None:
        """Read it. Raises BackendError."""
        answer = decoded(body, Completion)
        if not answer.choices or answer.usage is None:
            raise BackendError(Cause.NONSENSE, NOT_THE_PROTOCOL)
        counts = answer.usage
        self.usage = Usage(
            prompt_tokens=counts.prompt_tokens,
            completion_tokens=counts.completion_tokens,
            total_tokens=counts.prompt_tokens + counts.completion_tokens,
        )
        self._asked = asked
        self._seed = seed
        self._choices = sorted(answer.choices, key=lambda choice: choice.index)
        self._pieces = [piece(choice, asked) for choice in self._choices]

    def unnamed(self, names: Names) -> set[int]:
        """Return the tokens whose texts are wanted and not known."""
        prompt = self._choices[0].prompt_token_ids or [] if self._asked.parameters.decoder_input_details else []
        return unnamed(self._pieces, names) | (set(prompt[:1]) - names.keys())

    def written(self, names: Names) -> tuple[bytes, int]:
        """Return TGI's answer, and how many tokens it counts: the best sequence's."""
        sequences = [self._sequence(place, names) for place in range(len(self._pieces))]
        if len(sequences) < self._asked.sequences:  # greedy: TGI would draw the same again and again
            sequences *= self._asked.sequences
        best = max(range(len(sequences)), key=lambda place: _mean_logprob(sequences[place]))
        first = sequences.pop(best)
        written = first.generated_tokens or self.usage.completion_tokens
        answer = Generated(first.generated_text)
        if self._asked.details:
            answer.details = Details(
                finish_reason=first.finish_reason,
                generated_tokens=written,
                seed=first.seed,
                prefill=first.prefill,
                tokens=first.tokens,
                best_of_sequences=sequences or None,
                top_tokens=first.top_tokens,
            )
        return _encode([answer] if self._asked.compat else answer), written

    def _sequence(self, place: int, names: Names) -> Sequence:
        one, asked = self._pieces[place], self._asked
        wants_top = bool(asked.parameters.top_n_tokens)
        return Sequence(
            generated_text=(asked.inputs if asked.full_text else "") + one.text,
            finish_reason=_at_the_end(one.finish, len(one.steps), asked),
            generated_tokens=len(one.steps),
            seed=None if asked.greedy else self._seed + place,
            prefill=list(self._prefill(names)) if asked.parameters.decoder_input_details else [],
            tokens=tokens(one, names),
            top_tokens=[top_tokens(step, names) for step in one.steps] if wants_top else [],
        )

    def _prefill(self, names: Names) -> Iterable[PrefillToken]:
        choice = self._choices[0]
        ids, beside = choice.prompt_token_ids or [], choice.prompt_logprobs or []
        for token in ids[:1]:
            yield PrefillToken(token, names.get(token, ""), None)
        for token, likely in islice(zip(ids, beside, strict=False), 1, None):
            said = (likely or {}).get(str(token))
            if said is None:
                raise BackendError(Cause.NONSENSE, NOT_THE_PROTOCOL)
            yield PrefillToken(token, said.decoded_token or "", said.logprob)


def _mean_logprob(sequence: Sequence) -> float:
    values = [token.logprob or 0.0 for token in sequence.tokens]
    return sum(values) / len(values) if values else 0.0


def _at_the_end(finish: str | None, written: int, asked: Asked) -> str:
    """TGI looks at the limit before it looks at what the last token is."""
    limit = asked.parameters.max_new_tokens
    return "length" if finish is None or (limit is not None and written >= limit) else finish


# --- streams --------------------------------------------------------------------------------------------------


class StreamReader:
    """Reads vLLM's stream. After each `feed`, look at the attributes."""

    def __init__(self, asked: Asked) -> None:
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
            self.failure = BackendError(Cause.NONSENSE, NOT_THE_PROTOCOL)
        except BackendError as failure:
            self.failure = failure
        return pieces

    def end(self) -> None:
        """Say that the body has ended: without its last token the answer was cut, `[DONE]` or not."""
        if not self._ended and self.failure is None:
            self.failure = BackendError(Cause.FAILED, CUT)
        self.finished = self.failure is None

    def _take(self, payload: bytes) -> list[Piece]:
        try:
            chunk = _chunk(payload)
        except problem.UNREADABLE as error:
            raise _event_failure(payload) from error
        if chunk.usage is not None:
            self.prompt_tokens = chunk.usage.prompt_tokens
        made = []
        for choice in chunk.choices[:1]:
            self.prompt_tokens = self.prompt_tokens or len(choice.prompt_token_ids or ())
            made.append(piece(choice, self._asked))
            self._ended = self._ended or choice.finish_reason is not None
        return made


def _event_failure(payload: bytes) -> BackendError:
    """Read an event that is no chunk: vLLM's error, or nonsense."""
    try:
        value = msgspec.json.decode(payload)
    except problem.UNREADABLE:
        value = None
    said = value.get("error") if isinstance(value, dict) else None
    if said is None:
        return BackendError(Cause.NONSENSE, NOT_THE_PROTOCOL)
    status = said.get("code") if isinstance(said, dict) else None
    return classify(status if isinstance(status, int) else 500, problem.read_value(value), None)


class StreamWriter:
    """Writes TGI's events: one for each token, the last with the text."""

    def __init__(self, asked: Asked, seed: int) -> None:
        self.written = 0
        self._asked = asked
        self._seed = None if asked.greedy else seed
        self._text = asked.inputs if asked.full_text else ""

    def write(self, pieces: list[Piece], names: Names, prompt_tokens: int) -> bytes:
        """Return the events for some pieces."""
        payloads: list[bytes] = []
        for one in pieces:
            self._text += one.text
            made = tokens(one, names)
            if one.finish and not made:  # it has never been seen that vLLM ends without a token; TGI's event has one
                made, one.steps = [Token(0, "", None, special=True)], [Step(0, "", None, [])]
            for place, (token, step) in enumerate(zip(made, one.steps, strict=True)):
                self.written += 1
                ends = one.finish if place == len(made) - 1 else None
                payloads.append(_encode(self._made(token, top_tokens(step, names), ends, prompt_tokens)))
        return events(payloads)

    def _made(
        self, token: Token, top: list[Token], finish: str | None, prompt_tokens: int
    ) -> StreamEvent | TopStreamEvent:
        details = None
        if finish and self._asked.parameters.details:
            finish = _at_the_end(finish, self.written, self._asked)
            details = StreamDetails(finish, self.written, self._seed, prompt_tokens)
        text = self._text if finish else None
        if top:
            return TopStreamEvent(self.written, token, top, text, details)
        return StreamEvent(self.written, token, text, details)
