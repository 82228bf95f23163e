"""TGI's flags and variables, each with what it is on vLLM: a row for every flag of the launcher's reference.

Rows are keyed by vLLM's version: the first whose `since` and `until` hold is taken. The versions, where they are from:
--shutdown-timeout 0.18 (vLLM #34730), --max-num-queued-reqs 0.29 (#49445, #58192), --max-model-len auto 0.14 (#29431),
bitsandbytes and --logging-config: the parser of 0.32. All else was checked against the parser of 0.32 alone.
"""

from collections.abc import Callable

from msgspec import Struct

from gateway.cli.migrate.fates import UNKNOWN, Facts, Fate, Translated, blocked, on
from gateway.cli.migrate.launch import unresolved
from gateway.cli.migrate.translations import limits, machine, model, server, unasked, variables

CHECKED = (0, 32)
Translate = Callable[[str, Facts], Translated]
WriteOut = Callable[[Facts], Translated | None]


class TableRow(Struct, frozen=True):
    """What becomes of a flag from version `since` on, and before `until`; `absent`: and where nobody gives it."""

    translate: Translate
    absent: WriteOut | None = None
    since: tuple[int, ...] = ()
    until: tuple[int, ...] = ()

    def holds(self, version: tuple[int, ...]) -> bool:
        """Whether it is for a version of vLLM."""
        return version >= self.since and (not self.until or version < self.until)


def same(flag: str) -> Translate:
    """Return a row's function: the same under vLLM's name, which is the same."""
    return lambda value, facts: Translated(Fate.SAME, (flag, value))


def mapped(flag: str, why: str = "") -> Translate:
    """Return a row's function: the same under another name."""
    return lambda value, facts: Translated(Fate.MAPPED, (flag, value), why=why)


def dropped(why: str) -> Translate:
    """Return a row's function: vLLM has none and needs none."""
    return lambda value, facts: Translated(Fate.DROPPED, why=why)


def lost(why: str, enforced_by: str = "nobody") -> Translate:
    """Return a row's function: a promise that vLLM does not make."""
    return lambda value, facts: Translated(Fate.LOST, why=why, enforced_by=enforced_by)


def switch(translate: Translate) -> Translate:
    """Return a row's function for a switch, which may be set to false by its variable."""

    def translated(value: str, facts: Facts) -> Translated:
        if unresolved(value):
            return blocked(UNKNOWN)
        return translate(value, facts) if on(value) else Translated(Fate.DROPPED, why="off")

    return translated


def always(fate: Fate, *arguments: str, why: str) -> WriteOut:
    """Return what is written where a flag is absent."""
    return lambda facts: Translated(fate, arguments, why=why)


_SCHEDULER = "vLLM schedules in another way: each step mixes prefill and decoding"
_SHARDS = "between TGI's own processes"
_NGROK = "vLLM opens no tunnel; run ngrok beside the gateway"
_WATERMARK = "vLLM's --watermark-config is another scheme: what detects TGI's does not detect it"

