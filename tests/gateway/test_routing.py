"""Which deployments may answer, and in which order they are tried: by capability, health and the model's policy."""

import math
from collections import Counter
from random import Random

import pytest

from backends.base import Call, ServedModel
from backends.loads import Load
from gateway import config
from gateway.http.errors import InvalidRequest, Unavailable
from gateway.routing import least_busy, order_candidates, plan, plan_path, prefix, round_robin, weighted
from gateway.upstream.breaker import Breaker
from gateway.upstream.endpoints import Endpoint
from gateway.upstream.models import Candidate, Catalog, ModelRoute
from tests.support.dialects import chat
from tests.support.harness import checked

SLOW_START = 10.0
LATER = 1000.0  # when all are warm


def candidate(name: str, weight: float = 1.0) -> Candidate:
    row = config.DeploymentConfig(name=name, engine="vllm", url=f"http://{name}", weight=weight)
    made = Endpoint(row, config.BreakerConfig(), SLOW_START)
    made.mark_up([ServedModel("m", "m", 100)], 0.0)
    return Candidate(made, "m", 100)


def model(policy: config.tables.Policy = "weighted", **engines: str) -> ModelRoute:
    """Return a model with deployments by name and engine, all heard."""
    rows = [config.DeploymentConfig(name=name, engine=engine, url=f"http://{name}") for name, engine in engines.items()]
    given = config.Config(models=[config.ModelConfig(name="m", policy=policy, prefix_bytes=64, deployments=rows)])
    made = Catalog(checked(given), 1)
    for endpoint in made.endpoints:
        endpoint.mark_up([ServedModel("x", "tgi" if endpoint.engine == "tgi" else "x", 100)], 0.0)
    made.refresh()
    return made.find("m")


def endpoint(entry: ModelRoute, name: str) -> Endpoint:
    return next(one.endpoint for one in entry.candidates if one.endpoint.name == name)


def names(candidates: list[Candidate]) -> str:
    return " ".join(one.endpoint.name for one in candidates)


def breaker(entry: ModelRoute, name: str) -> Breaker:
    return next(one.breaker for one in entry.candidates if one.endpoint.name == name)


def fail(entry: ModelRoute, *those: str, now: float = LATER) -> None:
    """Open the breakers of some."""
    for name in those:
        for _ in range(5):
            breaker(entry, name).record_failure(breaker(entry, name).began(now), now)


# --- weighted ---------------------------------------------------------------------------------------------------


def test_by_weight_each_gets_its_share_and_one_of_no_weight_is_the_last() -> None:
    candidates, random = [candidate("a", 6), candidate("b", 3), candidate("c", 1), candidate("none", 0)], Random(1)
    drawn = [weighted.order(candidates, b"", LATER, random) for _ in range(5000)]
    first = Counter(one[0].endpoint.name for one in drawn)
    for name, share in (("a", 0.6), ("b", 0.3), ("c", 0.1)):
        assert abs(first[name] / 5000 - share) < 0.03
    assert {one[-1].endpoint.name for one in drawn} == {"none"}
    behind_a = Counter(one[1].endpoint.name for one in drawn if one[0].endpoint.name == "a")
    assert abs(behind_a["b"] / behind_a.total() - 0.75) < 0.03


@pytest.mark.parametrize(
    ("after", "share"), [(0.0, 0.1), (0.5, 0.1), (2.0, 0.2), (5.0, 0.5), (9.0, 0.9), (10.0, 1.0), (99.0, 1.0)]
)
def test_one_that_came_back_is_given_more_and_more(after: float, share: float) -> None:
    old, new = candidate("old"), candidate("new")
    new.endpoint.mark_down("gone")
    new.endpoint.mark_up([ServedModel("m", "m", 100)], LATER)
    assert new.endpoint.effective_weight(LATER + after) == pytest.approx(share)
    random, now = Random(1), LATER + after
    first = sum(weighted.order([old, new], b"", now, random)[0] is new for _ in range(4000))
    assert abs(first / 4000 - share / (1 + share)) < 0.03


def test_one_whose_trial_went_well_begins_gently_too() -> None:
    one = candidate("a")
    one.endpoint.mark_recovered(LATER)
    assert one.endpoint.effective_weight(LATER) == pytest.approx(0.1)


# --- in turn ----------------------------------------------------------------------------------------------------


def test_in_turn_each_is_asked_once_before_any_is_asked_again() -> None:
    candidates, random, asked = [candidate("a"), candidate("b"), candidate("c")], Random(1), []
    for turn in range(9):
        first = round_robin.order(candidates, b"", LATER, random)[0]
        first.endpoint.last_attempt_at = LATER + turn
        asked.append(first.endpoint.name)
    assert asked == ["a", "b", "c"] * 3


# --- least busy -------------------------------------------------------------------------------------------------


def test_of_two_the_less_busy_is_asked() -> None:
    candidates = [candidate("a"), candidate("b")]
    candidates[0].endpoint.in_flight = 3
    assert {names(least_busy.order(candidates, b"", LATER, Random(seed))) for seed in range(20)} == {"b a"}


