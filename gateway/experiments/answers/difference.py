"""Where two answers to one greedy request first differ, how much was compared, and of which kind the difference is.

The hazard of a divergence is divergences over units compared (P1). Units are token ids where all answers have them,
else tokens by their texts, else words. The kind of a divergence (P2) tells noise from findings: a tie is noise.
"""

import re
from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct

from gateway.experiments.answers.data import same_data
from gateway.experiments.answers.said import SaidAnswer, SaidToken

MAX_TIE = 0.5  # nats between two tokens, up to which rounding may decide
_WORD = re.compile(r"\s*\S+|\s+")


class Unit(StrEnum):
    """What is counted."""

    IDS = "ids"
    TOKENS = "tokens"
    WORDS = "words"


class DifferenceKind(StrEnum):
    """What a difference is (P2)."""

    SAME = "same"
    PROMPT = "prompt"  # the engines read other prompts: template, special tokens or tokenizer
    FORMAT = "format"  # tool calls or JSON that differ as data
    STOP = "stop"  # one answer is the beginning of the other, or both end for other reasons
    TIE = "tie"  # both engines held the two tokens for about as likely
    HARD = "hard"  # one did not
    UNKNOWN = "unknown"  # without log probabilities there is no telling a tie


class Difference(Struct, frozen=True):
    """Two answers compared: `at_risk` units, up to the first that differs, or to the end of the shorter answer.

    `offset` is how many characters they have in common from the beginning.
    """

    kind: DifferenceKind
    at_risk: int
    unit: Unit
    offset: int

    @property
    def diverged(self) -> bool:
        """Whether they parted before either ended; data that differ, and other prompts, are told apart from that."""
        return self.kind in (DifferenceKind.TIE, DifferenceKind.HARD, DifferenceKind.UNKNOWN)


def common_unit(*answers: SaidAnswer) -> Unit:
    """Return the finest unit that all of some answers have, so that their comparisons may be compared."""
    if all(len(answer.ids) for answer in answers):
        return Unit.IDS
    return Unit.TOKENS if all(spelled(answer) is not None for answer in answers) else Unit.WORDS


def first_difference(one: SaidAnswer, other: SaidAnswer, unit: Unit, as_json: bool = False) -> Difference:
    """Compare two answers; `as_json` is whether the request asked for JSON. Raises ValueError for a unit they lack."""
    mine, its = units(one, unit), units(other, unit)
    common = _common(mine, its)
    text, its_text = _written(one), _written(other)
    inside = common < min(len(mine), len(its)) and not (text.startswith(its_text) or its_text.startswith(text))
    offset = _common(text, its_text)
    kind = _kind(one, other, common if unit is not Unit.WORDS else -1, inside, as_json)
    return Difference(kind, common + inside, unit, offset)


def units(answer: SaidAnswer, unit: Unit) -> Sequence[object]:
    """Return an answer in these units; tool calls come after the text. Raises ValueError if it does not have them."""
    if unit is Unit.IDS:
        return answer.ids
    spoken = _WORD.findall(answer.text) if unit is Unit.WORDS else spelled(answer)
    if spoken is None:
        raise ValueError("the answer's tokens do not spell its text")
    called = [word for call in answer.calls for word in (call.name, *_WORD.findall(call.arguments))]
    return [*spoken, *called]


def spelled(answer: SaidAnswer) -> list[str] | None:
    """Return the texts of an answer's tokens, as far as they spell its text; None if they do not.

    The last may be cut by a stop string. What follows (the end token, a stop string) is not in the text. Tokens that
    are not whole characters spell nothing by themselves.
    """
    place, pieces = 0, []
    for token in answer.tokens:
        if place == len(answer.text):
            break
        rest = answer.text[place : place + len(token.text)]
        if not token.text.startswith(rest):
            return None
        pieces.append(rest)
        place += len(rest)
    return pieces if place == len(answer.text) else None


def _common(one: Sequence[object], other: Sequence[object]) -> int:
    """Return how many items two sequences begin with alike."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (mine, its) in enumerate(pairs) if mine != its), min(len(one), len(other)))


def _written(answer: SaidAnswer) -> str:
    """Return all that the model wrote."""
    return "".join((answer.text, *(part for call in answer.calls for part in (call.name, call.arguments))))


def _kind(one: SaidAnswer, other: SaidAnswer, place: int, inside: bool, as_json: bool) -> DifferenceKind:
    if min(one.prompt_tokens, other.prompt_tokens) >= 0 and one.prompt_tokens != other.prompt_tokens:
        return DifferenceKind.PROMPT
    if (one.calls or other.calls or as_json) and not same_data(one, other, as_json):
        return DifferenceKind.FORMAT
    if not inside:
        same = one.text == other.text and one.finish == other.finish
        return DifferenceKind.SAME if same else DifferenceKind.STOP
    if one.calls or other.calls or as_json:
        return DifferenceKind.SAME  # written otherwise, and the same as data
    return _likeness(one.tokens, other.tokens, place)


def _likeness(one: Sequence[SaidToken], other: Sequence[SaidToken], place: int) -> DifferenceKind:
    """Say whether the two tokens in a place are a tie: for each engine the other's token was nearly as likely.

    That is vLLM's own rule for comparing engines (`check_logprobs_close`: each among the other's likeliest), and a
    bound on how much less likely.
    """
    if not 0 <= place < min(len(one), len(other)):
        return DifferenceKind.UNKNOWN
    mine, its = one[place], other[place]
    if mine.text == its.text or not (mine.likeliest and its.likeliest):
        return DifferenceKind.UNKNOWN
    margins = [
        here.logprob - here.likeliest[there.text] if there.text in here.likeliest else None
        for here, there in ((mine, its), (its, mine))
    ]
    near = all(margin is not None and margin <= MAX_TIE for margin in margins)
    return DifferenceKind.TIE if near else DifferenceKind.HARD
