"""The engines asked directly, each in its own dialect: the truth that the gateway's answers are held against."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

JSON = dict[str, Any]
STOPPED = {"eos_token": "stop", "stop_sequence": "stop"}


@dataclass(frozen=True)
class Answer:
    """What an engine said, in the words of OpenAI's API, so that it can be compared with `==`."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    logprobs: list[float] = field(default_factory=list, compare=False)


@dataclass(frozen=True)
class Engine:
    """An engine at a URL; `chat` and `complete` take OpenAI's parameters, the few that the tests compare by.

    It is asked over one kept connection: under load vLLM can leave a new one waiting for seconds, its metrics too.
    """

    name: str
    url: str
    running_gauge: str
    waiting_gauge: str
    http: httpx.Client = field(repr=False)

    def chat(self, messages: list[JSON], **parameters: Any) -> Answer:
        """One choice, whole. Both engines speak OpenAI's shape here, TGI with finish reasons of its own."""
        body, _ = self.post("/v1/chat/completions", {"messages": messages} | parameters)
        choice, usage = body["choices"][0], body["usage"]
        return Answer(
            text=choice["message"]["content"],
            finish_reason=STOPPED.get(choice["finish_reason"], choice["finish_reason"]),
            prompt_tokens=usage["prompt_tokens"],
            completion_tokens=usage["completion_tokens"],
            logprobs=[entry["logprob"] for entry in (choice["logprobs"] or {}).get("content", [])],
        )

    def complete(self, prompt: str, **parameters: Any) -> Answer:
        """One choice, whole."""
        return COMPLETE[self.name](self, prompt, parameters)

    def post(self, path: str, body: JSON) -> tuple[Any, httpx.Headers]:
        """The engine's own answer and its headers; any failure is an error of the test's."""
        response = self.http.post(path, json=body)
        assert response.is_success, response.text
        return response.json(), response.headers

    def running(self) -> int:
        """How many sequences the engine is generating now, by its own metrics."""
        return self.gauge(self.running_gauge)

    def waiting(self) -> int:
        """How many sequences wait for room in the engine."""
        return self.gauge(self.waiting_gauge)

    def gauge(self, name: str) -> int:
        """A metric's value; one that has no sample yet is 0."""
        metrics = self.http.get("/metrics").text
        return round(sum(map(float, re.findall(rf"^{name}(?:{{.*}})? (\S+)$", metrics, re.MULTILINE))))

    def own_names(self) -> list[str]:
        """The words by which an answer would give the engine away: its kind, and what it calls its model."""
        models = self.http.get("/v1/models").json()
        return ["vllm", "text-generation", *(model["id"] for model in models["data"])]


def vllm_complete(engine: Engine, prompt: str, parameters: JSON) -> Answer:
    """vLLM has OpenAI's own endpoint."""
    body, _ = engine.post("/v1/completions", {"prompt": prompt} | parameters)
    choice, usage = body["choices"][0], body["usage"]
    return Answer(
        text=choice["text"],
        finish_reason=choice["finish_reason"],
        prompt_tokens=usage["prompt_tokens"],
        completion_tokens=usage["completion_tokens"],
        logprobs=(choice["logprobs"] or {}).get("token_logprobs", []),
    )


def tgi_complete(engine: Engine, prompt: str, parameters: JSON) -> Answer:
    """TGI's own endpoint says what its imitation of OpenAI's leaves out."""
    own = {"max_new_tokens": parameters["max_tokens"], "details": True, "do_sample": False}
    body, headers = engine.post("/generate", {"inputs": prompt, "parameters": own})
    details = body["details"]
    return Answer(
        text=body["generated_text"],
        finish_reason=STOPPED.get(details["finish_reason"], details["finish_reason"]),
        prompt_tokens=int(headers["x-prompt-tokens"]),
        completion_tokens=details["generated_tokens"],
        logprobs=[token["logprob"] for token in details["tokens"]],
    )


COMPLETE: dict[str, Callable[[Engine, str, JSON], Answer]] = {"vllm": vllm_complete, "tgi": tgi_complete}
GAUGES = {
    "vllm": ("vllm:num_requests_running", "vllm:num_requests_waiting"),
    "tgi": ("tgi_batch_current_size", "tgi_queue_size"),
}


def engine_at(name: str, url: str) -> Engine:
    """The engine of that kind at that URL."""
    url = url.rstrip("/")
    return Engine(name, url, *GAUGES[name], httpx.Client(base_url=url, timeout=60, trust_env=False))
