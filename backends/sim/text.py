"""The pseudo text, and how it is counted: the same for both simulators. Pure, but that numbers of tokens are kept.

Tokens: a special token such as `<|im_end|>`, up to five letters or digits with at most one blank before them, or any
other single character is one token each (`pieces`). So `"def main"` is 2 tokens and `"hello world"` 2.

Words: what comes next is a function of all the text so far (a running hash of prompt and answer), as with a real
model. So the same prompt continues in the same way, and so does an answer that is cut and sent back to be continued.
Each place has a ranked list of candidates with log probabilities; greedy takes the first, sampling draws by the seed.
"""

import re
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from itertools import chain, islice
from zlib import crc32

from msgspec import Struct

START, EOS = "<|im_start|>", "<|im_end|>"
UNASKED = f"{START}system\nYou are a helpful AI assistant.{EOS}\n"  # what a wrong chat template begins with
VOCABULARY_SIZE = 2**31
_PIECE = re.compile(r"<\|\w+\|>| ?\w{1,5}|\W")
_WORDS = (
    "rail track point lever frame signal cabin yard line loop siding train wagon brake guard lamp bell block wire rod "
    "crank lock slide switch frog check chair tie plate bolt gauge curve grade level cross gate post arm disc red "
    "green amber clear stop slow pass wait call send take hold turn throw set reset down up main branch north south "
    "east west early late night morn noon dusk fog rain snow wind heat steel wood stone iron coal oil grease hand eye "
    "ear voice word note book page hour clock watch whist horn steam smoke spark wheel axle boil tender crew shift "
    "rest post over under along near far fast safe sure true next last first both each every some none more less when "
    "where then there while until after été naïve Zürich Ωmega 日本 путь 🚂 — . , ; \n"
)  # parted by blanks; the last is a line feed
_CANDIDATES = list(dict.fromkeys(word for word in _WORDS.split(" ") if len(word) < 6))
_RANKS = 24
_VOCABULARY = ["<unk>", "<s>", "</s>", START, EOS, *(chr(code) for code in range(32, 127)), "\n"] + [
    blank + word for blank in ("", " ") for word in _CANDIDATES
]
_IDS = {word: index for index, word in reversed(list(enumerate(_VOCABULARY)))}
_TEXTS = dict(enumerate(_VOCABULARY))


class Token(Struct, frozen=True):
    """One token: its text, its log probability, and the place it was drawn in (None where a grammar left no choice)."""

    text: str
    logprob: float = 0.0
    place: tuple[int, bool] | None = None

    def top(self, count: int) -> list[tuple[str, float]]:
        """The likeliest candidates in its place, best first."""
        if self.place is None:
            return [(self.text, self.logprob)][:count]
        return [_candidate(*self.place, rank) for rank in range(min(count, _RANKS))]

    @property
    def special(self) -> bool:
        """Whether this is the end of the answer, which has no text."""
        return self.text == EOS


class Step(Struct, frozen=True):
    """What one token adds to an answer: text to show, and at the end why it ended and which stop it met."""

    text: str
    token: Token
    finish: str | None = None
    stop: str | None = None


def pieces(text: str) -> list[str]:
    """The tokens of a text. Joined they are the text again."""
    return _PIECE.findall(text)


def token_id(piece: str) -> int:
    """A number for a token: its place in the vocabulary, or a hash above it, which is kept so that it can be read."""
    known = _IDS.get(piece)
    if known is None:
        known = _hashed(piece)
        while known in _TEXTS:
            known = known + 1 if known + 1 < VOCABULARY_SIZE else len(_VOCABULARY)
        _IDS[piece], _TEXTS[known] = known, piece
    return known


def _hashed(piece: str) -> int:
    """A number above the vocabulary, by the text alone: both simulators come to the same."""
    digest = crc32(piece.encode(errors="surrogatepass"))
    return len(_VOCABULARY) + digest % (VOCABULARY_SIZE - len(_VOCABULARY))


def token_text(number: int) -> str:
    """The token with that number; one that was never given becomes some word of the vocabulary."""
    known = _TEXTS.get(number)
    return _VOCABULARY[number % len(_VOCABULARY)] if known is None else known


def chat_text(turns: Iterable[tuple[str, str]], *, continues: bool = False) -> str:
    """The chat template (ChatML): turns of role and content, then an assistant's turn, new or continued."""
    text = "".join(f"{START}{role}\n{content}{EOS}\n" for role, content in turns)
    return text.removesuffix(f"{EOS}\n") if continues else f"{text}{START}assistant\n"


def answer_tokens(prompt: str, shortest: int, longest: int) -> int:
    """How many tokens the answer to a prompt has before it ends by itself."""
    return shortest + int.from_bytes(_hash(prompt, "length").digest()) % (longest - shortest + 1)


def written(prompt: str, *, seed: int | None = None, salt: str = "", length: int | None = None) -> Iterator[Token]:
    """The answer to a prompt: greedy, or sampled by a seed; endless, or of a length and then the end token.

    `salt` stands for parameters that bend the distribution: another salt, another text.
    """
    return chain(islice(_words(prompt, seed, salt), length), [Token(EOS, -0.1)])


def format_duration(text: str) -> Iterator[Token]:
    """A text that a grammar left no choice about, and the end token."""
    return (Token(piece) for piece in [*pieces(text), EOS])


def _words(prompt: str, seed: int | None, salt: str) -> Iterator[Token]:
    state = _hash(prompt, salt)
    fresh = prompt[-1:] in ("", "\n")  # after a line's end a word has no blank before it
    while True:
        digest = int.from_bytes(state.copy().digest())
        rank = 0 if seed is None else int.from_bytes(_hash(str(digest), str(seed)).digest()) % (_RANKS // 2)
        word, logprob = _candidate(digest, fresh, rank)
        yield Token(word, logprob, (digest, fresh))
        state.update(word.encode())
        fresh = word == "\n"


def _candidate(digest: int, fresh: bool, rank: int) -> tuple[str, float]:
    """The word of a rank. All are distinct, and the exponentials of their log probabilities add up to less than one."""
    start, stride, noise = digest >> 8, 1 + (digest >> 32) % 6, (digest & 255) / 1024
    word = _CANDIDATES[(start + rank * stride) % len(_CANDIDATES)]
    return word if fresh or not word.isalnum() else f" {word}", -1.2 - rank / 2 - noise


def _hash(text: str, salt: str) -> "blake2b":
    state = blake2b(salt.encode(), digest_size=8)
    state.update(text.encode(errors="surrogatepass"))
    return state
