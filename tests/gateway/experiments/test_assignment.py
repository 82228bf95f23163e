"""Which arm a request is in: drawn by its unit alone, with the probability that the plan says, on every surface."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from gateway import config
from gateway.access.principal import Principal
from gateway.experiments.definition import define, treatment_buckets
from gateway.experiments.unit import BUCKETS, UnitHash, of_body, of_chat
from gateway.upstream.breaker import Breaker
from tests.support.dialects import chat
from tests.support.engine_answers import FAILED
from tests.support.experiments import WHOLE_CONTROL, WHOLE_TREATMENT, settings, trial
from tests.support.harness import (
    ANSWER,
    CHAT,
    CHAT_PATH,
    MODEL,
    STREAM,
    TEXT,
    Gateway,
    asking,
    gateway,
    hangs,
    says,
    settled,
    streamed,
    until,
    whole,
)
from tests.support.pairs import ONE_STRIKE
from tests.support.simulators import simulated

ARM = "x-pointsman-arm"
DEPLOYMENT = "x-pointsman-deployment"
TGI = {"inputs": "hi", "parameters": {"max_new_tokens": 2}}
MESSAGES = CHAT | {"max_tokens": 2}
GOOD = says(whole(ANSWER))
BAD = says(whole(FAILED, "500 Internal Server Error"))
TOLERANCE = 4  # standard deviations; seeds are fixed, so that a test passes always or never


def hashes(experiment: str, count: int) -> Iterator[int]:
    made = UnitHash(experiment)
    return (made.of("", [b"%d" % number]).bucket for number in range(count))


def test_units_are_spread_evenly_and_each_experiment_draws_anew() -> None:
    count = 50_000
    found = Counter(hashes("a", count))
    expected = count / BUCKETS
    chi = sum((found[bucket] - expected) ** 2 / expected for bucket in range(BUCKETS))
    assert abs(chi - (BUCKETS - 1)) < TOLERANCE * math.sqrt(2 * BUCKETS)
    both = sum(one < 512 and other < 512 for one, other in zip(hashes("a", count), hashes("b", count), strict=True))
    assert abs(both - count / 4) < TOLERANCE * math.sqrt(count * 3 / 16)


def test_what_a_unit_is_drawn_for_is_independent_of_its_arm() -> None:
    made = UnitHash("a")
    units = [made.of("", [b"%d" % number]) for number in range(20_000)]
    treated = [unit for unit in units if unit.bucket < BUCKETS // 2]
    for share in (sum(one.draw < 0.1 for one in treated) / 0.1, sum(one.is_third for one in treated) * 3):
        assert abs(share - len(treated)) < 0.1 * len(treated)
    assert len({unit.place for unit in units}) > 0.95 * len(units)


def test_a_unit_is_the_same_in_every_process() -> None:
    """A changed hash would move every conversation to another arm."""
    assert UnitHash("a").of("tenant", [b"x", b"y"]).number == 10561675144149602754


@pytest.mark.parametrize(
    ("weights", "ramp", "stage", "buckets"),
    [
        ((1.0, 1.0), (), 0, 512),
        ((90.0, 10.0), (), 0, 102),
        ((1e6, 1.0), (), 0, 1),
        ((1.0, 1e6), (), 0, 1023),
        ((1.0, 0.0), (), 0, 0),
        ((0.0, 1.0), (), 0, 1024),
        ((1.0, 1.0), (5.0, 25.0, 50.0), -1, 0),
        ((1.0, 1.0), (5.0, 25.0, 50.0), 0, 51),
        ((1.0, 1.0), (5.0, 25.0, 50.0), 2, 512),
        ((1.0, 1.0), (100.0,), 0, 1024),
    ],
)
def test_a_share_is_so_many_whole_buckets(
    weights: tuple[float, float], ramp: tuple[float, ...], stage: int, buckets: int
) -> None:
    (model,) = settings(("http://a", "http://b"), weights, ramp=ramp).models
    assert model.experiment is not None
    assert treatment_buckets(model.experiment, model, stage) == buckets


def test_a_changed_arm_unit_or_name_is_another_experiment_and_weights_are_not() -> None:
    urls = ("http://a", "http://b")
    kinds = ("tgi", "vllm")

    def identity(**more: Any) -> str:
        (model,) = settings(urls, kinds=kinds, **more).models
        assert model.experiment is not None
        return define(model.experiment, model).id

    same = [identity(), identity(weights=(9.0, 1.0)), identity(control="tgi"), identity(alpha=0.01, shadow=0.5)]
    assert len(set(same)) == 1
    others = [identity(name="b"), identity(unit="session"), identity(control=["new"], treatment=["old"])]
    assert len({*same, *others}) == 4


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ([{"role": "user", "content": "a"}], [{"role": "user", "content": "a"}], True),
        ([{"role": "user", "content": "a"}], [{"role": "user", "content": "b"}], False),
        ([{"role": "user", "content": "a"}], [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}], 1),
        ([{"role": "system", "content": "s" * 900}, {"role": "user", "content": "a"}],
         [{"role": "system", "content": "s" * 900}, {"role": "user", "content": "b"}], False),
        ([{"role": "system", "content": "s"}, {"role": "user", "content": "a"}],
         [{"role": "system", "content": "t"}, {"role": "user", "content": "a"}], False),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}]}],
         [{"role": "user", "content": [{"type": "text", "text": "b"}]}], False),
        ([{"role": "user", "content": "é"}], [{"content": "\u00e9", "role": "user"}], True),
    ],
)  # fmt: skip
def test_a_conversation_is_its_messages_to_the_first_of_the_users_in_full(one: Any, other: Any, same: bool) -> None:
    made = UnitHash("a")
    units = []
    for messages in (one, other):
        call = chat(messages=messages)
        units.append(made.of("t", of_chat(call.view, call.body["messages"])))  # type: ignore[arg-type]
    assert (units[0] == units[1]) is bool(same)
    assert units[0] != made.of("other tenant", [b""])


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (
            b'{"messages":[{"role":"user","content":"a"}]}',
            b'{"messages":[{"role":"user","content":"a"},{}],"x":1}',
            True,
        ),
        (b'{"messages":[{"role":"user","content":"a"}]}', b'{"messages":[{"role":"user","content":"b"}]}', False),
        (b'{"system":"s","messages":[{"role":"user"}]}', b'{"system":"t","messages":[{"role":"user"}]}', False),
        (b'{"input":[{"role":"user","content":"a"}]}', b'{"input":[{"role":"user","content":"a"},{"role":"x"}]}', True),
        (b'{"input":"a"}', b'{"input":"b"}', False),
        (b"--form a", b"--form b", False),
    ],
)
def test_of_a_body_that_is_passed_on_the_conversation_is_found_or_all_of_it_counts(
    one: bytes, other: bytes, same: bool
) -> None:
    assert (of_body(one) == of_body(other)) is same


@contextlib.asynccontextmanager
async def simulators(**more: Any) -> AsyncIterator[Gateway]:
    """Run a gateway over two simulators of vLLM; all units are the treatment's, which has no weight of its own."""
    async with (
        simulated("vllm") as one,
        simulated("vllm") as two,
        gateway(settings((one, two), WHOLE_TREATMENT, **more)) as front,
    ):
        yield front


