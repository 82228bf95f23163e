"""A simulator of TGI 3.3.6-dev0's router: routes, generations and metrics. Checks: `tgi_check`; shapes: `tgi_wire`."""

import json
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial

from msgspec.structs import replace

from backends.sim import tgi_check, tgi_serde, tgi_wire
from backends.sim.engine import Engine, Handler, Job, Overloaded
from backends.sim.faults import Broken
from backends.sim.http import DONE, Headers, Reply, event, json_reply
from backends.sim.metrics import Metrics
from backends.sim.text import UNASKED, Step, answer_tokens, format_duration, pieces, written
from backends.sim.tgi_check import Body, Failed, Plan, invalid
from backends.sim.tgi_serde import Rejected

_CORS = (
    ("vary", "origin, access-control-request-method, access-control-request-headers"),
    ("access-control-allow-origin", "*"),
)
_PAYLOAD = 2_000_000
_FAILED = "Request failed during generation: Server error: transport error"
_KINDS = {
    "tgi_request_count": "counter",
    "tgi_request_success": "counter",
    "tgi_request_failure": "counter",
    "tgi_queue_size": "gauge",
    "tgi_batch_current_size": "gauge",
    "tgi_batch_current_max_tokens": "gauge",
    "tgi_request_duration": "histogram",
    "tgi_request_queue_duration": "histogram",
    "tgi_request_inference_duration": "histogram",
    "tgi_request_mean_time_per_token_duration": "histogram",
    "tgi_request_input_length": "histogram",
    "tgi_request_generated_tokens": "histogram",
}


