"""A simulator of vLLM 0.32.0's OpenAI server: its routes, errors and metrics. The shapes are in `vllm_wire`."""

import hmac
import json
import time
from collections.abc import AsyncIterator, Iterator

from msgspec.structs import replace

from backends.sim import vllm_check, vllm_responses, vllm_wire
from backends.sim.engine import Engine, Job, Overloaded
from backends.sim.faults import Broken
from backends.sim.http import DONE, Headers, Reply, event, json_reply
from backends.sim.metrics import Metrics
from backends.sim.text import (
    UNASKED,
    Step,
    Token,
    answer_tokens,
    format_duration,
    pieces,
    token_id,
    token_text,
    written,
)
from backends.sim.vllm_check import Ask, Body, Refused
from backends.sim.vllm_wire import Json

_FAILED = "EngineCore encountered an issue. See stack trace (above) for the root cause."
_BUSY = (
    "The engine is currently busy and cannot accept new requests. Please try again later or on a different instance."
)
_STREAM = (("content-type", "text/event-stream; charset=utf-8"),)
_KINDS = {
    "vllm:num_requests_running": "gauge",
    "vllm:num_requests_waiting": "gauge",
    "vllm:kv_cache_usage_perc": "gauge",
    "vllm:prefix_cache_queries_total": "counter",
    "vllm:prefix_cache_hits_total": "counter",
    "vllm:num_preemptions_total": "counter",
    "vllm:prompt_tokens_total": "counter",
    "vllm:prompt_tokens_cached_total": "counter",
    "vllm:generation_tokens_total": "counter",
    "vllm:request_success_total": "counter",
    "vllm:admission_rejections_total": "counter",
    "vllm:request_prompt_tokens": "histogram",
    "vllm:request_generation_tokens": "histogram",
    "vllm:time_to_first_token_seconds": "histogram",
    "vllm:inter_token_latency_seconds": "histogram",
    "vllm:e2e_request_latency_seconds": "histogram",
    "vllm:request_queue_time_seconds": "histogram",
}


