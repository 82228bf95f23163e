"""HEAD goes wherever GET does; `/` is alive, as TGI says it; what a path does not take is named."""

import httpx
import pytest

from tests.support.harness import ANSWER, configured, engine, gateway, over, says, until, whole
from tests.support.scrape import scraped

GETS = ["/v1/models", "/v1/models/tiny", "/info", "/healthz", "/health", "/ping", "/readyz", "/metrics", "/"]
UNLIKE = {"date", "x-request-id", "x-pointsman-overhead-ms"}  # from one request to the next


def fixed(answer: httpx.Response, path: str) -> dict[str, str]:
    """Return the headers that are the same for each request."""
    unlike = UNLIKE | {"content-length"} if path == "/metrics" else UNLIKE
    return {name: value for name, value in answer.headers.items() if name not in unlike}


@pytest.mark.parametrize("kind", ["vllm", "tgi"])
@pytest.mark.parametrize("path", GETS)
async def test_head_has_the_status_and_the_headers_of_get_and_no_body(kind: str, path: str) -> None:
    async with over(says(b""), kind) as (front, _):
        got, asked = await front.client.get(path), await front.client.head(path)
        assert got.status_code == asked.status_code == 200
        assert asked.content == b""
        assert int(asked.headers["content-length"]) > 0 or path == "/"
        assert fixed(asked, path) == fixed(got, path)
        assert (await front.client.get("/healthz")).json() == {"status": "ok"}  # the same connection is good


@pytest.mark.parametrize(("path", "status"), [("/v1/models/none", 404), ("/nope", 404), ("/v1/chat/completions", 405)])
async def test_head_is_refused_as_get_is(path: str, status: int) -> None:
    async with over(says(b"")) as (front, _):
        for method in ("GET", "HEAD"):
            answer = await front.client.request(method, path)
            assert answer.status_code == status
            assert bool(answer.content) == (method == "GET")


async def test_head_of_what_is_not_ready_is_a_503() -> None:
    async with engine(says(b"")) as behind, gateway(configured(behind.url)) as front:
        front.services.draining = True
        assert (await front.client.head("/readyz")).status_code == 503


async def test_the_root_is_alive_as_tgi_says_it() -> None:
    async with over(says(b"")) as (front, _):
        answer = await front.client.get("/")
        assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "0")
        assert "content-type" not in answer.headers


async def test_the_root_is_alive_without_engines_models_and_keys_and_in_a_drain() -> None:
    async with gateway(configured("http://127.0.0.1:9", "http://127.0.0.1:9"), ready=False) as front:
        front.services.draining = True
        for method in ("GET", "HEAD"):
            assert (await front.client.request(method, "/", headers={"authorization": "Bearer x"})).status_code == 200


async def test_post_to_the_root_is_tgis_to_generate() -> None:
    async with over(says(whole([{"generated_text": "hi"}])), "tgi") as (front, behind):
        answer = await front.post({"inputs": "x"}, "/")
        assert (answer.status_code, answer.json()) == (200, [{"generated_text": "hi"}])
        assert [asked.path for asked in behind.asked] == ["/"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/", {"POST", "GET", "HEAD"}),
        ("GET", "/generate", {"POST"}),
        ("POST", "/info", {"GET", "HEAD"}),
        ("POST", "/healthz", {"GET", "HEAD"}),
        ("DELETE", "/v1/models", {"GET", "HEAD"}),
        ("HEAD", "/v1/chat/completions", {"POST"}),
        ("PUT", "/v1/models/tiny", {"GET", "HEAD", "OPTIONS"}),
    ],
)
async def test_a_405_says_what_the_path_takes(method: str, path: str, allowed: set[str]) -> None:
    async with over(says(b"")) as (front, _):
        answer = await front.client.request(method, path)
        assert answer.status_code == 405
        assert {name.strip() for name in answer.headers["allow"].split(",")} == allowed


async def test_probes_count_as_nothing_and_a_head_of_the_models_as_good() -> None:
    async with over(says(whole(ANSWER))) as (front, _):
        for path in ("/", "/healthz", "/readyz", "/v1/models", "/v1/models/tiny"):
            await front.client.head(path)
        await front.client.get("/")
        await until(lambda: not front.services.sweep.open)
        figures = await scraped(front.client)
        assert figures.sum("pointsman_requests_total") == 2
        assert figures.sum("pointsman_requests_total", operation="models", outcome="ok") == 2