SURFACES: list[tuple[str, Any]] = [
    ("/v1/chat/completions", CHAT),
    ("/v1/chat/completions", CHAT | {"stream": True}),
    ("/v1/completions", TEXT),
    ("/v1/completions", TEXT | {"stream": True}),
    ("/generate", TGI),
    ("/generate_stream", TGI),
    ("/", TGI),
    ("/invocations", TGI),
    ("/invocations", CHAT),
    ("/v1/messages", MESSAGES),
    ("/v1/responses", {"model": MODEL, "input": "hi", "max_output_tokens": 4}),
    ("/v1/embeddings", {"model": MODEL, "input": "hi"}),
]


async def test_every_surface_has_its_arm_says_so_and_is_answered_by_it() -> None:
    async with simulators() as front:
        for path, body in SURFACES:
            answer = await front.post(body, path)
            assert (answer.headers.get(ARM), path) == ("treatment", path)
            assert answer.headers.get(DEPLOYMENT) in ("new", None)
            live = front.services.experiments.of(MODEL)
            assert live is not None
        assert front.services.catalog.endpoints[0].last_attempt_at == 0


async def test_what_asks_for_no_answer_of_a_models_is_in_no_arm_and_not_sent_to_the_treatment() -> None:
    async with simulators() as front:
        for path, body in (("/tokenize", TEXT), ("/tokenize", {"inputs": "hi"}), ("/chat_tokenize", CHAT)):
            answer = await front.post(body, path)
            assert answer.status_code == 200
            assert ARM not in answer.headers
        assert front.services.catalog.endpoints[1].last_attempt_at == 0