class Vllm(Engine):
    """The application. See `Engine` for what it shares with the other simulator."""

    generating = frozenset(("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"))
    keep_alive = b": keep-alive\n\n"

    def prepare(self) -> None:
        """Set up routes and metrics."""
        self.keep_alive_s = self.options.keep_alive_s
        self.metrics = Metrics(f'engine="0",model_name="{self.options.model}"', _KINDS)
        for name, kind in _KINDS.items():
            if kind != "histogram":
                self.metrics.add(name, 0)
        self.routes = {
            ("GET", "/health"): self._health,
            ("GET", "/ping"): self._health,
            ("POST", "/ping"): self._health,
            ("GET", "/version"): self._facts,
            ("GET", "/load"): self._facts,
            ("GET", "/metrics"): self._metrics,
            ("GET", "/v1/models"): self._models,
            ("POST", "/tokenize"): self._tokenize,
            ("POST", "/detokenize"): self._detokenize,
            ("POST", "/v1/chat/completions"): self._chat,
            ("POST", "/v1/completions"): self._completions,
            ("POST", "/v1/responses"): self._responses,
            ("POST", "/v1/messages"): self._messages,
            ("POST", "/v1/messages/count_tokens"): self._count_tokens,
        }

    async def reply(self, job: Job) -> Reply:
        """Guard, route, and put errors into vLLM's four shapes."""
        request, key = job.request, self.options.api_key
        guarded = request.path.startswith(("/v1", "/v2", "/inference", "/cohere"))
        sent = request.headers.get("authorization", "")
        if key and guarded and not hmac.compare_digest(sent.encode(), f"Bearer {key}".encode()):
            return self._headed(job, json_reply({"error": "Unauthorized"}, 401), cors=())
        handler = self.routes.get((request.method, request.path))
        if handler is None:
            methods = [method for method, path in self.routes if path == request.path]
            status, words = (405, "Method Not Allowed") if methods else (404, "Not Found")
            allow = (("allow", ", ".join(methods)),) if methods else ()
            return self._headed(job, json_reply({"detail": words}, status, allow))
        try:
            reply = await handler(job)
        except Refused as error:
            reply = _error(error.message, error.kind, error.param, error.status)
        except Overloaded:
            self.metrics.add("vllm:admission_rejections_total", 1, 'reason="max_num_queued_reqs"')
            reply = _error(_BUSY, "Service Unavailable", None, 503)
        except Broken as fault:
            reply = self.broken(fault, _error(_FAILED, "InternalServerError", None, 500))
        return self._headed(job, reply)

    def _headed(self, job: Job, reply: Reply, cors: Headers = (("vary", "Origin"),)) -> Reply:
        headers = reply.headers + cors
        if self.options.request_id_headers:
            headers += (("x-request-id", job.request.headers.get("x-request-id", self._hex(32))),)
        return replace(reply, headers=headers)

    # Small endpoints

    async def _health(self, _: Job) -> Reply:
        return Reply(status=503 if self.unhealthy() else 200)

    async def _facts(self, job: Job) -> Reply:
        return json_reply({"version": "0.32.0"} if job.request.path == "/version" else {"server_load": self.running})

    async def _metrics(self, _: Job) -> Reply:
        kind = "text/plain; version=1.0.0; charset=utf-8"
        return Reply(headers=(("content-type", kind),), body=self.metrics.render())

    async def _models(self, _: Job) -> Reply:
        names, context = (self.options.model, *self.options.aliases), self.options.max_model_len
        permission = f"modelperm-{self._hex(16)}"
        cards = [vllm_wire.model_card(name, names[0], context, int(time.time()), permission) for name in names]
        return json_reply({"object": "list", "data": cards})

    async def _tokenize(self, job: Job) -> Reply:
        body = self._body(job)
        text = vllm_check.chat_prompt(body, self.options.model) if "messages" in body else str(body.get("prompt", ""))
        parts = pieces(text)
        strings = [part.replace(" ", "Ġ").replace("\n", "Ċ") for part in parts]
        counted = {"count": len(parts), "max_model_len": self.options.max_model_len}
        strs = strings if body.get("return_token_strs") else None
        return json_reply(counted | {"tokens": [token_id(part) for part in parts], "token_strs": strs})

    async def _detokenize(self, job: Job) -> Reply:
        return json_reply({"prompt": "".join(token_text(number) for number in self._body(job)["tokens"])})

    # Generation

    def _body(self, job: Job) -> Body:
        body = vllm_check.parse(job.request.headers.get("content-type", ""), job.request.body)
        names = (self.options.model, *self.options.aliases)
        if body.get("model") and body["model"] not in names:
            words = f"The model `{body['model']}` does not exist. Valid aliases: {', '.join(names)}."
            raise Refused(words, "model", "NotFoundError", 404)
        return body

    def _ask(self, job: Job, body: Body, prompts: list[tuple[str, int]], **more: object) -> Ask:
        """Check what all generating endpoints have in common."""
        vllm_check.check_stream(body)
        vllm_check.check_sampling(body)
        stops = vllm_check.stops(body)
        wanted, least = _wanted(body), 0 if body.get("echo") else 1
        context = self.options.max_model_len
        limits = [vllm_check.limit(wanted, count, context, least) for _, count in prompts]
        bent = ("presence_penalty", "frequency_penalty", "repetition_penalty", "logit_bias")
        seed = body.get("seed")
        greedy = body.get("temperature") is not None and body["temperature"] < 1e-5
        stream = body.get("stream_options") or {}
        ask = Ask(
            prompts=prompts,
            limits=[max(1, limit) for limit in limits],
            n=body.get("n") or 1,
            seed=None if greedy else self.rng.getrandbits(63) if seed is None else seed,
            salt="".join(f"{name}={body[name]};" for name in bent if body.get(name) not in (None, 0, 1, {})),
            stops=stops,
            include_stop=bool(body.get("include_stop_str_in_output")),
            ignore_eos=bool(body.get("ignore_eos")) or job.struck_by("run-on"),
            logprobs=None,
            echo=bool(body.get("echo")),
            stream=bool(body.get("stream")),
            include_usage=bool(stream.get("include_usage")),
            continuous_usage=bool(stream.get("continuous_usage_stats")),
            fixed=vllm_check.grammar_text(body),
            choice="none",
        )
        ask = replace(ask, **more)
        self.admit(job, len(prompts) * ask.n, sum(count for _, count in prompts))
        return ask

    def _choices(self, ask: Ask) -> list[Iterator[Step]]:
        """The steps of every choice: of each prompt n, and the i-th child has the seed + i."""
        return [self._steps(ask, prompt, child) for prompt in range(len(ask.prompts)) for child in range(ask.n)]

    def _steps(self, ask: Ask, prompt: int, child: int) -> Iterator[Step]:
        text, limit = ask.prompts[prompt][0], ask.limits[prompt]
        call = vllm_wire.tool_call(ask.fixed or "")
        tokens: Iterator[Token]
        if call:
            tokens = vllm_wire.call_tokens(call)
        elif ask.fixed is not None:
            tokens = format_duration(ask.fixed)
        else:
            length = None if ask.ignore_eos else answer_tokens(text, *self.options.answer_tokens)
            seed = None if ask.seed is None else ask.seed + child
            tokens = written(text, seed=seed, salt=ask.salt, length=length)
        return vllm_wire.steps(tokens, limit, ask.stops, include_stop=ask.include_stop)

    async def _chat(self, job: Job) -> Reply:
        body = self._body(job)
        logprobs = vllm_check.chat_logprobs(body)
        choice = vllm_check.tool_choice(body, parser=self.options.tools)
        text = UNASKED * job.struck_by("template") + vllm_check.chat_prompt(body, self.options.model)
        ask = self._ask(job, body, [(text, len(pieces(text)))], logprobs=logprobs, choice=choice)
        if ask.fixed is None and choice != "none":
            ask = replace(ask, fixed=vllm_wire.tool_text(body, choice, eager=self.options.calls))
        head = self._head(job, "chatcmpl", "chat.completion.chunk" if ask.stream else "chat.completion")
        if ask.stream:
            return self._stream(self._chat_events(job, ask, head))
        done = await self.whole(job, self._choices(ask))
        call = vllm_wire.tool_call(ask.fixed or "") if choice != "none" else None
        choices = [
            vllm_wire.chat_choice(index, steps, call, choice, logprobs, self._tool_id())
            for index, steps in enumerate(done)
        ]
        return json_reply(vllm_wire.whole(head, choices, self._usage(ask, done)))

    async def _chat_events(self, job: Job, ask: Ask, head: Json) -> AsyncIterator[bytes]:
        choices = self._choices(ask)
        call = vllm_wire.tool_call(ask.fixed or "") if ask.choice != "none" else None
        done: list[list[Step]] = [[] for _ in choices]
        call_id = self._tool_id()
        async for steps in self.rounds(job, choices):
            if not steps:
                yield self.keep_alive
            for index, _ in steps if not any(done) else ():
                yield event(self._counted(ask, vllm_wire.role_chunk(head, index), done))
            for index, step in steps:
                done[index].append(step)
                for delta, finish in self._deltas(ask, done[index], call, call_id):
                    chunk = vllm_wire.chat_chunk(head, index, delta, step, finish, ask.logprobs)
                    yield event(self._counted(ask, chunk, done, last=finish is not None))
        for end in self._end(ask, head, done):
            yield end

    def _deltas(
        self, ask: Ask, done: list[Step], call: vllm_wire.Call | None, call_id: str
    ) -> Iterator[tuple[Json, str | None]]:
        """What one step shows, with its finish reason. A parser leaves an empty delta where there is no text."""
        step = done[-1]
        if call is None:
            empty = self.options.tools and step.finish and not step.text
            yield {} if empty else {"content": step.text}, step.finish
            return
        yield from ((delta, None) for delta in vllm_wire.tool_deltas(done, call, call_id))
        if step.finish:
            complete = step.finish == "stop" and not ask.choice.startswith("function")
            yield {}, "tool_calls" if complete else step.finish

    async def _completions(self, job: Job) -> Reply:
        body = self._body(job)
        prompts = vllm_check.completion_prompts(body, self.options.max_model_len)
        body["max_tokens"] = 16 if body.get("max_tokens") is None else body["max_tokens"]
        top = vllm_check.logprobs(body.get("logprobs"))
        tells_ids = bool(body.get("return_token_ids"))
        ask = self._ask(
            job,
            body,
            [vllm_check.counted(prompt) for prompt in prompts],
            logprobs=top,
            prompt_logprobs=vllm_check.prompt_logprobs(body),
            prompt_ids=[vllm_check.numbers(prompt) for prompt in prompts] if tells_ids else [],
            tells_ids=tells_ids,
            by_id=bool(body.get("return_tokens_as_token_ids")),
        )
        head = self._head(job, "cmpl", "text_completion")
        if ask.stream:
            return self._stream(self._completion_events(job, ask, head))
        done = await self.whole(job, self._choices(ask))
        choices = [self._completion_choice(body, ask, index, steps) for index, steps in enumerate(done)]
        return json_reply(vllm_wire.whole(head, choices, self._usage(ask, done)))

    def _completion_choice(self, body: Body, ask: Ask, index: int, done: list[Step]) -> Json:
        prompt, top = ask.prompts[index // ask.n][0], ask.logprobs
        text = "".join(step.text for step in done) * (body.get("max_tokens") != 0)
        asked = vllm_wire.prompt_tokens(prompt) if ask.echo or ask.prompt_logprobs else []
        echoed = asked if ask.echo else []
        tokens = [*echoed, *(step.token for step in done)]
        logprobs = None if top is None else vllm_wire.legacy_logprobs(tokens, top, len(echoed), by_id=ask.by_id)
        shown = vllm_wire.prompt_logprobs(asked) if ask.prompt_logprobs or (echoed and top is not None) else None
        choice = vllm_wire.completion_choice(index, (prompt if ask.echo else "") + text, done, logprobs, shown)
        if ask.tells_ids:
            choice |= vllm_wire.numbered(done, ask.prompt_ids[index // ask.n])
        return choice

    async def _completion_events(self, job: Job, ask: Ask, head: Json) -> AsyncIterator[bytes]:
        choices = self._choices(ask)
        done: list[list[Step]] = [[] for _ in choices]
        async for steps in self.rounds(job, choices):
            if not steps:
                yield self.keep_alive
            for index, step in steps:
                echo = ask.prompts[index // ask.n][0] if ask.echo and not done[index] else ""
                logprobs = None
                if ask.logprobs is not None:
                    offset = sum(len(vllm_wire.shown_as(past.token.text, by_id=ask.by_id)) for past in done[index])
                    logprobs = vllm_wire.legacy_logprobs([step.token], ask.logprobs, 0, offset, by_id=ask.by_id)
                chunk = vllm_wire.completion_chunk(head, index, echo + step.text, step, logprobs)
                if ask.tells_ids:
                    first = None if done[index] else ask.prompt_ids[index // ask.n]
                    chunk["choices"][0] |= vllm_wire.numbered([step], first)
                done[index].append(step)
                yield event(self._counted(ask, chunk, done, last=step.finish is not None))
        for end in self._end(ask, head, done):
            yield end

    async def _responses(self, job: Job) -> Reply:
        body = self._body(job)
        given = body.get("input")
        messages = given if isinstance(given, list) else [{"role": "user", "content": given}]
        if body.get("instructions"):
            messages = [{"role": "system", "content": body["instructions"]}, *messages]
        text = vllm_check.chat_prompt({"messages": messages}, self.options.model)
        ask = self._ask(job, body, [(text, len(pieces(text)))])
        head = vllm_responses.response_object(body, self.options.model, f"resp_{self._hex(16)}", int(time.time()))
        item = f"msg_{self._hex(16)}"
        if ask.stream:
            rounds = self.rounds(job, self._choices(ask))
            return self._stream(vllm_responses.response_events(rounds, ask, head, item))
        [done] = await self.whole(job, self._choices(ask))
        return json_reply(vllm_responses.response_done(head, done, ask.prompts[0][1], item))

    async def _messages(self, job: Job) -> Reply:
        body = self._body(job)
        text = vllm_responses.anthropic_prompt(body, self.options.model)
        ask = self._ask(job, body, [(text, len(pieces(text)))])
        head = {"id": self._head(job, "chatcmpl", "")["id"], "model": self.options.model}
        if ask.stream:
            return self._stream(vllm_responses.message_events(self.rounds(job, self._choices(ask)), ask, head))
        [done] = await self.whole(job, self._choices(ask))
        return json_reply(vllm_responses.message_object(head, done, ask.prompts[0][1]))

    async def _count_tokens(self, job: Job) -> Reply:
        prompt = vllm_responses.anthropic_prompt(self._body(job), self.options.model)
        return json_reply({"input_tokens": len(pieces(prompt))})

    # What the streams share

    def _stream(self, events: AsyncIterator[bytes]) -> Reply:
        error = {"message": _FAILED, "type": "InternalServerError", "param": None, "code": 500}
        failed = b"data: " + json.dumps({"error": error}).encode() + b"\n\n" + DONE
        return Reply(headers=_STREAM, events=self.guarded(events, failed))

    def _head(self, job: Job, prefix: str, kind: str) -> Json:
        """What all chunks of an answer begin with. The id is the client's X-Request-Id, if it sent one."""
        name = job.request.headers.get("x-request-id") or self._hex(16)
        return {"id": f"{prefix}-{name}", "object": kind, "created": int(time.time()), "model": self.options.model}

    def _counted(self, ask: Ask, chunk: Json, done: list[list[Step]], *, last: bool = False) -> Json:
        """A chunk with the counts so far, if wanted; the fingerprint stands on the last chunk of all."""
        if ask.continuous_usage:
            chunk = chunk | {"usage": self._counts(ask, done, completion_tokens_details=None)}
        return chunk | ({"system_fingerprint": vllm_wire.FINGERPRINT} if last and not ask.include_usage else {})

    def _end(self, ask: Ask, head: Json, done: list[list[Step]]) -> Iterator[bytes]:
        """The usage, if wanted, and the end mark."""
        if ask.include_usage:
            cached = {"cached_tokens": 0, "created_cache_tokens": 0}
            details = {"prompt_tokens_details": cached} if self.options.prompt_tokens_details else {}
            counts = {"choices": [], "usage": self._counts(ask, done, **details)}
            yield event(head | counts | {"system_fingerprint": vllm_wire.FINGERPRINT})
        yield DONE

    def _usage(self, ask: Ask, done: list[list[Step]]) -> Json:
        cached = {"cached_tokens": 0, "created_cache_tokens": 0, "multimodal_tokens": None}
        details = cached if self.options.prompt_tokens_details else None
        return self._counts(ask, done, prompt_tokens_details=details, completion_tokens_details=None)

    def _counts(self, ask: Ask, done: list[list[Step]], **details: object) -> Json:
        return vllm_wire.usage(sum(count for _, count in ask.prompts), sum(map(len, done)), **details)

    def _hex(self, digits: int) -> str:
        return f"{self.rng.getrandbits(4 * digits):0{digits}x}"

    def _tool_id(self) -> str:
        return f"chatcmpl-tool-{self._hex(16)}"

    def occupied(self, sequences: int, prompt_tokens: int) -> None:
        """Sequences run at once here: nothing waits."""
        self.metrics.add("vllm:num_requests_running", sequences)
        self.metrics.add("vllm:kv_cache_usage_perc", prompt_tokens / 1e6)

    def ended(self, job: Job) -> None:
        """A client that left moves no counter but that of its tokens."""
        add, observe = self.metrics.add, self.metrics.observe
        add("vllm:prompt_tokens_total", job.prompt_tokens)
        add("vllm:prefix_cache_queries_total", job.prompt_tokens)
        add("vllm:generation_tokens_total", job.generated)
        if job.state != "done":
            return
        for finish in job.finishes:
            add("vllm:request_success_total", 1, f'finished_reason="{finish}"')
        observe("vllm:request_prompt_tokens", job.prompt_tokens)
        observe("vllm:request_generation_tokens", job.generated)
        observe("vllm:time_to_first_token_seconds", job.first - job.started)
        observe("vllm:inter_token_latency_seconds", (job.last - job.first) / max(1, job.generated - 1))
        observe("vllm:e2e_request_latency_seconds", job.last - job.started)
        observe("vllm:request_queue_time_seconds", 0.0)


def _error(message: str, kind: str, param: str | None, status: int) -> Reply:
    """vLLM's envelope: the code is the status, as a number."""
    return json_reply({"error": {"message": message, "type": kind, "param": param, "code": status}}, status)


def _wanted(body: Body) -> int | None:
    """The number of tokens asked for, by whatever name: the newer name wins."""
    names = ("max_completion_tokens", "max_output_tokens", "max_tokens")
    return next((body[name] for name in names if body.get(name) is not None), None)
