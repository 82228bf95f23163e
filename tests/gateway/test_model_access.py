"""What a key may learn of the models, and by which name the gateway knows what a client calls otherwise."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from itertools import product
from typing import Any

import httpx
import pytest

from gateway.access.principal import Principal
from gateway.api.passthrough import JSON_PATHS
from gateway.config import Config, DeploymentConfig, ModelConfig, ServerConfig
from gateway.observe.logs import RequestLog
from tests.support.harness import ANSWER, Asked, Gateway, checked, engine, gateway, whole
from tests.support.scrape import scraped

SERVED = ("public-lora", "secret-lora")  # what the engine says that it serves, besides what is configured
MESSAGES = [{"role": "user", "content": "hi"}]
TGI_PATHS = ("/generate", "/generate_stream", "/")
TEXT_ANSWER = ANSWER | {"choices": [{"index": 0, "text": "x", "logprobs": None, "finish_reason": "stop"}]}


class Keys:
    """Knows one key, whose holder may use what a test says."""

    def __init__(self, *models: str) -> None:
        self.models = models

    def check(self, presented: str, now: float) -> Principal:
        return Principal(id="k", models=self.models)


async def answered(asked: Asked, writer: Any) -> None:
    """Answer any path as an engine does, well enough for the gateway."""
    writer.write(whole(TEXT_ANSWER if asked.path == "/v1/completions" else ANSWER))


@asynccontextmanager
async def known(tgi_model: str = "", keys: Keys | None = None, only: str = "") -> AsyncIterator[Gateway]:
    """Run a gateway over an engine with three models that are called `public…` and two that are called `secret…`."""
    async with engine(answered) as behind:
        cards = [{"id": name, "max_model_len": 1024} for name in SERVED]
        behind.facts["/v1/models"] = {"data": cards}

        def model(name: str, *aliases: str) -> ModelConfig:
            deployment = DeploymentConfig(name=name or "found", engine="vllm", url=behind.url)
            return ModelConfig(name=name, aliases=list(aliases), deployments=[deployment])

        models = [model("public", "pub"), model("secret", "hush"), model("")]
        models = [one for one in models if only in ("", one.name)]
        async with gateway(checked(Config(models=models, server=ServerConfig(tgi_model=tgi_model)))) as front:
            front.services.keyring = keys  # type: ignore[assignment]  # which asks no more of it
            yield front


async def asked(front: Gateway, path: str, model: str | None) -> httpx.Response:
    """Ask a path for a model, with a key; None: the model is not named."""
    key = {"authorization": "Bearer k"}
    named = {} if model is None else {"model": model}
    if path == "/v1/models/":
        return await front.client.get(path + (model or ""), headers=key)
    if path == "/info":
        return await front.client.get(path, headers=key)
    if path == "/v1/audio/transcriptions":
        return await front.client.post(path, data=named, files={"file": b"x"}, headers=key)
    body = {"inputs": "hi"} if path in TGI_PATHS else {"messages": MESSAGES, "prompt": "hi", "input": "hi"} | named
    return await front.client.post(path, json=body, headers=key)


PATHS = ("/v1/chat/completions", "/v1/completions", *JSON_PATHS, "/v1/audio/transcriptions", "/v1/models/")
ON_TGI = (*TGI_PATHS, "/info")


# --- keys ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patterns", "there"),
    [
        (("public",), "there are: public."),
        (("public*",), "there are: public, public-lora."),
        (("other", "public-?ora"), "there are: public-lora."),
        (("none-of-these",), ""),
    ],
)
async def test_a_404_names_the_models_alone_that_the_key_is_good_for(patterns: tuple[str, ...], there: str) -> None:
    async with known(keys=Keys(*patterns)) as front:
        for path, unknown in product(PATHS, ("nope", "public-nope", "", None)):
            if path == "/v1/models/" and not unknown:
                continue  # which is the list
            answer = await asked(front, path, unknown)
            assert answer.status_code == 404, path
            assert there in answer.text, path
            assert ("there are" in answer.text) == bool(there), path
            assert not any(name in answer.text for name in ("secret", "hush")), path


@pytest.mark.parametrize("name", ["secret", "hush", "secret-lora"])
async def test_a_403_names_the_model_as_the_client_did_and_no_other(name: str) -> None:
    async with known(keys=Keys("public*")) as front:
        for path in PATHS:
            answer = await asked(front, path, name)
            assert answer.status_code == 403, path
            assert name in answer.text, path
            assert not any(other in answer.text.replace(name, "") for other in ("secret", "hush", "lora")), path


@pytest.mark.parametrize("name", ["public", "pub", "public-lora"])
async def test_what_a_key_is_good_for_it_may_ask_by_each_of_its_names(name: str) -> None:
    async with known(keys=Keys("public*")) as front:
        for path in PATHS:
            assert (await asked(front, path, name)).status_code == 200, path


async def test_tgis_paths_name_the_models_alone_that_the_key_is_good_for() -> None:
    async with known(keys=Keys("public*")) as front:
        for path in ON_TGI:
            answer = await asked(front, path, None)
            assert "there are several" in answer.text, path
            assert "there are: public, public-lora" in answer.text, path
            assert "secret" not in answer.text, path


@pytest.mark.parametrize("tgi_model", ["secret", "hush", "secret-lora", "secret-nope"])
async def test_tgis_paths_do_not_name_the_model_they_speak_for_to_a_key_for_others(tgi_model: str) -> None:
    async with known(tgi_model, Keys("public*")) as front:
        for path in ON_TGI:
            answer = await asked(front, path, None)
            assert "not good for the model that this path speaks for" in answer.text, path
            assert not any(name in answer.text for name in ("secret", "hush")), path


async def test_without_restriction_tgis_paths_name_the_model_that_is_not_there() -> None:
    async with known("nope", Keys()) as front:
        for path in ON_TGI:
            assert "The model 'nope' does not exist" in (await asked(front, path, None)).text, path


async def test_the_only_model_is_not_named_to_a_key_that_is_not_good_for_it() -> None:
    async with known(keys=Keys("public*"), only="secret") as front:
        for path in (*ON_TGI, "/v1/chat/completions", "/v1/embeddings"):
            answer = await asked(front, path, None)
            assert "not good for the model" in answer.text, path
            assert "secret" not in answer.text, path


@pytest.mark.parametrize(
    ("patterns", "listed"),
    [
        ((), ["hush", "pub", "public", "public-lora", "secret", "secret-lora"]),
        (("public",), ["pub", "public"]),
        (("public*",), ["pub", "public", "public-lora"]),
        (("*-lora",), ["public-lora", "secret-lora"]),
        (("pub",), []),  # patterns are of models' own names
        (("none-of-these",), []),
    ],
)
async def test_the_list_has_every_name_of_what_the_key_is_good_for(
    patterns: tuple[str, ...], listed: list[str]
) -> None:
    async with known(keys=Keys(*patterns)) as front:
        answer = await front.client.get("/v1/models", headers={"authorization": "Bearer k"})
        assert sorted(card["id"] for card in answer.json()["data"]) == listed


# --- aliases ------------------------------------------------------------------------------------------------------


async def test_an_alias_is_listed_once_as_a_card_of_its_own_after_the_models() -> None:
    async with known() as front:
        cards = (await front.client.get("/v1/models")).json()["data"]
        assert [card["id"] for card in cards] == ["public", "secret", "public-lora", "secret-lora", "pub", "hush"]
        by_id = {card["id"]: card for card in cards}
        assert by_id["pub"] == by_id["public"] | {"id": "pub"}
        assert (await front.client.get("/v1/models/pub")).json() == by_id["pub"]


async def test_metrics_and_logs_know_a_model_by_its_own_name_whatever_the_client_called_it() -> None:
    async with known("hush") as front:
        for path in (*PATHS, *ON_TGI):
            written = BytesIO()
            front.services.records.log = RequestLog(written)
            assert (await asked(front, path, "hush")).status_code == 200, path
            front.services.records.flush()
            assert json.loads(written.getvalue())["model"] == "secret", path
        values = (await scraped(front.client)).values()
        assert "secret" in values
        assert "hush" not in values
