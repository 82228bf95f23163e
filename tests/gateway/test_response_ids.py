"""Ids of Responses: they lead back to the engine that made the response, for its tenant alone."""

from typing import Any

import pytest

from gateway import config
from gateway.access.keys.text import digest
from gateway.api.passthrough import response_ids
from gateway.config import BreakerConfig, DeploymentConfig
from gateway.observe.labels import operation
from gateway.observe.trace_attributes import route
from gateway.upstream.endpoints import Endpoint
from tests.support.errors import is_error
from tests.support.harness import Asked, Engine, Gateway, Script, checked, engine, gateway, streamed, whole
from tests.support.keys import GOOD, PLAIN, SECRET, changed, ring
from tests.support.passed import ASKED, RESPONSES, STREAMED, event, heard, response

OWN = "resp_85ca8792b26f1416"


def endpoint(name: str = "a", url: str = "http://one:8000", **more: Any) -> Endpoint:
    return Endpoint(DeploymentConfig(name=name, engine="vllm", url=url, **more), BreakerConfig(), 0.0)


ONE, TWO = endpoint(), endpoint("b", "http://two:8000")
ANY = [TWO, ONE]


def test_an_id_leads_back_to_its_engine_and_says_nothing_else() -> None:
    given = response_ids.encode(OWN, ONE, "t")
    assert given.startswith("resp_")
    assert response_ids.is_encoded(given)
    assert response_ids.is_safe(given)
    assert response_ids.decode(given, ANY, "t") == (ONE, OWN)
    assert response_ids.decode(given, ANY, "u") is None, "another tenant's"
    assert response_ids.decode(given, [TWO], "t") is None, "the engine is gone"


def test_it_leads_there_by_another_gateway_that_calls_the_engine_otherwise() -> None:
    renamed = endpoint("another-name")
    assert response_ids.decode(response_ids.encode(OWN, ONE, "t"), [TWO, renamed], "t") == (renamed, OWN)


def test_where_the_engine_has_a_key_an_id_cannot_be_made_without_it() -> None:
    secret, guessed = endpoint(api_key="secret"), endpoint(api_key="guess")
    assert response_ids.decode(response_ids.encode(OWN, guessed, "t"), [secret], "t") is None


@pytest.mark.parametrize("given", ["resp_pm_", "resp_pm_x", "resp_pm_%%%", "resp_pm_é", "resp_pm_" + "A" * 500, ""])
def test_what_is_no_id_is_nobodys(given: str) -> None:
    assert response_ids.decode(given, ANY, "t") is None


@pytest.mark.parametrize(("own", "safe"), [(OWN, True), ("a.b:c-d", True), ("", False), ("..", False), ("a/b", False)])
def test_only_what_is_one_segment_is_asked_of_an_engine(own: str, safe: bool) -> None:
    assert response_ids.is_safe(own) == safe


def maker(name: str) -> Script:
    """An engine that knows one response, and makes others of it."""
    own = f"resp_{name}"

    async def script(asked: Asked, writer: Any) -> None:
        path, _, query = asked.path.partition("?")
        if asked.method == "POST" and path == RESPONSES:
            previous = asked.json.get("previous_response_id")
            said = response(own, previous_response_id=previous)
            lost = previous not in (None, own)
            if lost:
                writer.write(not_found(previous))
            elif asked.json.get("stream"):
                writer.write(streamed(*(event(f"response.{kind}", response=said) for kind in ("created", "completed"))))
            else:
                writer.write(whole(said))
        elif path.removesuffix("/cancel") != f"{RESPONSES}/{own}":
            writer.write(not_found(path.removeprefix(RESPONSES + "/")))
        elif "stream=true" in query:
            writer.write(streamed(event("response.completed", response=response(own))))
        elif asked.method == "DELETE":
            writer.write(whole({"id": own, "object": "response.deleted", "deleted": True}))
        else:
            writer.write(whole(response(own)))
        await writer.drain()

    return script


def not_found(own: str) -> bytes:
    said = {"message": f"Response with id '{own}' not found.", "type": "invalid_request_error", "param": "response_id"}
    return whole({"error": said | {"code": 404}}, "404 Not Found")


def over_all(*engines: Engine, named: str = "mine") -> config.Config:
    models = config.from_urls({"vllm": [one.url for one in engines]}, named, {})
    return checked(config.Config(models=models))