ROWS: dict[str, tuple[TableRow, ...]] = {
    "--model-id": (TableRow(model.model_id),),
    "--revision": (TableRow(model.revision),),
    "--validation-workers": (TableRow(dropped("vLLM tokenizes in --renderer-num-workers; its default does")),),
    "--sharded": (TableRow(machine.sharded),),
    "--num-shard": (TableRow(machine.num_shard, machine.default_shards),),
    "--quantize": (TableRow(model.older_bitsandbytes, until=(0, 32)), TableRow(model.quantize)),
    "--speculate": (TableRow(model.speculate),),
    "--dtype": (TableRow(model.dtype, model.default_dtype),),
    "--kv-cache-dtype": (TableRow(model.kv_cache_dtype),),
    "--trust-remote-code": (TableRow(switch(server.trust_remote_code)),),
    "--max-concurrent-requests": (TableRow(limits.max_concurrent, limits.default_concurrent),),
    "--max-best-of": (TableRow(lost("the gateway takes best_of up to n, and n up to VLLM_MAX_N_SEQUENCES")),),
    "--max-stop-sequences": (
        TableRow(lambda value, facts: Translated(Fate.MAPPED, environment={"VLLM_MAX_STOP_STRINGS": value})),
    ),
    "--max-top-n-tokens": (TableRow(mapped("--max-logprobs")),),
    "--max-input-tokens": (TableRow(limits.max_input),),
    "--max-input-length": (TableRow(limits.max_input),),
    "--max-total-tokens": (TableRow(mapped("--max-model-len"), limits.default_context),),
    "--waiting-served-ratio": (TableRow(dropped(_SCHEDULER)),),
    "--max-batch-prefill-tokens": (TableRow(limits.max_batch_prefill),),
    "--max-batch-total-tokens": (
        TableRow(dropped("both find it out by the memory they have: --gpu-memory-utilization")),
    ),
    "--max-waiting-tokens": (TableRow(dropped(_SCHEDULER)),),
    "--max-batch-size": (TableRow(limits.max_batch_size),),
    "--cuda-graphs": (TableRow(machine.cuda_graphs),),
    "--hostname": (TableRow(mapped("--host"), always(Fate.DEFAULT, "--host", "0.0.0.0", why="as TGI listens")),),
    "--port": (TableRow(server.port, server.default_port),),
    "--prometheus-port": (TableRow(dropped("vLLM's /metrics is on its only port: change what scrapes it")),),
    "--shard-uds-path": (TableRow(dropped(_SHARDS)),),
    "--master-addr": (TableRow(dropped(_SHARDS)),),
    "--master-port": (TableRow(dropped(_SHARDS)),),
    "--huggingface-hub-cache": (TableRow(mapped("--download-dir", "the same layout: no second download")),),
    "--weights-cache-override": (TableRow(dropped("of Hugging Face's own endpoints")),),
    "--disable-custom-kernels": (TableRow(switch(dropped("TGI's kernels"))),),
    "--cuda-memory-fraction": (TableRow(machine.memory_fraction, machine.default_memory),),
    "--rope-scaling": (TableRow(model.rope),),
    "--rope-factor": (TableRow(model.rope_factor),),
    "--json-output": (TableRow(switch(server.json_output)),),
    "--otlp-endpoint": (TableRow(mapped("--otlp-traces-endpoint", "vLLM needs OpenTelemetry's packages installed")),),
    "--otlp-service-name": (TableRow(server.otlp_service_name),),
    "--cors-allow-origin": (TableRow(server.cors_origin, server.default_cors),),
    "--api-key": (TableRow(server.api_key),),
    "--watermark-gamma": (TableRow(lost(_WATERMARK)),),
    "--watermark-delta": (TableRow(lost(_WATERMARK)),),
    "--ngrok": (TableRow(switch(lost(_NGROK))),),
    "--ngrok-authtoken": (TableRow(lost(_NGROK)),),
    "--ngrok-edge": (TableRow(lost(_NGROK)),),
    "--tokenizer-config-path": (TableRow(model.tokenizer_config),),
    "--disable-grammar-support": (
        TableRow(switch(lost("vLLM holds answers to a grammar for whoever asks; it cannot be turned off"))),
    ),
    "--env": (TableRow(dropped("it prints the machine once; vllm collect-env does")),),
    "--max-client-batch-size": (TableRow(lost("the gateway takes any number of prompts in one request")),),
    "--lora-adapters": (TableRow(model.lora_adapters),),
    "--usage-stats": (TableRow(server.usage_stats),),
    "--payload-limit": (TableRow(limits.payload_limit, limits.default_payload),),
    "--enable-prefill-logprobs": (
        TableRow(switch(dropped("vLLM gives them to whoever asks: prompt_logprobs of a request"))),
    ),
    "--graceful-termination-timeout": (TableRow(server.termination, server.default_termination),),
}

_TGI_ONLY = dropped("read by TGI alone")

# Variables that TGI or its image reads and that are no flags. Any other goes over as it is.
VARIABLES: dict[str, Translate] = {
    "HF_API_TOKEN": variables.token,
    "HUGGING_FACE_HUB_TOKEN": variables.token,
    "HUGGINGFACEHUB_API_TOKEN": _TGI_ONLY,
    "PREFIX_CACHING": variables.prefix_caching,
    "USE_PREFIX_CACHING": variables.prefix_caching,
    "ATTENTION": variables.attention,
    "PREFILL_CHUNKING": variables.prefill_chunking,
    "TGI_WIGGLE_ROOM": variables.wiggle_room,
    "LOG_LEVEL": variables.log_level,
    "RUST_LOG": dropped("of TGI's router"),
    "RUST_BACKTRACE": dropped("of TGI's router"),
    "COMPUTE_TYPE": _TGI_ONLY,
    "LOG_COLORIZE": _TGI_ONLY,
    "LOG_FORMAT": _TGI_ONLY,
    "REQUEST_LOGPROBS": _TGI_ONLY,
    "USE_FLASH_ATTENTION": _TGI_ONLY,
    "EXLLAMA_VERSION": _TGI_ONLY,
    "DISABLE_EXLLAMA": _TGI_ONLY,
    "EXLLAMA_NO_FLASH_ATTN": _TGI_ONLY,
    "ROCM_USE_FLASH_ATTN_V2_TRITON": _TGI_ONLY,
    "ROCM_USE_CUSTOM_PAGED_ATTN": _TGI_ONLY,
    "ROCM_USE_SKINNY_GEMM": _TGI_ONLY,
    "XPU_MEMORY_FRACTION": _TGI_ONLY,
    "HF_TASK": _TGI_ONLY,
    "MESSAGES_API_ENABLED": _TGI_ONLY,
}

# What is written though nobody asked: TGI does it by itself.
ADDED: dict[str, WriteOut] = {
    "the model's generation_config": unasked.generation_config,
    "tools of any model": unasked.tools,
    "HF_HOME of TGI's image": unasked.cache_home,
}


def row(name: str, version: tuple[int, ...]) -> TableRow:
    """Return the row of a flag for a version of vLLM. Raises KeyError for what is no flag of TGI's."""
    return next(one for one in ROWS[name] if one.holds(version))
