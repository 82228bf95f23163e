"""OpenAI's wire types, as msgspec Structs: requests and answers.

Request types are views: they name the fields that the gateway uses, and check their types and ranges
(OpenAI API reference, "Create chat completion" and "Create completion"). Other fields are not lost: a Call keeps
the whole body beside its view. Other spellings of the same are not here: `backends.lenient` undoes them.

Every dialect reads answers into the answer types. A field whose default is None is left out when it is None; a field
without a default is always written, null or not, as OpenAI does. Fields that only vLLM has are named here if they
are forwarded (`token_ids`) or removed (`stop_reason`); unnamed fields go through `backends.extras`, which is slower.
"""

from typing import Annotated, Any, Generic, Literal, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType

Temperature = Annotated[float, Meta(ge=0, le=2)]
Share = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Choices = Annotated[int, Meta(ge=1, le=16_384)]  # vLLM's bound
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
StopText = Annotated[str, Meta(min_length=1)]
Stop = StopText | list[StopText]


# --- requests --------------------------------------------------------------------------------------------


class StreamOptions(Struct):
    """`stream_options`: whether a last chunk carries the usage; vLLM can also put it on every chunk."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class Part(Struct):
    """One part of a message's content; of parts that are neither text nor image, only the type is read."""

    type: str
    text: str | None = None
    image_url: dict[str, Any] | str | None = None


class Function(Struct):
    """The function of a tool call in a message's history."""

    name: str
    arguments: str


class HistoryCall(Struct):
    """A tool call in an assistant's message."""

    id: str
    function: Function
    type: str


class Message(Struct):
    """One message of a chat. `content` may be null only where an assistant called a tool."""

    role: str
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[HistoryCall] | None = None

    @property
    def text(self) -> str:
        """The content as one text; parts are joined by line feeds, as vLLM joins them."""
        if isinstance(self.content, list):
            return "\n".join(part.text or "" for part in self.content)
        return self.content or ""


class ToolFunction(Struct):
    """A tool's function: its name, and its parameters as a JSON schema."""

    name: Annotated[str, Meta(min_length=1)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Struct):
    """One entry of `tools`."""

    function: ToolFunction
    type: str = "function"


class FunctionName(Struct):
    """The `function` of a named `tool_choice`."""

    name: str


class AllowedTools(Struct):
    """The `allowed_tools` of a `tool_choice`: some of the tools, and whether one of them must be called."""

    mode: Literal["auto", "required"]
    tools: list["NamedTool"]


class NamedTool(Struct):
    """`tool_choice` that names one function, or those that are allowed."""

    function: FunctionName | None = None
    allowed_tools: AllowedTools | None = None
    type: str = "function"

    @property
    def name(self) -> str:
        """The function's name; empty if none is named."""
        return self.function.name if self.function else ""


class JsonSchema(Struct):
    """`response_format.json_schema`."""

    name: str
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Struct):
    """`response_format`: text, json_object or json_schema; `value` is set in TGI's own form."""

    type: str
    json_schema: JsonSchema | None = None
    value: Any = None


class Request(Struct, kw_only=True):
    """The fields that chat completions and completions share."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    n: Choices | None = None
    stop: Stop | None = None
    seed: Seed | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: dict[str, float] | None = None
    use_beam_search: bool | None = None
    logprob_token_ids: list[int] | None = None

    @property
    def stops(self) -> list[str]:
        """The stop strings as a list."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def greedy(self) -> bool:
        """Whether sampling is off: `temperature` or `top_p` is 0."""
        return self.temperature == 0 or self.top_p == 0


class ChatRequest(Request, kw_only=True):
    """The body of `POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=-1)] | None = None
    response_format: ResponseFormat | None = None
    tools: list[Tool] | None = None
    tool_choice: str | NamedTool | None = None
    tool_prompt: str | None = None
    guideline: str | None = None
    parallel_tool_calls: bool | None = None
    modalities: list[str] | None = None
    structured_outputs: dict[str, Any] | None = None

    @property
    def limit(self) -> int | None:
        """The maximum number of tokens to generate; `max_completion_tokens` takes precedence."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def offers_tools(self) -> bool:
        """Whether the model may call a tool."""
        return bool(self.tools) and self.tool_choice != "none"

    @property
    def must_call(self) -> bool:
        """Whether the model has to call a tool."""
        return bool(self.tools) and self.tool_choice not in (None, "none", "auto")


