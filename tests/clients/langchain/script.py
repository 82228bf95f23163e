# mypy: disable-error-code="import-not-found, misc, no-any-return, untyped-decorator"
"""langchain-openai: chat, structured output by each of its methods, tools, the older completions, embeddings."""

from typing import Any, Literal

from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from probe import GIVEN, awaited, by_seed, cut, main, probe
from pydantic import BaseModel

SETTINGS: dict[str, Any] = {
    "base_url": f"{GIVEN.url}/v1",
    "api_key": "none",
    "model": GIVEN.model,
    "max_retries": 0,
    "default_headers": {"x-pointsman-engine": GIVEN.engine},
}
MESSAGES = [(message["role"], message["content"]) for message in GIVEN.messages]


class Light(BaseModel):
    """Switch a light."""

    on: bool
    room: Literal["kitchen", "hall"]


def llm(**more: Any) -> ChatOpenAI:
    return ChatOpenAI(**SETTINGS | {"temperature": 0, "max_tokens": GIVEN.max_tokens, "stream_usage": True} | more)


def answer(message: Any) -> dict[str, Any]:
    usage = message.usage_metadata
    return {
        "text": message.content,
        "reason": message.response_metadata["finish_reason"],
        "prompt_tokens": usage["input_tokens"],
        "completion_tokens": usage["output_tokens"],
    }


def called(message: Any) -> dict[str, Any] | None:
    reason = message.response_metadata["finish_reason"]
    calls = [[call["name"], call["args"]] for call in message.tool_calls]
    return None if reason == "length" else {"calls": calls, "reason": reason}


def added(chunks: list[Any]) -> Any:
    return sum(chunks[1:], start=chunks[0])


@probe
def whole() -> Any:
    return answer(llm().invoke(MESSAGES))


@probe
def streamed() -> Any:
    return answer(added(list(llm().stream(MESSAGES))))


@probe
def whole_async() -> Any:
    return answer(awaited(llm().ainvoke(MESSAGES)))


@probe
def streamed_async() -> Any:
    async def chunks() -> list[Any]:
        return [chunk async for chunk in llm().astream(MESSAGES)]

    return answer(added(awaited(chunks())))


@probe
def batch() -> Any:
    return [message.content for message in llm().batch([MESSAGES, MESSAGES])]


@probe
def several() -> Any:
    messages = ChatPromptTemplate.from_messages(MESSAGES).format_messages()
    (generations,) = llm(n=2, temperature=1, seed=7).generate([messages]).generations
    return [generation.text for generation in generations]


@probe
def stop() -> Any:
    return cut(lambda more: answer(llm().invoke(MESSAGES, **more)))


@probe
def seed() -> Any:
    return [llm(temperature=1, seed=seed).invoke(MESSAGES).content for seed in (11, 11, 12)]


@probe
def logprob() -> Any:
    message = llm(logprobs=True, top_logprobs=2).invoke(MESSAGES)
    entries = message.response_metadata["logprobs"]["content"]
    return [[one["token"], one["logprob"], [top["token"] for top in one["top_logprobs"]]] for one in entries]


def tooled(choice: str, seed: int) -> Any:
    return llm(temperature=1, max_tokens=200, seed=seed).bind_tools([Light], tool_choice=choice, strict=True)


@probe
def tool_required() -> Any:
    return by_seed(lambda seed: called(tooled("required", seed).invoke(MESSAGES)))


@probe
def tool_named() -> Any:
    return by_seed(lambda seed: called(tooled("Light", seed).invoke(MESSAGES)))


@probe
def tool_streamed() -> Any:
    return by_seed(lambda seed: called(added(list(tooled("required", seed).stream(MESSAGES)))))


def structured_by(method: str, **more: Any) -> Any:
    def ask(seed: int) -> Any:
        plain = llm(temperature=1, max_tokens=200, seed=seed)
        said = plain.with_structured_output(Light, method=method, include_raw=True, **more).invoke(MESSAGES)
        if said["raw"].response_metadata["finish_reason"] == "length":
            return None
        return said["parsed"].model_dump()

    return by_seed(ask)


@probe
def structured() -> Any:
    return structured_by("json_schema")


@probe
def structured_by_tool() -> Any:
    return structured_by("function_calling", strict=True)


@probe
def completion() -> Any:
    result = OpenAI(**SETTINGS, temperature=0, max_tokens=GIVEN.max_tokens).generate([GIVEN.prompt])
    usage = result.llm_output["token_usage"]
    (generation,) = result.generations[0]
    counts = {name: usage[name] for name in ("prompt_tokens", "completion_tokens")}
    return {"text": generation.text, "reason": generation.generation_info["finish_reason"], **counts}


@probe
def completion_text_streamed() -> Any:
    return "".join(OpenAI(**SETTINGS, temperature=0, max_tokens=GIVEN.max_tokens).stream(GIVEN.prompt))


@probe
def presence_penalty() -> Any:
    return answer(llm(presence_penalty=0.5).invoke(MESSAGES))


@probe
def unknown_model() -> Any:
    return answer(llm(model="nope").invoke(MESSAGES))


@probe
def temperature_3() -> Any:
    return answer(llm(temperature=3).invoke(MESSAGES))


@probe
def temperature_3_streamed() -> Any:
    return answer(added(list(llm(temperature=3).stream(MESSAGES))))


@probe
def too_long() -> Any:
    return answer(llm().invoke(GIVEN.too_long))


@probe
def embeddings() -> Any:
    # Without check_embedding_ctx_length=False the client fetches a tokenizer from elsewhere.
    return OpenAIEmbeddings(**SETTINGS, check_embedding_ctx_length=False).embed_query("hello")


main()