def test_the_engines_own_queue_counts() -> None:
    candidates = [candidate("a"), candidate("b")]
    candidates[0].endpoint.in_flight = 1
    candidates[1].endpoint.figures = Load(waiting=4.0)
    assert {names(least_busy.order(candidates, b"", LATER, Random(seed))) for seed in range(20)} == {"a b"}


def test_how_busy_one_is_is_measured_by_its_weight() -> None:
    candidates = [candidate("small", 1), candidate("large", 10)]
    candidates[0].endpoint.in_flight, candidates[1].endpoint.in_flight = 1, 5
    assert names(least_busy.order(candidates, b"", LATER, Random(1))) == "large small"


def test_two_choices_never_fall_on_the_busiest_of_three() -> None:
    candidates = [candidate("a"), candidate("b"), candidate("c")]
    for one, load in zip(candidates, (0, 5, 9), strict=True):
        one.endpoint.in_flight = load
    orders = Counter(names(least_busy.order(candidates, b"", LATER, Random(seed))) for seed in range(300))
    assert set(orders) == {"a b c", "b a c"}
    assert 150 < orders["a b c"] < 250  # two in three


def test_one_of_no_weight_is_asked_last_however_idle_it_is() -> None:
    candidates = [candidate("a"), candidate("none", 0), candidate("nought", 0)]
    candidates[0].endpoint.in_flight = 50
    assert {least_busy.order(candidates, b"", LATER, Random(seed))[0].endpoint.name for seed in range(50)} == {"a"}


def test_two_choices_keep_the_loads_close_together() -> None:
    candidates, random = [candidate(name) for name in "abcdefgh"], Random(3)
    for _ in range(800):
        least_busy.order(candidates, b"", LATER, random)[0].endpoint.in_flight += 1
    loads = [one.endpoint.in_flight for one in candidates]
    assert max(loads) - min(loads) <= 8


# --- by the prompt's head ---------------------------------------------------------------------------------------

HEADS = [b"prompt %d" % number for number in range(3000)]


def owners(candidates: list[Candidate]) -> dict[bytes, str]:
    return {head: prefix.order(candidates, head, LATER, Random(1))[0].endpoint.name for head in HEADS}


def test_the_same_head_goes_to_the_same_deployment_whatever_the_order_of_the_file() -> None:
    candidates = [candidate(name) for name in "abcd"]
    assert owners(candidates) == owners(candidates[::-1])


def test_heads_are_spread_by_weight() -> None:
    count = Counter(owners([candidate("a", 1), candidate("b", 1), candidate("c", 2)]).values())
    for name, share in (("a", 0.25), ("b", 0.25), ("c", 0.5)):
        assert abs(count[name] / len(HEADS) - share) < 0.03


def test_names_alike_but_for_their_ends_have_their_shares_all_the_same() -> None:
    long = "x" * 80
    assert max(Counter(owners([candidate(long + "a"), candidate(long + "b")]).values()).values()) < 0.55 * len(HEADS)


def test_when_one_goes_only_its_own_heads_move_and_come_back_with_it() -> None:
    candidates = [candidate(name) for name in "abcd"]
    before = owners(candidates)
    after = owners([one for one in candidates if one.endpoint.name != "c"])
    for head, name in before.items():
        assert after[head] == name or name == "c"
    moved = Counter(after[head] for head in HEADS if before[head] == "c")
    assert min(moved.values()) > 0.25 * moved.total()
    assert owners(candidates) == before


def test_the_second_choice_of_a_head_is_where_it_would_go_without_the_first() -> None:
    candidates = [candidate(name) for name in "abcd"]
    for head in HEADS[:200]:
        first, second, *_ = prefix.order(candidates, head, LATER, Random(1))
        rest = [one for one in candidates if one is not first]
        assert prefix.order(rest, head, LATER, Random(1))[0] is second


@pytest.mark.parametrize("weights", [(1, 1), (1, 1, 1, 1), (4, 2, 1, 1)])
def test_one_head_alone_does_not_load_its_deployment_beyond_its_share_and_a_quarter(weights: tuple[int, ...]) -> None:
    candidates = [candidate(f"e{place}", weight) for place, weight in enumerate(weights)]
    for sent in range(1, 1001):
        prefix.order(candidates, b"all the same", LATER, Random(1))[0].endpoint.in_flight += 1
        for one, weight in zip(candidates, weights, strict=True):
            assert one.endpoint.in_flight <= math.ceil(prefix.BOUND * sent * weight / sum(weights))
    assert sum(one.endpoint.in_flight for one in candidates) == 1000


def test_over_its_bound_a_deployment_is_still_the_last_resort() -> None:
    candidates = [candidate(name) for name in "ab"]
    first = prefix.order(candidates, b"x", LATER, Random(1))[0]
    first.endpoint.figures = Load(waiting=100.0)
    assert prefix.order(candidates, b"x", LATER, Random(1))[1] is first


