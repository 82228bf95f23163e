"""Several upstream answers as one: the choices of `n`, and of several prompts, that were asked for one by one."""

from collections.abc import Sequence

import msgspec

from backends.base import Completion, UpstreamRequest
from backends.estimate import Estimate
from backends.schema import Usage


def merged(completions: Sequence[Completion], requests: Sequence[UpstreamRequest]) -> Completion:
    """Return one answer with all choices, in the order of their indexes."""
    first = completions[0]
    if len(completions) == 1:
        return first
    choices = sorted((choice for one in completions for choice in one.answer.choices), key=lambda choice: choice.index)
    usage = merged_usage([one.answer.usage for one in completions], requests)
    return Completion(msgspec.structs.replace(first.answer, choices=choices, usage=usage), first.extra)


def merged_usage(usages: Sequence[Usage | None], requests: Sequence[UpstreamRequest]) -> Usage | None:
    """Return the sum, if all is known: what was written counts for every choice, what was read once for each prompt."""
    if any(usage is None or min(usage.prompt_tokens, usage.completion_tokens) < 0 for usage in usages):
        return None
    return merged_work(usages, requests)


def merged_work(usages: Sequence[Usage | None], requests: Sequence[UpstreamRequest]) -> Usage | None:
    """Return the sum of what is known so far, an estimate unless it is all; None if that is nothing.

    The prompts' tokens are -1 as long as those of one of them are not known.
    """
    known = [usage for usage in usages if usage is not None]
    if not known:
        return None
    read = {request.prompt: -1 for request in requests}
    for usage, request in zip(usages, requests, strict=True):
        if usage is not None:
            read[request.prompt] = max(read[request.prompt], usage.prompt_tokens)
    tokens = -1 if -1 in read.values() else sum(read.values())
    written = sum(max(usage.completion_tokens, 0) for usage in known)
    sure = len(known) == len(usages) and not any(isinstance(usage, Estimate) for usage in known)
    kind = Usage if sure else Estimate
    return kind(prompt_tokens=tokens, completion_tokens=written, total_tokens=max(tokens, 0) + written)
