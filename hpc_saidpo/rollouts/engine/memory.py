"""The number of responses to decode at once: as many as memory holds."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from ...policy import plain
from ...policy.model import Policy
from ...policy.trial import Trial
from ...settings.rollouts import Sampling

CPU_ROWS = 192  # more rows bring no speed: the matrix products are large enough
GPU_ROWS = 512
FREE_SHARE = 0.6  # share of the free memory for keys, values and logits
MEASURED = (8, 16)  # tokens with which a model's cache is measured


def row_budget(policy: Policy, tried: Trial, prompt_tokens: float, sampling: Sampling) -> int:
    """Number of responses to decode at once: as many as fit into free memory at full length, up to a maximum.

    On a CPU the maximum is CPU_ROWS. It is reached unless memory is short, so the same run makes the same batches on
    any node.

    Args:
        tried: the try-out of the engine, which has measured what a response needs.
        prompt_tokens: tokens of prompts that are stored for each response, at most.
    """
    vocabulary = policy.model.config.get_text_config().vocab_size
    # 16 bytes per token of the vocabulary: logits and temporary copies of them.
    row_bytes = tried.token_bytes * (sampling.max_new_tokens + prompt_tokens) + tried.row_bytes + 16 * vocabulary
    max_rows = GPU_ROWS if policy.device.type == "cuda" else CPU_ROWS
    return rows_within(FREE_SHARE * free_bytes(policy), row_bytes, max_rows)


def rows_within(n_bytes: float, row_bytes: float, max_rows: int) -> int:
    """The largest `max_rows` / 2^i that fits, at least 1: slightly more or less free memory makes the same batches."""
    rows = max_rows
    while rows > 1 and rows * row_bytes > n_bytes:
        rows //= 2
    return rows


def free_bytes(policy: Policy) -> float:
    """Free memory of the GPU; on a CPU this rank's share of the node's free memory, by its cores."""
    if policy.device.type != "cuda":
        available = re.findall(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())[0]
        return 1024 * int(available) * min(1.0, torch.get_num_threads() / len(os.sched_getaffinity(0)))
    free, _ = torch.cuda.mem_get_info(policy.device)
    free += torch.cuda.memory_reserved(policy.device) - torch.cuda.memory_allocated(policy.device)
    if policy.precision != torch.float32:  # copies of the weights (linears)
        free -= policy.precision.itemsize * sum(p.numel() for p in policy.model.parameters())
    return free


def cache_bytes(policy: Policy) -> tuple[float, float]:
    """Bytes that transformers' cache takes for each token of a row, and for the row besides: measured."""
    few, many = MEASURED
    ids = plain.ordinary_tokens(policy.model, many)
    sizes = []
    for n in MEASURED:
        with torch.no_grad(), policy.autocast():
            outputs = policy.model(input_ids=torch.tensor([ids[:n]], device=policy.device), use_cache=True)
        kept = [value for name, value in outputs.items() if name not in ("logits", "loss")]
        sizes.append(sum({x.data_ptr(): x.nbytes for x in _tensors(kept, set())}.values()))
    by_token = max(0.0, (sizes[1] - sizes[0]) / (many - few))
    return by_token, max(0.0, sizes[0] - few * by_token)


def _tensors(value: object, seen: set[int]) -> Iterable[torch.Tensor]:
    """All tensors inside lists, mappings and objects."""
    if isinstance(value, torch.Tensor):
        yield value
    elif id(value) not in seen:
        seen.add(id(value))
        inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
        for part in inner or (vars(value).values() if hasattr(value, "__dict__") else ()):
            yield from _tensors(part, seen)
