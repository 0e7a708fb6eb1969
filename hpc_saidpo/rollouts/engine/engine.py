"""The choice of an engine, the number of rows that it decodes at once, and the retry when memory does not suffice."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

import torch

from ... import settings
from ...errors import RunError, is_out_of_memory
from ...policy.model import Policy
from ...progress import drawing, log
from ...settings.rollouts import Sampling
from ..chunks import common_prefix
from . import vllm
from .machine import check_machine
from .memory import row_budget
from .sampling import Response
from .stopping import finish
from .ways import DECODE, SHARED, fast_linears, prompt_tokens, tried_engine
from .work import Backlog, Load, Options, Source, Work, listed


def generate(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[Sequence[int]],
    sampling: Sampling,
    config: settings.Engine | None = None,
) -> list[list[Response]]:
    """Generate K responses to each prompt, with their log-probabilities.

    With the shared engine a response depends only on its prompt, its seed and `sampling`, up to the rounding of
    batches. The way to decode is the first one that computes what the policy's plain forward pass does (`ways`).

    Args:
        prompts: token ids, one list per prompt.
        seeds: for each prompt, K seeds, one per response.

    Returns:
        For each prompt its K responses, in the order of its seeds.

    Raises:
        RunError: one response alone does not fit into memory; the engine cannot run here; or no way computes what the
            policy's plain forward pass does.
    """
    if not prompts:
        return []
    start, longest = common_prefix(prompts), max(map(len, prompts))
    works = [Work(prompt, seeds_K, start) for prompt, seeds_K in zip(prompts, seeds, strict=True)]
    load = Load(min(map(len, seeds)), longest, longest - start, start)
    for _ in stream(policy, listed(works), load, sampling, config or settings.Engine(), with_logp=True):
        pass
    return [work.responses for work in works]


def stream(
    policy: Policy, source: Source, load: Load, sampling: Sampling, config: settings.Engine, with_logp: bool = False
) -> Generator[Work]:
    """Yield the works of a source, each when its responses are complete. New ones take the places of finished rows.

    The source is asked for a work when there is room for its responses, and not before. Works that a reader of this
    stream adds to the source are decoded, too.

    Args:
        with_logp: compute the log-probabilities of responses. vLLM and engine hf always do.

    Raises:
        RunError: as `generate`.
    """
    if config.engine == "vllm":
        works = vllm.stream(policy, source, sampling, config)
    else:
        works = _decode(policy, source, load, sampling, config, with_logp)
    for work in works:
        for response in work.responses:
            finish(policy, response, sampling.stop)
        yield work


def depends_on_batch(policy: Policy, config: settings.Engine) -> bool:
    """Whether the tokens that a seed draws depend on the other works of a batch, and not by rounding alone."""
    return config.engine != "vllm" and tried_engine(policy, config.engine).way != SHARED


def _decode(
    policy: Policy, source: Source, load: Load, sampling: Sampling, config: settings.Engine, with_logp: bool
) -> Iterator[Work]:
    """Yield the works. When memory does not suffice, decode incomplete responses again with fewer rows at once."""
    assert config.engine != "vllm"
    check_machine(config, policy.device)
    tried = tried_engine(policy, config.engine)
    n_rows = config.rows or row_budget(policy, tried, prompt_tokens(tried.way, load), sampling)
    backlog, out_of_memory = Backlog(source, n_rows), True
    while out_of_memory:
        out_of_memory, options = False, Options(n_rows, config.compile, config.graphs, with_logp)
        try:
            linears = fast_linears(policy, tried.way, getattr(torch, config.linears), config.compile)
            with linears, drawing(backlog.drawn):
                for part in DECODE[tried.way](policy, backlog, load, sampling, options):
                    if work := backlog.end(part):
                        yield work
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            out_of_memory = True
        if out_of_memory:
            n_rows = _halve(n_rows)
            yield from backlog.begin_again(n_rows)


def _halve(n_rows: int) -> int:
    if n_rows == 1:
        raise RunError(
            "out of memory with one response at a time: lower rollouts.max_new_tokens, use a smaller policy, or "
            "request more memory"
        )
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    log.warning("  out of memory with %d responses at once: continuing with %d", n_rows, n_rows // 2)
    return n_rows // 2