def test_one_that_has_just_come_back_takes_its_heads_back_little_by_little() -> None:
    candidates = [candidate(name) for name in "ab"]
    candidates[0].endpoint.mark_recovered(LATER)
    counts = []
    for after in (0.0, 5.0, 10.0):
        firsts = [prefix.order(candidates, head, LATER + after, Random(1))[0] for head in HEADS]
        counts.append(sum(one is candidates[0] for one in firsts) / len(HEADS))
    assert counts == pytest.approx([0.1 / 1.1, 0.5 / 1.5, 0.5], abs=0.03)


def test_the_head_of_a_chat_is_its_messages_up_to_the_configured_length() -> None:
    entry = model("prefix", a="vllm", b="vllm", c="vllm")

    def first(text: str) -> str:
        asked = chat()
        body = b'[{"role": "user", "content": "%s"}]' % text.encode()
        asked.body["messages"] = type(asked.body["messages"])(body)
        return plan(asked, entry, None, LATER, Random(1))[0].endpoint.name

    long = "x" * 64
    assert {first(long + str(end)) for end in range(30)} == {first(long)}
    assert len({first(str(begin) + long) for begin in range(30)}) == 3


# --- health -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["weighted", "round_robin", "least_busy", "prefix"])
def test_those_that_are_down_or_left_alone_are_not_asked_while_others_are_there(policy: config.tables.Policy) -> None:
    entry = model(policy, down="vllm", alone="vllm", up="vllm", well="vllm", both="vllm")
    fail(entry, "alone", "both")
    for name in ("down", "both"):
        endpoint(entry, name).mark_down("gone")
    for seed in range(20):
        order = plan(chat(), entry, None, LATER, Random(seed))
        assert names(order) in ("up well", "well up")


def test_when_all_are_left_alone_it_is_a_503_that_says_when_to_come_back() -> None:
    entry = model(a="vllm", b="vllm")
    fail(entry, "a", now=LATER)
    fail(entry, "b", now=LATER + 0.5)
    with pytest.raises(Unavailable) as raised:
        order_candidates(entry.candidates, entry, b"", LATER + 0.6, Random(1))
    assert raised.value.headers["retry-after"] == "1"
    assert names(order_candidates(entry.candidates, entry, b"", LATER + 1.0, Random(1))) == "a"


def test_a_long_wait_is_told_in_whole_seconds() -> None:
    entry = model(a="vllm")
    fail(entry, "a")
    for now in (LATER + 1.0, LATER + 3.0):
        breaker(entry, "a").record_failure(breaker(entry, "a").began(now), now)
    with pytest.raises(Unavailable) as raised:
        order_candidates(entry.candidates, entry, b"", LATER + 3.5, Random(1))
    assert raised.value.headers["retry-after"] == "4"  # 3.5 s are left


def test_while_a_trial_is_under_way_the_others_are_told_to_come_back() -> None:
    entry = model(a="vllm")
    fail(entry, "a")
    assert breaker(entry, "a").began(LATER + 59.0)
    with pytest.raises(Unavailable) as raised:
        order_candidates(entry.candidates, entry, b"", LATER + 60.0, Random(1))
    assert raised.value.headers["retry-after"] == "1"


def test_one_alone_that_is_down_is_tried_all_the_same() -> None:
    entry = model(a="vllm")
    endpoint(entry, "a").mark_down("gone")
    assert names(order_candidates(entry.candidates, entry, b"", LATER, Random(1))) == "a"


# --- capability -------------------------------------------------------------------------------------------------


def able(asked: Call, entry: ModelRoute, seed: int) -> set[str]:
    return {one.endpoint.engine for one in plan(asked, entry, None, LATER, Random(seed))}


@pytest.mark.parametrize("policy", ["weighted", "round_robin", "least_busy", "prefix"])
@pytest.mark.parametrize("state", ["well", "down"])
def test_what_only_vllm_can_do_never_goes_to_tgi(policy: config.tables.Policy, state: str) -> None:
    entry = model(policy, t="tgi", u="tgi", v="vllm", w="vllm")
    if state == "down":
        for name in ("v", "w"):
            endpoint(entry, name).mark_down("gone")
    for seed in range(20):
        assert able(chat(top_k=1), entry, seed) == {"vllm"}
        assert able(chat(), entry, seed) == ({"vllm", "tgi"} if state == "well" else {"tgi"})


def test_when_all_that_can_do_it_are_left_alone_it_is_a_503_and_not_the_other_engine() -> None:
    entry = model(t="tgi", v="vllm", w="vllm")
    fail(entry, "v", "w")
    with pytest.raises(Unavailable):
        plan(chat(top_k=1), entry, None, LATER, Random(1))
    assert names(plan(chat(), entry, None, LATER, Random(1))) == "t"
    with pytest.raises(Unavailable):
        plan_path("/v1/embeddings", b"", entry, None, LATER, Random(1))


def test_a_pinned_engine_alone_is_asked_and_an_unknown_one_refused() -> None:
    entry = model(t="tgi", v="vllm")
    for seed in range(10):
        assert names(plan(chat(), entry, "tgi", LATER, Random(seed))) == "t"
    for pin in ("openai", "nonsense", ""):
        with pytest.raises(InvalidRequest) as raised:
            plan(chat(), entry, pin, LATER, Random(1))
        assert raised.value.param == "x-pointsman-engine"