class CompletionRequest(Request, kw_only=True):
    """The body of `POST /v1/completions`. `prompt` is a string, strings, token ids, or a list of token id lists."""

    prompt: str | list[str | int | list[int]]
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    logprobs: Annotated[int, Meta(ge=-1)] | None = None
    echo: bool | None = None
    best_of: Annotated[int, Meta(ge=0)] | None = None
    suffix: str | None = None
    structured_outputs: dict[str, Any] | None = None

    @property
    def limit(self) -> int:
        """The maximum number of tokens to generate; 16 if the client sets none."""
        return 16 if self.max_tokens is None else self.max_tokens

    @property
    def prompts(self) -> list[Any]:
        """The prompts as a list; a list of token ids is one prompt."""
        if isinstance(self.prompt, list) and self.prompt and not isinstance(self.prompt[0], int):
            return self.prompt
        return [self.prompt]


# --- answers ---------------------------------------------------------------------------------------------


class Wire(Struct, omit_defaults=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """Base of all answer types: see the module's docstring. They hold no reference cycles, so `gc` is off."""


class Usage(Wire, kw_only=True):
    """Token counts; the details are set only if the engine reports them."""

    prompt_tokens: int = -1
    completion_tokens: int = -1
    total_tokens: int = -1
    prompt_tokens_details: dict[str, Any] | None = None
    completion_tokens_details: dict[str, Any] | None = None


class CalledFunction(Wire, kw_only=True):
    """The function of a tool call in an answer; in a delta either field may be absent."""

    name: str | None = None
    arguments: str | None = None


class ToolCall(Wire, kw_only=True):
    """A tool call of an answer; in a delta, a piece of one, with its index."""

    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: CalledFunction


class Delta(Wire, kw_only=True):
    """The part of a message that a chunk adds."""

    role: str | None = None
    content: str | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: CalledFunction | None = None


class ChunkChoice(Wire, kw_only=True):
    """A choice of a chat chunk."""

    index: int
    delta: Delta
    logprobs: dict[str, Any] | UnsetType | None = UNSET
    finish_reason: str | UnsetType | None = UNSET
    token_ids: list[int] | None = None
    stop_reason: Any = None


class AnswerMessage(Wire, kw_only=True):
    """The message of a complete answer."""

    role: str
    content: str | UnsetType | None = UNSET
    refusal: str | UnsetType | None = UNSET
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None
    annotations: Any = None
    audio: Any = None
    function_call: Any = None


class ChatChoice(Wire, kw_only=True):
    """A choice of a complete chat answer."""

    index: int
    message: AnswerMessage
    logprobs: dict[str, Any] | UnsetType | None = UNSET
    finish_reason: str | None
    token_ids: list[int] | None = None
    stop_reason: Any = None
    routed_experts: Any = None


class TextChoice(Wire, kw_only=True):
    """A choice of a legacy completion, complete or in a chunk."""

    index: int
    text: str
    logprobs: dict[str, Any] | UnsetType | None = UNSET
    finish_reason: str | None
    token_ids: list[int] | None = None
    prompt_logprobs: Any = None
    prompt_token_ids: list[int] | None = None
    stop_reason: Any = None
    routed_experts: Any = None


Choice = TypeVar("Choice", ChunkChoice, ChatChoice, TextChoice)


class Answer(Wire, Generic[Choice], kw_only=True):
    """A complete answer or one chunk of a stream, with the fields that vLLM adds to both."""

    id: str = ""
    object: str = ""
    created: int = 0
    model: str = ""
    choices: list[Choice]
    usage: Usage | None = None
    service_tier: str | None = None
    system_fingerprint: str | None = None
    prompt_token_ids: list[int] | None = None
    prompt_text: str | None = None
    prompt_logprobs: Any = None
    kv_transfer_params: Any = None
    ec_transfer_params: Any = None
    metrics: Any = None


ChatChunk = Answer[ChunkChoice]
ChatAnswer = Answer[ChatChoice]
TextAnswer = Answer[TextChoice]  # complete answers and chunks have the same fields
