"""The choice of an engine, the number of rows that it decodes at once, and the retry when memory does not suffice."""

from __future__ import annotations

import functools
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from ... import settings
from ...errors import RunError
from ...policy.model import Policy
from ...progress import log, say_once
from ...settings.rollouts import Sampling
from . import hf, linears, shared, vllm
from .attention import UnsupportedAttention
from .sampling import Response
from .stopping import finish

CPU_ROWS = 96  # more rows bring no speed: the matrix products are large enough
GPU_ROWS = 512
FREE_SHARE = 0.6  # share of the free memory for keys, values and logits


def generate(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[Sequence[int]],
    sampling: Sampling,
    config: settings.Engine | None = None,
) -> list[list[Response]]:
    """Generate K responses to each prompt.

    With the shared engine a response depends only on its prompt, its seed and `sampling`, up to the rounding of
    batches.

    Args:
        prompts: token ids, one list per prompt.
        seeds: for each prompt, K seeds, one per response.

    Returns:
        For each prompt its K responses, in the order of its seeds.

    Raises:
        RunError: one response alone does not fit into memory; or the engine cannot run here.
    """
    config = config or settings.Engine()
    responses = [[Response() for _ in seeds_K] for seeds_K in seeds]
    if config.engine == "vllm":
        vllm.generate(policy, prompts, seeds, responses, sampling, config.vllm_memory)
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
    engine = _engine(policy, config)
    n_rows = config.rows or row_budget(policy, prompts, sampling)
    while todo := _incomplete(responses, sampling, n_rows):
        todo_prompts = [prompts[q] for q, _ in todo]
        todo_seeds = [[seeds[q][s] for s in samples] for q, samples in todo]
        made = [[Response() for _ in samples] for _, samples in todo]
        out_of_memory = False
        try:
            with linears.fast(policy, getattr(torch, config.linears), config.compile):
                engine(policy, todo_prompts, todo_seeds, made, sampling, n_rows)
        except UnsupportedAttention as error:
            say_once(f"  the attention of {type(policy.model).__name__} has {error}: engine hf")
            engine = hf.generate
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                raise
            out_of_memory = True
        for (q, samples), made_K in zip(todo, made, strict=True):
            for s, response in zip(samples, made_K, strict=True):
                if _is_complete(response, sampling):
                    responses[q][s] = response
        if out_of_memory:
            n_rows = _halve(n_rows)


def _engine(policy: Policy, config: settings.Engine) -> Callable[..., None]:
    """The engine's function: policy, prompts, seeds, responses, sampling, n_rows -> None."""
    if config.engine == "hf":
        return hf.generate
    if not shared.supports(policy):
        say_once(f"  the engine shared does not support the attention of {type(policy.model).__name__}: engine hf")
        return hf.generate
    if config.compile and not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))):
        raise RunError("rollouts.generate.compile=true needs a C++ compiler on this node (CXX, g++ or clang++)")
    return functools.partial(shared.generate, compiled=config.compile)


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


def row_budget(policy: Policy, prompts: Sequence[Sequence[int]], sampling: Sampling) -> int:
    """Number of responses to decode at once: as many as fit into free memory at full length, up to a maximum.

    On a CPU the maximum is CPU_ROWS. It is reached unless memory is short, so the same run makes the same batches on
    any node.
    """
    config = policy.model.config
    n_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    token_bytes = 2 * config.num_hidden_layers * n_heads * head_size * policy.precision.itemsize  # keys and values
    # 16 bytes per token of the vocabulary: logits and temporary copies of them.
    row_bytes = token_bytes * (sampling.max_new_tokens + max(map(len, prompts))) + 16 * config.vocab_size
    max_rows = GPU_ROWS if policy.device.type == "cuda" else CPU_ROWS
    return rows_within(FREE_SHARE * _free_bytes(policy), row_bytes, max_rows)


def rows_within(n_bytes: float, row_bytes: float, max_rows: int) -> int:
    """The largest `max_rows` / 2^i that fits, at least 1: slightly more or less free memory makes the same batches."""
    rows = max_rows
    while rows > 1 and rows * row_bytes > n_bytes:
        rows //= 2
    return rows


def _free_bytes(policy: Policy) -> float:
    """Free memory of the GPU; on a CPU this rank's share of the node's free memory, by its cores."""
    if policy.device.type != "cuda":
        available = re.findall(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())[0]
        return 1024 * int(available) * min(1.0, torch.get_num_threads() / len(os.sched_getaffinity(0)))
    free, _ = torch.cuda.mem_get_info(policy.device)
    free += torch.cuda.memory_reserved(policy.device) - torch.cuda.memory_allocated(policy.device)
    if policy.precision != torch.float32:  # copies of the weights (linears)
        free -= policy.precision.itemsize * sum(p.numel() for p in policy.model.parameters())
    return free
