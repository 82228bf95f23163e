"""What an engine says of its own load in its metrics: recorded of a real vLLM and TGI, and what else may come."""

import pytest

from backends import BACKENDS
from backends.loads import Load, LoadReader
from tests.support.recorded import load

READER = LoadReader("/metrics", {"running": "e:running", "waiting": "e:waiting", "kv_use": "e:kv"})

# The recordings are abridged in their buckets alone.
RECORDED = {
    "vllm/20_metrics": Load(running=0.0, waiting=0.0, kv_use=0.0, prefix_queries=2138.0, prefix_hits=384.0),
    "vllm/B40e_metrics_while_busy": Load(
        running=2.0, waiting=0.0, kv_use=0.00036623329060614385, prefix_queries=1149.0, prefix_hits=512.0
    ),
    "tgi/20_metrics": Load(running=0.0, waiting=0.0),
    "tgi/L17_overload_metrics": Load(running=2.0, waiting=0.0),
}


@pytest.mark.parametrize("name", RECORDED)
def test_a_real_engines_metrics_are_read(name: str) -> None:
    recorded, reader = load(name), BACKENDS[name.split("/", maxsplit=1)[0]].load
    assert recorded.path == reader.path
    assert reader.read(recorded.response_body) == RECORDED[name]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", Load()),
        (b"<html>no</html>", Load()),
        (b"\xff\xfe\x00", Load()),
        (b"e:waiting 3\n", Load(waiting=3.0)),
        (b"e:waiting 3", Load(waiting=3.0)),
        (b"e:waiting 3 1795421215070\n", Load(waiting=3.0)),
        (b'e:waiting{a="} 9",b="\\"x\\""} 3.5e+01\n', Load(waiting=35.0)),
        (b"# HELP e:waiting 5\n# TYPE e:waiting gauge\ne:waiting 3\n", Load(waiting=3.0)),
        (b"e:waiting_by_reason 9\ne:waiting 3\n", Load(waiting=3.0)),
        (b"xe:waiting 9\n e:waiting 8\n", Load()),
        (b"e:waiting NaN\ne:running 1\n", Load(running=1.0)),
        (b"e:waiting +Inf\ne:running 1\n", Load(running=1.0)),
        (b"e:waiting 1e999\ne:running 1\n", Load(running=1.0)),
        (b"e:waiting --\ne:running 1\n", Load(running=1.0)),
        (b"e:waiting\ne:running 1\n", Load(running=1.0)),
    ],
)
def test_only_a_number_behind_the_whole_name_counts(text: bytes, expected: Load) -> None:
    assert READER.read(text) == expected


def test_replicas_are_added_up_and_of_the_caches_the_fullest_counts() -> None:
    text = b"".join(
        b'e:waiting{engine="%d"} %d\ne:kv{engine="%d"} 0.%d\n' % (place, waiting, place, used)
        for place, (waiting, used) in enumerate([(2, 25), (5, 75), (0, 50)])
    )
    assert READER.read(text) == Load(waiting=7.0, kv_use=0.75)
