"""How long, how large and how many requests may be."""

from gateway.cli.migrate.fates import UNKNOWN, Facts, Fate, Translated, blocked, number

SMALLEST_BUDGET = 2048  # vLLM's own smallest default of --max-num-batched-tokens


def default_context(facts: Facts) -> Translated:
    """TGI takes what fits; vLLM refuses to start where the model's whole context does not."""
    if facts.launch.variant == "intel-cpu":
        return Translated(Fate.LOST, why="vLLM on a CPU takes the model's whole context; cap it by --max-model-len")
    if facts.version < (0, 14):
        return blocked("this vLLM cannot choose the context that fits: say it by --max-total-tokens")
    why = "the longest context that fits, as TGI does; vLLM's own default is the model's, or it does not start"
    return Translated(Fate.DEFAULT, ("--max-model-len", "auto"), why=why)


def max_input(value: str, facts: Facts) -> Translated:
    """vLLM has no bound on the prompt alone, nor has the gateway."""
    total = facts.value("--max-total-tokens") or "what --max-model-len says"
    why = f"prompts of more than {value} tokens pass now, up to {total} with the answer"
    return Translated(Fate.LOST, why=why, enforced_by="nobody")


def max_batch_prefill(value: str, facts: Facts) -> Translated:
    """vLLM's budget is of prefill and decode together, in each step."""
    if (tokens := number(value)) is None:
        return blocked(UNKNOWN)
    if tokens < SMALLEST_BUDGET:
        why = f"vLLM's budget holds decoding too, and prompts in pieces: below {SMALLEST_BUDGET} it would be slow"
        return Translated(Fate.DROPPED, why=why)
    why = "vLLM's budget of a step: prompts in pieces and decoding together. "
    why += f"Its default {_budget_default(facts.gpu_memory)} may be faster"
    return Translated(Fate.MAPPED, ("--max-num-batched-tokens", value), why=why)


def _budget_default(gpu_memory: int) -> str:
    """Return vLLM's own default of the budget (0.32: `EngineArgs.get_batch_defaults`)."""
    if not gpu_memory:
        return "(2048, or 8192 and more on large GPUs)"
    gib = gpu_memory / 2**30
    return "is 16384 and" if gib >= 160 else "is 8192 (on an A100 2048) and" if gib >= 70 else "is 2048 and"


def max_concurrent(value: str, facts: Facts) -> Translated:
    """TGI's 429 becomes vLLM's 503; the gateway lets those above it wait for a while."""
    limits = {"max_in_flight": int(value)} if number(value) is not None else {}
    waits = "the gateway sends no more to it, and lets them wait up to admission.queue_timeout"
    if facts.version < (0, 29):
        return Translated(Fate.LOST, limits=limits, why=waits, enforced_by="gateway: max_in_flight of the deployment")
    why = f"above it vLLM answers 503, TGI 429; {waits}"
    arguments = ("--max-num-queued-reqs", value)
    return Translated(Fate.MAPPED, arguments, limits=limits, why=why)


def default_concurrent(facts: Facts) -> Translated:
    """TGI's default of 128; vLLM's queue has no bound."""
    made = max_concurrent("128", facts)
    fate = Fate.DEFAULT if made.arguments else Fate.LOST
    return Translated(fate, made.arguments, limits=made.limits, why=made.why, enforced_by=made.enforced_by)


def max_batch_size(value: str, facts: Facts) -> Translated:
    """How many run at once; with it the gateway knows the engine's slots."""
    limits = {"slots": int(value)} if number(value) is not None else {}
    return Translated(Fate.MAPPED, ("--max-num-seqs", value), limits=limits)


def payload_limit(value: str, facts: Facts) -> Translated:
    """vLLM takes a body of any size."""
    limits = {"max_body": value} if number(value) else {}
    why = "vLLM takes a body of any size" if limits else UNKNOWN
    return Translated(Fate.LOST, limits=limits, why=why, enforced_by="gateway: server.max_body" if limits else "nobody")


def default_payload(facts: Facts) -> Translated:
    """TGI's 2 MB."""
    return Translated(
        Fate.LOST, limits={"max_body": "2000000"}, why="TGI's default, 2 MB", enforced_by="gateway: server.max_body"
    )