class Tgi(Engine):
    """The application. See `Engine` for what it shares with the other simulator."""

    generating = frozenset(
        ("/", "/generate", "/generate_stream", "/invocations", "/v1/chat/completions", "/v1/completions")
    )
    keep_alive = b":\n\n"

    def prepare(self) -> None:
        """Set up routes and metrics."""
        self.keep_alive_s = 15.0
        self.metrics = Metrics("", _KINDS)
        self.routes = {
            ("GET", "/health"): self._health,
            ("GET", "/ping"): self._health,
            ("GET", "/"): self._health,
            ("GET", "/info"): self._info,
            ("GET", "/metrics"): self._metrics,
            ("GET", "/v1/models"): self._models,
            ("POST", "/tokenize"): self._tokenize,
            ("POST", "/chat_tokenize"): self._chat_tokenize,
            ("POST", "/"): self._compat,
            ("POST", "/invocations"): self._compat,
            ("POST", "/generate"): self._generate,
            ("POST", "/generate_stream"): self._generate_stream,
            ("POST", "/v1/chat/completions"): self._chat,
            ("POST", "/v1/completions"): self._completions,
        }

    async def reply(self, job: Job) -> Reply:
        """Route, guard, and put errors into TGI's three shapes."""
        request = job.request
        methods = [method for method, path in self.routes if path == request.path]
        handler = self.routes.get(("GET" if request.method == "HEAD" else request.method, request.path))
        if request.method == "OPTIONS" and methods:
            allowed = (("access-control-allow-methods", "GET,POST"), ("access-control-allow-headers", "content-type"))
            reply = Reply(headers=(*allowed, ("allow", ",".join(methods))))
        elif handler is None:
            reply = Reply(status=405, headers=(("allow", ",".join(methods)),)) if methods else Reply(status=404)
        elif request.method == "POST" and request.path != "/chat_tokenize" and not self._authorized(request.headers):
            reply = Reply(status=401)
        else:
            reply = await self._caught(job, handler)
        return replace(reply, headers=(*reply.headers, *_CORS))

    def _authorized(self, headers: dict[str, str]) -> bool:
        """The key is compared without regard to case, as TGI does."""
        key = self.options.api_key
        return not key or headers.get("authorization", "").lower() == f"bearer {key}".lower()

    async def _caught(self, job: Job, handler: Handler) -> Reply:
        try:
            return await handler(job)
        except Rejected as error:
            kind = (("content-type", "text/plain; charset=utf-8"),)
            return Reply(status=error.status, headers=kind, body=error.text.encode())
        except Failed as error:
            whole = self._error(error)
            return job.told(error) if job.told else whole
        except Broken as fault:
            return self.broken(fault, self._error(Failed(_FAILED, "generation", 424)))

    def _error(self, error: Failed) -> Reply:
        if error.kind in ("validation", "overloaded", "generation"):
            self.metrics.add("tgi_request_failure", 1, f'err="{error.kind}"')
        return json_reply({"error": error.text, "error_type": error.kind}, error.status)

    # Small endpoints

    async def _health(self, _: Job) -> Reply:
        if self.unhealthy():
            return json_reply({"error": "unhealthy", "error_type": "healthcheck"}, 503)
        return Reply()

    async def _info(self, _: Job) -> Reply:
        options = self.options
        limits = {
            "model_id": options.model,
            "max_concurrent_requests": options.max_concurrent,
            "max_stop_sequences": options.max_stops,
            "max_input_tokens": options.max_model_len - 1,
            "max_total_tokens": options.max_model_len,
            "max_client_batch_size": options.max_batch,
        }
        return json_reply(json.loads(tgi_wire.INFO) | limits)

    async def _metrics(self, _: Job) -> Reply:
        return Reply(headers=(("content-type", "text/plain; charset=utf-8"),), body=self.metrics.render())

    async def _models(self, _: Job) -> Reply:
        model = self.options.model
        return json_reply(
            {"object": "list", "data": [{"id": model, "object": "model", "created": 0, "owned_by": model}]}
        )

    async def _tokenize(self, job: Job) -> Reply:
        return json_reply(tgi_wire.tokenized(self._native_body(job)["inputs"]))

    async def _chat_tokenize(self, job: Job) -> Reply:
        body = self._body(job, tgi_serde.CHAT, "messages", "ChatRequest with 19 elements")
        text = tgi_check.chat_prompt(body, [])
        return json_reply({"tokenize_response": tgi_wire.tokenized(text), "templated_text": text})

    # Reading and generating

    def _body(self, job: Job, fields: dict[str, tgi_serde.Check], required: str, struct: str) -> Body:
        if not job.request.headers.get("content-type", "").startswith("application/json"):
            raise Rejected(415, "Expected request with `Content-Type: application/json`")
        if len(job.request.body) > _PAYLOAD:
            raise Rejected(413, "Failed to buffer the request body: length limit exceeded")
        return tgi_serde.parse(job.request.body, fields, required, struct)

    def _native_body(self, job: Job) -> Body:
        body = self._body(job, tgi_serde.GENERATE, "inputs", "GenerateRequest with 2 elements")
        return {"parameters": {"do_sample": True}} | body

    def _plan(self, job: Job, prompt: str, asked: Body, *, fixed: str | None = None, sequences: int = 1) -> Plan:
        """Take a permit, then check native parameters, as TGI does."""
        self.metrics.add("tgi_request_count")
        tokens = pieces(prompt)[-(asked.get("truncate") or 0) :]
        try:
            self.admit(job, sequences, len(tokens))
        except Overloaded:
            raise Failed("Model is overloaded", "overloaded", 429) from None
        tgi_check.check_ranges(asked, self.options.max_top_n, self.options.max_stops)
        if not prompt:
            raise invalid("`inputs` cannot be empty")
        tgi_check.check_truncate(asked.get("truncate"), self.options.max_model_len)
        seed = self.rng.getrandbits(64) if asked.get("seed") is None else asked["seed"]
        return Plan(
            prompt="".join(tokens),
            count=len(tokens),
            limit=tgi_check.limit(len(tokens), asked.get("max_new_tokens"), self.options.max_model_len),
            seed=seed if tgi_check.samples(asked) else None,
            salt=tgi_check.salt(asked),
            stops=tuple(asked.get("stop") or ()),
            fixed=tgi_check.grammar_text(asked["grammar"]) if asked.get("grammar") else fixed,
            endless=job.struck_by("run-on"),
        )

    def _steps(self, plan: Plan, child: int = 0) -> Iterator[Step]:
        if plan.fixed is not None:
            return tgi_wire.steps(format_duration(plan.fixed), plan.limit, plan.stops)
        length = None if plan.endless else answer_tokens(plan.prompt, *self.options.answer_tokens)
        seed = None if plan.seed is None else plan.seed + child
        return tgi_wire.steps(written(plan.prompt, seed=seed, salt=plan.salt, length=length), plan.limit, plan.stops)

    def _promise(self, job: Job, size: int, *, native: bool) -> None:
        """A stream is promised: from here on errors are events of a 200."""
        job.told = partial(_events_of, size=size, native=native)

    def _stream(self, events: AsyncIterator[bytes], size: int, *, native: bool = False) -> Reply:
        failed = _error_event(Failed(_FAILED, "generation"), native=native)
        return Reply(headers=tgi_wire.stream_headers(size), events=self.guarded(events, failed))

    # TGI's own API

    async def _generate(self, job: Job) -> Reply:
        body = self._native_body(job)
        return json_reply(*await self._native(job, body["inputs"], body["parameters"]))

    async def _generate_stream(self, job: Job) -> Reply:
        body = self._native_body(job)
        return self._native_stream(job, body["inputs"], body["parameters"])

    async def _compat(self, job: Job) -> Reply:
        """`POST /`: the prompt is part of the text unless that is declined; a whole answer stands in an array."""
        body = self._native_body(job)
        asked = dict(body["parameters"])
        if asked.get("return_full_text") is None:
            asked["return_full_text"] = True
        if body.get("stream"):
            return self._native_stream(job, body["inputs"], asked)
        answer, status, headers = await self._native(job, body["inputs"], asked)
        return json_reply([answer], status, headers)

    async def _native(self, job: Job, prompt: str, asked: Body) -> tuple[Body, int, Headers]:
        plan = self._plan(job, prompt, asked)
        done = await self.whole(job, [self._steps(plan, child) for child in range(asked.get("best_of") or 1)])
        answer = tgi_wire.generated(done, plan.seed, asked, prompt, plan.prompt)
        return answer, 200, tgi_wire.whole_headers(job, len(prompt), plan.count, len(done[0]), timed=True)

    def _native_stream(self, job: Job, prompt: str, asked: Body) -> Reply:
        self._promise(job, len(prompt), native=True)
        tgi_check.check_streamable(asked)
        plan = self._plan(job, prompt, asked)
        return self._stream(self._native_events(job, plan, asked, prompt), len(prompt), native=True)

    async def _native_events(self, job: Job, plan: Plan, asked: Body, prompt: str) -> AsyncIterator[bytes]:
        done: list[Step] = []
        async for steps in self.rounds(job, [self._steps(plan)]):
            if not steps:
                yield self.keep_alive
            for _, step in steps:
                done.append(step)
                yield event(tgi_wire.stream_event(done, plan.seed, plan.count, asked, prompt))

    # OpenAI's API, as TGI understands it

    async def _completions(self, job: Job) -> Reply:
        body = self._body(job, tgi_serde.COMPLETION, "prompt", "CompletionRequest with 13 elements")
        prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
        if body.get("suffix") is not None:
            words = "Suffix is not supported and can be achieved by preprocessing the prompt."
            raise Failed(words, "suffix not supported")
        if len(prompts) > (most := self.options.max_batch):
            words = f"Number of prompts exceeds the maximum allowed batch size of {most}"
            raise Failed(words, "batch size exceeded")
        size = sum(map(len, prompts))
        if body.get("stream"):
            self._promise(job, size, native=False)
        self.metrics.add("tgi_request_count")
        plans = [self._plan(job, prompt, tgi_check.native(body)) for prompt in prompts]
        head = self._head("text_completion", self.options.model)
        if body.get("stream"):
            return self._stream(self._completion_events(job, plans, head), size)
        done = await self.whole(job, [self._steps(plan) for plan in plans])
        count = sum(plan.count for plan in plans)
        headers = tgi_wire.whole_headers(job, size, count, sum(map(len, done)))
        return json_reply(tgi_wire.completion(head, done, count), 200, headers)

    async def _completion_events(self, job: Job, plans: list[Plan], head: Body) -> AsyncIterator[bytes]:
        done = [0 for _ in plans]
        async for steps in self.rounds(job, [self._steps(plan) for plan in plans]):
            if not steps:
                yield self.keep_alive
            for index, step in steps:
                done[index] += 1
                yield event(tgi_wire.completion_chunk(head, index, step, plans[index].count, done[index]))
        yield DONE

    async def _chat(self, job: Job) -> Reply:
        body = self._body(job, tgi_serde.CHAT, "messages", "ChatRequest with 19 elements")
        functions = tgi_check.tools(body)
        prompt = _prompt(job, body, functions)
        model = self.options.model if body.get("model") in (None, "tgi") else body["model"]
        if body.get("stream"):
            self._promise(job, len(prompt), native=False)
        self.metrics.add("tgi_request_count")
        fixed = tgi_check.tool_text(body, functions, eager=self.options.calls) if functions else None
        if job.fault and job.fault.kind == "empty-tool" and functions:
            fixed = "{ }"
        asked = tgi_check.native(body) | {"grammar": body.get("response_format")}
        plan = self._plan(job, prompt, asked, fixed=fixed)
        if body.get("stream"):
            head = self._head("chat.completion.chunk", model)
            return self._stream(self._chat_events(job, body, plan, head, tools=bool(functions)), len(prompt))
        head = self._head("chat.completion", model)
        return json_reply(*await self._chat_whole(job, body, plan, head, len(prompt), tools=bool(functions)))

    async def _chat_whole(
        self, job: Job, body: Body, plan: Plan, head: Body, size: int, *, tools: bool
    ) -> tuple[Body, int, Headers]:
        """A `no_tool` runs a second generation, whose text and prompt count go with the first one's other facts."""
        [first] = await self.whole(job, [self._steps(plan)])
        done = first
        if tools and tgi_wire.names_no_tool(first):
            plan = self._without_tools(job, body)
            [done] = await self.whole(job, [self._steps(plan)])
        elif tools and (wrong := tgi_wire.tool_fault(first)) is not None:
            raise Failed(f"Tool error: Failed to parse generated text: {wrong}", "tool_error")
        headers = tgi_wire.whole_headers(job, size, plan.count, len(done), timed=True)
        if tools and done is first:
            return tgi_wire.chat_call(head, first, plan.count), 200, headers
        return tgi_wire.chat(head, done, first, plan.count, body), 200, headers

    async def _chat_events(self, job: Job, body: Body, plan: Plan, head: Body, *, tools: bool) -> AsyncIterator[bytes]:
        if tools and tgi_wire.names_no_tool(list(self._steps(plan))):
            await self.whole(job, [self._steps(plan)])
            tools, plan = False, self._without_tools(job, body)
        done: list[Step] = []
        async for steps in self.rounds(job, [self._steps(plan)]):
            if not steps:
                yield self.keep_alive
            for _, step in steps:
                done.append(step)
                chunk = tgi_wire.tool_chunk(head, done) if tools else tgi_wire.chat_chunk(head, step, body)
                if chunk is not None:
                    yield event(chunk | {"created": int(time.time())})
        if (body.get("stream_options") or {}).get("include_usage"):
            yield event(head | {"choices": [], "usage": tgi_wire.usage(plan.count, len(done))})
        yield DONE

    def _without_tools(self, job: Job, body: Body) -> Plan:
        return self._plan(job, _prompt(job, body, []), tgi_check.native(body), sequences=0)

    def _head(self, kind: str, model: str) -> Body:
        head: Body = {"object": kind, "id": "", "created": int(time.time()), "model": model}
        return head | {"system_fingerprint": "3.3.6-dev0-native"}

    def occupied(self, sequences: int, prompt_tokens: int) -> None:
        """Permits are sequences in the batch: nothing queues."""
        self.metrics.add("tgi_queue_size", 0)
        self.metrics.add("tgi_batch_current_size", sequences)
        self.metrics.add("tgi_batch_current_max_tokens", prompt_tokens)

    def ended(self, job: Job) -> None:
        """Durations are those of successes only; a client that left is `dropped`."""
        if job.state == "running":
            self.metrics.add("tgi_request_failure", 1, 'err="dropped"')
        if job.state != "done":
            return
        took = job.last - job.started
        self.metrics.add("tgi_request_success", len(job.finishes))
        for name in ("tgi_request_duration", "tgi_request_inference_duration"):
            self.metrics.observe(name, took)
        self.metrics.observe("tgi_request_queue_duration", 0.0)
        self.metrics.observe("tgi_request_mean_time_per_token_duration", took / max(1, job.generated))
        self.metrics.observe("tgi_request_input_length", job.prompt_tokens)
        self.metrics.observe("tgi_request_generated_tokens", job.generated)


async def _once(chunk: bytes) -> AsyncIterator[bytes]:
    yield chunk


def _events_of(error: Failed, size: int, *, native: bool) -> Reply:
    """An error as the only event of a stream."""
    return Reply(headers=tgi_wire.stream_headers(size), events=_once(_error_event(error, native=native)))


def _prompt(job: Job, body: Body, functions: list[Body]) -> str:
    """The chat in its template, or in a wrong one."""
    return UNASKED * job.struck_by("template") + tgi_check.chat_prompt(body, functions)


def _error_event(error: Failed, *, native: bool) -> bytes:
    """An error inside a stream. OpenAI's paths say 422 whatever it is, and end with the mark."""
    if native:
        return event({"error": error.text, "error_type": error.kind})
    return event({"error": {"message": error.text, "http_status_code": 422}}) + DONE
