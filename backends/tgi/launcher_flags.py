"""The flags of TGI's `text-generation-launcher`: what each takes, and what it is where nobody says.

Taken from `launcher/src/main.rs` (`struct Args`) of github.com/huggingface/text-generation-inference at the commit
below, which is the last that changed it; the repository is archived. Each flag can also be given as an environment
variable, by the flag's name in capitals; the flag wins.
"""

from typing import Literal

from msgspec import Struct

COMMIT = "db931fcf42da018a3657580c64bf2720f167f9ab"

# A switch takes no value on the command line, a boolean takes true or false; as variables both take true or false.
FlagKind = Literal["text", "texts", "whole", "wholes", "number", "choice", "boolean", "switch"]

QUANTIZATIONS = (
    "awq",
    "compressed-tensors",
    "eetq",
    "exl2",
    "gptq",
    "marlin",
    "bitsandbytes",
    "bitsandbytes-nf4",
    "bitsandbytes-fp4",
    "fp8",
)


class LauncherFlag(Struct, frozen=True):
    """One flag. `texts` may be given several times; `wholes` are whole numbers with commas between them.

    `default` is None where the launcher finds out by itself, or goes without.
    """

    name: str
    kind: FlagKind
    default: str | None = None
    choices: tuple[str, ...] = ()
    short: str = ""
    env: bool = True

    @property
    def variable(self) -> str:
        """The environment variable that says the same; empty if there is none."""
        return self.name.removeprefix("--").replace("-", "_").upper() if self.env else ""


LAUNCHER_FLAGS: tuple[LauncherFlag, ...] = (
    LauncherFlag("--model-id", "text", default="bigscience/bloom-560m"),
    LauncherFlag("--revision", "text"),
    LauncherFlag("--validation-workers", "whole", default="2"),
    LauncherFlag("--sharded", "boolean"),
    LauncherFlag("--num-shard", "whole"),
    LauncherFlag("--quantize", "choice", choices=QUANTIZATIONS),
    LauncherFlag("--speculate", "whole"),
    LauncherFlag("--dtype", "choice", choices=("float16", "bfloat16")),
    LauncherFlag("--kv-cache-dtype", "choice", choices=("fp8_e4m3fn", "fp8_e5m2")),
    LauncherFlag("--trust-remote-code", "switch"),
    LauncherFlag("--max-concurrent-requests", "whole", default="128"),
    LauncherFlag("--max-best-of", "whole", default="2"),
    LauncherFlag("--max-stop-sequences", "whole", default="4"),
    LauncherFlag("--max-top-n-tokens", "whole", default="5"),
    LauncherFlag("--max-input-tokens", "whole"),
    LauncherFlag("--max-input-length", "whole"),
    LauncherFlag("--max-total-tokens", "whole"),
    LauncherFlag("--waiting-served-ratio", "number", default="0.3"),
    LauncherFlag("--max-batch-prefill-tokens", "whole"),
    LauncherFlag("--max-batch-total-tokens", "whole"),
    LauncherFlag("--max-waiting-tokens", "whole", default="20"),
    LauncherFlag("--max-batch-size", "whole"),
    LauncherFlag("--cuda-graphs", "wholes"),
    LauncherFlag("--hostname", "text", default="0.0.0.0"),
    LauncherFlag("--port", "whole", default="3000", short="-p"),
    LauncherFlag("--prometheus-port", "whole", default="9000"),
    LauncherFlag("--shard-uds-path", "text", default="/tmp/text-generation-server"),
    LauncherFlag("--master-addr", "text", default="localhost"),
    LauncherFlag("--master-port", "whole", default="29500"),
    LauncherFlag("--huggingface-hub-cache", "text"),
    LauncherFlag("--weights-cache-override", "text"),
    LauncherFlag("--disable-custom-kernels", "switch"),
    LauncherFlag("--cuda-memory-fraction", "number", default="1.0"),
    LauncherFlag("--rope-scaling", "choice", choices=("linear", "dynamic")),
    LauncherFlag("--rope-factor", "number"),
    LauncherFlag("--json-output", "switch"),
    LauncherFlag("--otlp-endpoint", "text"),
    LauncherFlag("--otlp-service-name", "text", default="text-generation-inference.router"),
    LauncherFlag("--cors-allow-origin", "texts"),
    LauncherFlag("--api-key", "text"),
    LauncherFlag("--watermark-gamma", "number"),
    LauncherFlag("--watermark-delta", "number"),
    LauncherFlag("--ngrok", "switch"),
    LauncherFlag("--ngrok-authtoken", "text"),
    LauncherFlag("--ngrok-edge", "text"),
    LauncherFlag("--tokenizer-config-path", "text"),
    LauncherFlag("--disable-grammar-support", "switch"),
    LauncherFlag("--env", "switch", short="-e", env=False),
    LauncherFlag("--max-client-batch-size", "whole", default="4"),
    LauncherFlag("--lora-adapters", "text"),
    LauncherFlag("--usage-stats", "choice", default="on", choices=("on", "off", "no-stack")),
    LauncherFlag("--payload-limit", "whole", default="2000000"),
    LauncherFlag("--enable-prefill-logprobs", "switch"),
    LauncherFlag("--graceful-termination-timeout", "whole", default="90", short="-g"),
)

BY_NAME = {flag.name: flag for flag in LAUNCHER_FLAGS} | {flag.short: flag for flag in LAUNCHER_FLAGS if flag.short}
BY_VARIABLE = {flag.variable: flag for flag in LAUNCHER_FLAGS if flag.variable}
