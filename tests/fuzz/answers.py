"""Looks for bytes of an engine's on which the reader of answers is wrong: `python -m tests.fuzz.answers --seconds 60`.

It mutates the answers of `tests/support/answers.py` and feeds them, cut at random. Whatever comes, the reader takes
it or says Malformed, the same however the bytes are cut; and what it takes whole, h11 takes alike. A finding is printed
with its seed, and the exit status is 1.
"""

import argparse
import asyncio
import sys
import time
from random import Random

from tests.support.answers import ANSWERS, REFUSED, goes_on, h11s, is_stricter, ours

CORPUS = [data for data, *_ in ANSWERS.values()] + [data for data in REFUSED.values() if len(data) < 1000]
BYTES = b"\r\n :;,=0a1f\t\x00\xff-+x"
WORDS = (
    b"\r\n",
    b"\r\n\r\n",
    b"chunked",
    b"content-length: ",
    b"transfer-encoding: ",
    b"HTTP/1.1 100 C\r\n\r\n",
    b"0\r\n\r\n",
)


def mutated(random: Random) -> bytes:
    """Return one of the corpus, or parts of two, with some bytes changed, lost, doubled or put in."""
    data = bytearray(random.choice(CORPUS))
    if random.random() < 0.3:
        other = random.choice(CORPUS)
        data[random.randrange(len(data) + 1) :] = other[random.randrange(len(other) + 1) :]
    for _ in range(random.randrange(5)):
        at = random.randrange(len(data) + 1)
        match random.randrange(4):
            case 0:
                data[at : at + 1] = bytes([random.choice(BYTES)])
            case 1:
                data[at : at + random.randrange(4)] = b""
            case 2:
                data[at:at] = random.choice(WORDS)
            case 3:
                data[at:at] = data[at : at + random.randrange(20)]
    return bytes(data)


async def fault(seed: int) -> str:
    """Return what is wrong with how the bytes of a seed are read; nothing if all is well."""
    random = Random(seed)
    data = mutated(random)
    whole = await ours(data)
    cut = await ours(data, [random.randrange(len(data) + 1) for _ in range(random.randrange(6))])
    if cut != whole:
        return f"cut in pieces it is {cut}, and at once {whole}: {data!r}"
    theirs = h11s(data)
    if whole is not None and whole.complete and not data.startswith(b"HTTP/1.1 1"):
        return "" if theirs == whole else f"h11 reads {theirs}, and we {whole}: {data!r}"
    if whole is None and theirs is not None and theirs.complete and not is_stricter(data) and not await goes_on(data):
        return f"h11 reads {theirs}, and we refuse: {data!r}"
    return ""


async def run(seconds: float, seed: int) -> int:
    """Try one seed after the other; return how many were tried, or raise SystemExit at a finding."""
    end, tried = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        if found := await fault(seed + tried):
            sys.exit(f"seed {seed + tried}: {found}")
        tried += 1
    return tried


def main() -> None:
    """Run for as long as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0, help="the first; each further one is one more")
    options = parser.parse_args()
    print(f"{asyncio.run(run(options.seconds, options.seed))} answers, nothing found")


if __name__ == "__main__":
    main()
