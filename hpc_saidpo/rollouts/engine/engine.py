"""The choice of an engine, the number of rows that it decodes at once, and the retry when memory does not suffice."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

import torch

from ... import settings
from ...errors import RunError, is_out_of_memory
from ...policy.model import Policy
from ...progress import drawing, log
from ...settings.rollouts import Sampling
from . import vllm
from .memory import row_budget
from .sampling import Response
from .stopping import finish
from .ways import decode_by, fast_linears, tried_engine


def generate(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[Sequence[int]],
    sampling: Sampling,
    config: settings.Engine | None = None,
) -> list[list[Response]]:
    """Generate K responses to each prompt.

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
    config = config or settings.Engine()
    responses = [[Response() for _ in seeds_K] for seeds_K in seeds]
    if config.engine == "vllm":
        vllm.generate(policy, prompts, seeds, responses, sampling, config)
    else:
        _decode(policy, prompts, seeds, responses, sampling, config)
    for responses_K in responses:
        for response in responses_K:
            finish(policy, response, sampling.stop)
    return responses


def _decode(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[Sequence[int]],
    responses: list[list[Response]],
    sampling: Sampling,
    config: settings.Engine,
) -> None:
    """Fill in the responses. When memory does not suffice, decode the incomplete ones again with fewer rows at once."""
    assert config.engine != "vllm"
    _check_compiler(config)
    tried = tried_engine(policy, config.engine)
    decode = decode_by(tried.way, config.compile)
    n_rows = config.rows or row_budget(policy, tried, prompts, sampling)
    while todo := _incomplete(responses, sampling, n_rows):
        todo_prompts = [prompts[q] for q, _ in todo]
        todo_seeds = [[seeds[q][s] for s in samples] for q, samples in todo]
        made = [[Response() for _ in samples] for _, samples in todo]
        out_of_memory = False
        try:
            linears = fast_linears(policy, tried.way, getattr(torch, config.linears), config.compile)
            with linears, drawing(made):
                decode(policy, todo_prompts, todo_seeds, made, sampling, n_rows)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            out_of_memory = True
        for (q, samples), made_K in zip(todo, made, strict=True):
            for s, response in zip(samples, made_K, strict=True):
                if _is_complete(response, sampling):
                    responses[q][s] = response
        if out_of_memory:
            n_rows = _halve(n_rows)


def _check_compiler(config: settings.Engine) -> None:
    if config.compile and not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))):
        raise RunError("rollouts.generate.compile=true needs a C++ compiler on this node (CXX, g++ or clang++)")


def _is_complete(response: Response, sampling: Sampling) -> bool:
    return response.finished or len(response.tokens) == sampling.max_new_tokens


def _incomplete(
    responses: Sequence[Sequence[Response]], sampling: Sampling, n_rows: int
) -> list[tuple[int, list[int]]]:
    """The incomplete responses: (prompt, its samples), at most `n_rows` samples each."""
    parts = []
    for q, responses_K in enumerate(responses):
        left = [s for s, response in enumerate(responses_K) if not _is_complete(response, sampling)]
        parts += [(q, left[i : i + n_rows]) for i in range(0, len(left), n_rows)]
    return parts


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
