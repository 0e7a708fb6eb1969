"""Which engine, how many rows at once, and what happens when memory does not suffice."""

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
from .attention import NotDriven
from .sampling import Response
from .stopping import finish

CPU_ROWS = 96  # more gain nothing: the products are long enough
GPU_ROWS = 512
FREE_SHARE = 0.6  # of the free memory, for keys, values and logits


def generate(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[Sequence[int]],
    how: Sampling,
    config: settings.Engine | None = None,
) -> list[list[Response]]:
    """K responses to each prompt.

    With the shared engine a response depends on its prompt, its seed and `how` only, up to the rounding of batches.

    Args:
        prompts: token ids, one list per prompt.
        seeds: for each prompt, K seeds, one per response.

    Returns:
        For each prompt its K responses, in the order of its seeds.

    Raises:
        RunError: not even one response fits into memory; or the engine cannot run here.
    """
    config = config or settings.Engine()
    responses = [[Response() for _ in own] for own in seeds]
    if config.engine == "vllm":
        vllm.generate(policy, prompts, seeds, responses, how, config.vllm_memory)
    else:
        _decode(policy, prompts, seeds, responses, how, config)
    for own in responses:
        for response in own:
            finish(policy, response, how.stop)
    return responses


def _decode(policy, prompts, seeds, responses, how, config):
    """With fewer rows at once whenever memory does not suffice; what is complete by then stays."""
    engine = _engine(policy, config)
    n_rows = config.rows or budget(policy, prompts, how)
    while todo := _todo(seeds, responses, how, n_rows):
        parts = [[prompts[q] for q, _ in todo], [[seeds[q][s] for s in own] for q, own in todo]]
        made = [[Response() for _ in own] for _, own in todo]
        out_of_memory = False
        try:
            with linears.fast(policy, getattr(torch, config.linears), config.compile):
                engine(policy, *parts, made, how, n_rows)
        except NotDriven as error:
            say_once(f"  the attention of {type(policy.model).__name__} has {error}: engine hf")
            engine = hf.generate
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                raise
            out_of_memory = True
        for (q, own), new in zip(todo, made, strict=True):
            for s, response in zip(own, new, strict=True):
                if _is_complete(response, how):
                    responses[q][s] = response
        if out_of_memory:
            n_rows = _halved(n_rows)


def _engine(policy: Policy, config: settings.Engine) -> Callable[..., None]:
    if config.engine == "hf":
        return hf.generate
    if not shared.can_drive(policy):
        say_once(f"  the attention of {type(policy.model).__name__} cannot be driven: engine hf")
        return hf.generate
    if config.compile and not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))):
        raise RunError("rollouts.generate.compile=true needs a C++ compiler on this node (CXX, g++ or clang++)")
    return functools.partial(shared.generate, compiled=config.compile)


def _is_complete(response: Response, how: Sampling) -> bool:
    return response.finished or len(response.tokens) == how.max_new_tokens


def _todo(seeds, responses, how, n_rows) -> list[tuple[int, list[int]]]:
    """(prompt, its samples) that are not complete, at most `n_rows` samples each."""
    found = []
    for q, own in enumerate(responses):
        left = [s for s in range(len(seeds[q])) if not _is_complete(own[s], how)]
        found += [(q, left[i : i + n_rows]) for i in range(0, len(left), n_rows)]
    return found


def _halved(n_rows: int) -> int:
    if n_rows == 1:
        raise RunError(
            "out of memory with one response at a time: lower rollouts.max_new_tokens, use a smaller policy, or ask "
            "for more memory"
        )
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    log.warning("  out of memory with %d responses at once: going on with %d", n_rows, n_rows // 2)
    return n_rows // 2


def budget(policy: Policy, prompts: Sequence[Sequence[int]], how: Sampling) -> int:
    """How many responses to decode at once: what free memory holds at full length, up to where more gains nothing.

    On a CPU that is CPU_ROWS wherever memory is not short, so that the same run makes the same batches anywhere.
    """
    config = policy.model.config
    n_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    of_token = 2 * config.num_hidden_layers * n_heads * size * policy.precision.itemsize
    of_row = of_token * (how.max_new_tokens + max(map(len, prompts))) + 16 * config.vocab_size
    most = GPU_ROWS if policy.device.type == "cuda" else CPU_ROWS
    return rows_within(FREE_SHARE * _free_bytes(policy), of_row, most)


def rows_within(n_bytes: float, of_row: float, most: int) -> int:
    """A power of two times `most` that fits, at least 1: a little more or less free memory gives the same batches."""
    rows = most
    while rows > 1 and rows * of_row > n_bytes:
        rows //= 2
    return rows


def _free_bytes(policy: Policy) -> float:
    """Of the GPU; of the node's memory as much as this rank has of its cores."""
    if policy.device.type != "cuda":
        available = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())[1]
        return 1024 * int(available) * min(1.0, torch.get_num_threads() / len(os.sched_getaffinity(0)))
    free, _ = torch.cuda.mem_get_info(policy.device)
    free += torch.cuda.memory_reserved(policy.device) - torch.cuda.memory_allocated(policy.device)
    if policy.precision != torch.float32:  # copies of the weights (linears)
        free -= policy.precision.itemsize * sum(p.numel() for p in policy.model.parameters())
    return free