async def test_errors_tell_the_arm_too_and_a_gateway_without_experiment_tells_none() -> None:
    async with trial(BAD, BAD, retries=config.RetriesConfig(attempts=1)) as made:
        answer = await made.front.post(CHAT)
        assert answer.status_code == 502
        assert answer.headers[ARM] in ("control", "treatment")
    async with trial(GOOD, GOOD) as made:
        made.front.services.experiments.follow(config.Config())
        assert ARM not in (await made.front.post(CHAT)).headers


async def test_a_conversation_stays_in_its_arm_and_arms_have_their_shares() -> None:
    async with trial(GOOD, GOOD, weights=(3.0, 1.0)) as made:
        arms = Counter[str]()
        for number in range(120):
            head = [{"role": "user", "content": f"question {number}"}]
            more = [{"role": "assistant", "content": "x"}, {"role": "user", "content": "and now?"}]
            told = [(await made.front.post(CHAT | {"messages": turns})).headers[ARM] for turns in (head, head + more)]
            assert told[0] == told[1]
            arms[told[0]] += 1
        assert abs(arms["treatment"] - 30) < TOLERANCE * math.sqrt(120 * 3 / 16)
        assert len(made.treatment.asked) == 2 * arms["treatment"]


@pytest.mark.parametrize(
    ("unit", "headers", "body", "same"),
    [
        ("session", [{"x-pointsman-session": "1"}] * 2, [{}, {"seed": 1}], True),
        ("session", [{"x-pointsman-session": str(n)} for n in range(2)], [{}, {}], False),
        ("request", [{}] * 2, [{}, {}], False),
        ("key", [{"authorization": "Bearer a"}] * 2, [{}, {"seed": 1}], True),
        ("key", [{"authorization": "Bearer a"}, {"authorization": "Bearer b"}], [{}, {}], False),
    ],
)
async def test_the_unit_is_what_the_file_says(unit: Any, headers: Any, body: Any, same: bool) -> None:
    class Keys:
        def check(self, presented: str, now: float) -> Principal:
            return Principal(id=presented)

    auth = config.AuthConfig(keys_file="keys.toml")
    async with trial(GOOD, GOOD, unit=unit, auth=auth) as made:
        made.front.services.keyring = Keys()  # type: ignore[assignment]
        drawn, draw = [], made.live.draw
        made.live.draw = lambda unit, *rest: drawn.append(unit) or draw(unit, *rest)  # type: ignore[method-assign,func-returns-value]
        for said, more in zip(headers, body, strict=True):
            await made.front.client.post(CHAT_PATH, json=CHAT | more, headers={"authorization": "Bearer x"} | said)
        assert (drawn[0] == drawn[1]) is same


