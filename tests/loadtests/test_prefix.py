"""`loadtests.prefix` shows a prefix cache where there is one, and none where there is none."""

from argparse import Namespace

from loadtests.prefix import lengths, run
from tests.support.delayed import delayed, heads
from tests.support.harness import engine


async def test_a_known_head_is_told_from_a_new_one() -> None:
    """On the one engine a head that was there before comes 80 ms sooner; on the other nothing does."""
    async with engine(heads(cold=0.08, warm=0.0)) as on, engine(delayed(0.02, 0.0)) as off:
        servers = [f"on={on.url}", f"off={off.url}"]
        found = await run(Namespace(servers=servers, model="tiny", words=[0, 8], questions=3, seed=1))
    cells = {(cell["server"], cell["words"], cell["head"]): cell["first_ms"]["p50"] for cell in found["cells"]}
    assert len(cells) == 8
    assert cells["on", 8, "new"] >= 79
    assert cells["on", 8, "shared"] < cells["on", 8, "new"]
    assert cells["off", 8, "shared"] >= 19


def test_a_length_may_be_nothing() -> None:
    assert lengths("0,512") == [0, 512]