async def made(front: Gateway, **more: Any) -> Any:
    answer = await front.post(ASKED | {"model": "mine"} | more, RESPONSES)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_response_is_gone_on_from_at_the_engine_that_made_it_whichever_gateway_is_asked() -> None:
    async with engine(maker("a")) as one, engine(maker("b")) as two:
        for first, second in ((over_all(one, two), over_all(two, one)), (over_all(two, one), over_all(one, two))):
            async with gateway(first) as front, gateway(second) as other:
                ids = {(await made(front))["id"] for _ in range(20)}
                assert len(ids) == 2, "both engines have made some"
                for given in ids:
                    for asked in (front, other):
                        answer = await made(asked, previous_response_id=given)
                        assert (answer["id"], answer["previous_response_id"]) == (given, given)
                        assert answer["model"] == "mine"


async def test_the_events_of_a_stream_have_the_same_id() -> None:
    async with engine(maker("a")) as one, gateway(over_all(one)) as front:
        given = (await made(front))["id"]
        answer = await front.post(STREAMED | {"model": "mine", "previous_response_id": given}, RESPONSES)
        said = [one.data["response"] for one in heard(answer.content)]
        assert [(one["id"], one["previous_response_id"], one["model"]) for one in said] == [(given, given, "mine")] * 2


PATHS = [("GET", "", "response"), ("DELETE", "", "response.deleted"), ("POST", "/cancel", "response")]


@pytest.mark.parametrize(("method", "what", "kind"), PATHS)
@pytest.mark.parametrize("query", ["", "?include=x&starting_after=3"])
async def test_the_paths_of_a_response_lead_to_its_engine(method: str, what: str, kind: str, query: str) -> None:
    async with engine(maker("a")) as one, engine(maker("b")) as two, gateway(over_all(one, two)) as front:
        for given in {(await made(front))["id"] for _ in range(20)}:
            one.asked.clear()
            two.asked.clear()
            path = f"{RESPONSES}/{given}{what}{query}"
            answer = await front.client.request(method, path, headers={"openai-beta": "y"})
            assert answer.status_code == 200, answer.text
            assert (answer.json()["id"], answer.json()["object"]) == (given, kind)
            (asked,) = one.asked + two.asked
            assert asked.path.endswith(what + query)
            assert asked.headers["openai-beta"] == "y"


async def test_a_response_is_streamed_again_and_has_a_head() -> None:
    async with engine(maker("a")) as one, gateway(over_all(one)) as front:
        given = (await made(front))["id"]
        answer = await front.client.get(f"{RESPONSES}/{given}?stream=true")
        assert [one.data["response"]["id"] for one in heard(answer.content)] == [given]
        assert answer.headers["content-type"] == "text/event-stream"
        answer = await front.client.head(f"{RESPONSES}/{given}")
        assert (answer.status_code, answer.content) == (200, b"")


OTHER = "sk-pm-efgh5678-" + SECRET
TWO_TENANTS = (
    PLAIN,
    changed(id="efgh5678", name="bob", hash=f"sha256:{digest(OTHER).hex()}"),
)


async def test_another_tenants_key_gets_404_on_each_path_and_the_engine_is_not_asked() -> None:
    async with engine(maker("a")) as one, gateway(over_all(one)) as front:
        front.services.keyring = ring(*TWO_TENANTS)
        front.client.headers["authorization"] = f"Bearer {GOOD}"
        given = (await made(front))["id"]
        one.asked.clear()
        for identity in (given, "resp_a"):  # the engine's own id is nobody's, where there are tenants
            for method, what, _ in PATHS:
                answer = await front.client.request(
                    method, f"{RESPONSES}/{identity}{what}", headers={"authorization": f"Bearer {OTHER}"}
                )
                assert answer.status_code == 404
                assert is_error(answer.json())["message"] == f"Response with id '{identity}' not found."
            answer = await front.post(
                ASKED | {"model": "mine", "previous_response_id": identity}, RESPONSES, authorization=f"Bearer {OTHER}"
            )
            assert answer.status_code == 404
            error = is_error(answer.json())
            assert (error["param"], error["code"]) == ("previous_response_id", "previous_response_not_found")
        assert one.asked == []
        assert (await front.client.get(f"{RESPONSES}/{given}")).status_code == 200