@pytest.mark.parametrize("policy", ["weighted", "round_robin", "least_busy", "prefix"])
async def test_no_policy_slow_start_or_breaker_changes_the_probability(policy: Any) -> None:
    """The arm is drawn before routing looks at anything."""
    async with trial(GOOD, GOOD, policy=policy, weights=(1.0, 1.0)) as made:
        told = []
        for busy in (0, 50):
            treatment = made.front.services.catalog.endpoints[1]
            treatment.in_flight += busy
            treatment.mark_recovered(made.front.services.clock())
            told.append([await arm(made.front, number) for number in range(30)])
            treatment.in_flight -= busy
        assert told[0] == told[1]


async def arm(front: Gateway, number: int) -> str:
    answer = await front.post(CHAT | {"messages": [{"role": "user", "content": f"question {number}"}]})
    return str(answer.headers[ARM])


async def test_failover_crosses_arms_and_the_arm_stays_what_was_drawn() -> None:
    async with trial(GOOD, BAD, weights=WHOLE_TREATMENT) as made:
        answer = await made.front.post(CHAT)
        assert (answer.status_code, answer.headers[ARM], answer.headers[DEPLOYMENT]) == (200, "treatment", "old")


async def test_an_arm_that_is_down_is_drawn_all_the_same_and_the_other_one_answers() -> None:
    async with trial(GOOD, BAD, weights=WHOLE_TREATMENT, breaker=ONE_STRIKE) as made:
        treatment = made.front.services.catalog.endpoints[1]
        treatment.breaker = opened(treatment.breaker, made.front.services.clock())
        answer = await made.front.post(CHAT)
        assert (answer.status_code, answer.headers[ARM], answer.headers[DEPLOYMENT]) == (200, "treatment", "old")
        assert made.treatment.asked == []


def opened(breaker: Breaker, now: float) -> Breaker:
    breaker.record_failure(False, now)
    return breaker


async def test_hedging_stays_inside_the_arm() -> None:
    async with (
        trial(GOOD, hangs(), weights=WHOLE_TREATMENT, hedge_after=0.01) as made,
        asking(made.front, CHAT | {"stream": True}),
    ):
        await until(lambda: made.treatment.asked)
        await settled(lambda: len(made.control.asked))
        assert made.control.asked == []


@pytest.mark.parametrize(
    ("headers", "body"),
    [({"x-pointsman-engine": "vllm"}, {}), ({}, {"min_p": 0.1})],
    ids=["pin", "capability"],
)
async def test_what_only_one_arm_may_answer_is_in_none(headers: dict[str, str], body: Any) -> None:
    async with (
        simulated("tgi") as one,
        simulated("vllm") as two,
        gateway(settings((one, two), WHOLE_CONTROL, ("tgi", "vllm"), control="tgi", treatment="vllm")) as front,
    ):
        answer = await front.client.post(CHAT_PATH, json=CHAT | body, headers=headers)
        assert (answer.status_code, answer.headers[DEPLOYMENT]) == (200, "new")
        assert ARM not in answer.headers


async def test_a_request_without_a_session_is_in_no_arm_and_the_controls() -> None:
    async with trial(GOOD, GOOD, unit="session", weights=(0.001, 1000.0)) as made:
        for _ in range(5):
            answer = await made.front.post(CHAT)
            assert ARM not in answer.headers
            assert answer.headers[DEPLOYMENT] == "old"


async def test_a_cached_answer_is_of_one_arm_alone() -> None:
    cache = config.CacheConfig(store="memory")
    script = says(streamed(*STREAM))
    streamed_chat = CHAT | {"stream": True}
    async with trial(script, script, weights=WHOLE_CONTROL, cache=cache) as made:
        live = made.live
        told = []
        for buckets in (0, 1024, 0):
            live.buckets = buckets
            answer = await made.front.post(streamed_chat)
            told.append((answer.headers[ARM], answer.headers["x-pointsman-cache"]))
        assert told == [("control", "miss"), ("treatment", "miss"), ("control", "hit")]
