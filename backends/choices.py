"""Several upstream answers as one: the choices of `n`, and of several prompts, that were asked for one by one."""

from collections.abc import Collection, Sequence

import msgspec

from backends.base import Completion, UpstreamRequest
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
    """Return the sum: what was written counts for every choice, what was read once for each prompt.

    None, or -1, if one of the figures is not known.
    """
    read: dict[int, int] = {}
    written: list[int] = []
    for usage, request in zip(usages, requests, strict=True):
        if usage is None:
            return None
        read[request.prompt] = usage.prompt_tokens
        written.append(usage.completion_tokens)
    before, after = _sum(read.values()), _sum(written)
    return Usage(prompt_tokens=before, completion_tokens=after, total_tokens=_sum([before, after]))


def _sum(figures: Collection[int]) -> int:
    return -1 if min(figures, default=0) < 0 else sum(figures)