async def test_a_key_that_may_not_ask_the_model_gets_404() -> None:
    async with engine(maker("a")) as one, gateway(over_all(one)) as front:
        given = (await made(front))["id"]
        front.services.keyring = ring(changed(models=["another"], tenant="t"))
        front.client.headers["authorization"] = f"Bearer {GOOD}"
        assert (await front.client.get(f"{RESPONSES}/{given}")).status_code == 404


async def test_without_keys_an_engines_own_id_is_asked_of_all_engines() -> None:
    async with engine(maker("a")) as one, engine(maker("b")) as two, gateway(over_all(one, two)) as front:
        for _ in range(5):
            for own in ("resp_a", "resp_b"):
                assert (await front.client.get(f"{RESPONSES}/{own}")).status_code == 200
                await made(front, previous_response_id=own)
        for answer in (
            await front.client.get(f"{RESPONSES}/resp_0"),
            await front.post(ASKED | {"model": "mine", "previous_response_id": "resp_0"}, RESPONSES),
        ):
            assert answer.status_code == 404
            error = is_error(answer.json())
            assert (error["message"], error["param"]) == ("Response with id 'resp_0' not found.", "response_id")


async def test_a_response_whose_deployment_is_gone_is_404_and_one_that_is_down_503() -> None:
    async with engine(maker("a")) as one, engine(maker("b")) as two:
        async with gateway(over_all(one)) as front:
            given = (await made(front))["id"]
        async with gateway(over_all(two)) as front:
            assert (await front.client.get(f"{RESPONSES}/{given}")).status_code == 404
            answer = await front.post(ASKED | {"model": "mine", "previous_response_id": given}, RESPONSES)
            assert (answer.status_code, is_error(answer.json())["code"]) == (404, "previous_response_not_found")
        async with gateway(over_all(one, two)) as front:
            one.stop()
            assert (await front.client.get(f"{RESPONSES}/{given}")).status_code == 503
            answer = await front.post(ASKED | {"model": "mine", "previous_response_id": given}, RESPONSES)
            assert answer.status_code == 503
        assert two.asked == []


async def test_what_an_engine_says_of_a_response_names_it_as_the_client_does() -> None:
    async with engine(maker("a")) as one, gateway(over_all(one)) as front:
        given = (await made(front))["id"]
        one.script = maker("forgot")
        answer = await front.client.get(f"{RESPONSES}/{given}")
        assert answer.status_code == 404
        assert is_error(answer.json())["message"] == f"Response with id '{given}' not found."


async def test_an_engine_without_the_method_is_named() -> None:
    said = whole({"detail": "Method Not Allowed"}, "405 Method Not Allowed", headers="allow: GET\r\n")
    async with engine(maker("a")) as one, gateway(over_all(one)) as front:
        given = (await made(front))["id"]

        async def script(asked: Asked, writer: Any) -> None:
            writer.write(said)

        one.script = script
        answer = await front.client.delete(f"{RESPONSES}/{given}")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
        assert "vLLM" in is_error(answer.json())["message"]


async def test_to_look_at_a_response_costs_no_tokens() -> None:
    async with engine(maker("a")) as one, gateway(over_all(one)) as front:
        front.services.keyring = ring(changed(tokens_per_minute=100, tenant="t"))
        front.client.headers["authorization"] = f"Bearer {GOOD}"
        given = (await made(front))["id"]
        for query in ("", "?stream=true"):
            answer = await front.client.get(f"{RESPONSES}/{given}{query}")
            assert answer.headers["x-ratelimit-remaining-tokens"] == str(100 - 16)


@pytest.mark.parametrize("what", ["", "/cancel"])
def test_ids_are_no_labels_of_metrics_and_no_routes_of_spans(what: str) -> None:
    path = f"{RESPONSES}/{response_ids.encode(OWN, ONE, 't')}{what}"
    assert (operation(path), route(path)) == ("response", f"{RESPONSES}/{{response}}{what}")
    assert (operation(RESPONSES + "/input_tokens"), route(RESPONSES)) == ("tokenize", RESPONSES)


async def test_an_engine_that_is_none_is_refused_there_too() -> None:
    async with engine(maker("a")) as one, gateway(over_all(one)) as front:
        given = (await made(front))["id"]
        answer = await front.client.get(f"{RESPONSES}/{given}", headers={"x-pointsman-engine": "abacus"})
        assert answer.status_code == 400
