"""The model's own forward pass: one row, no cache, no padding. Every faster way is compared with it."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

MOST_WEIGHTS = 5 * 10**8  # of a model of which a copy is made: 4 GB in float64
SHORT = 5  # tokens of a window while a model is tried out
# Settings by which tokens far away are treated in another way than near ones, in configurations and in modules.
WINDOWS = ("sliding_window", "attention_chunk_size")
_SPECIAL = re.compile(r"(token_ids?|token_index)$")


def logits(model: PreTrainedModel, ids: Sequence[int]) -> torch.Tensor:
    """The logits [T, V] after each token of a row, float32."""
    row = torch.tensor([list(ids)], device=next(model.parameters()).device)
    known = inspect.signature(type(model).forward).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())
    options = {"use_cache": False} if takes_any or "use_cache" in known else {}
    return model(input_ids=row, **options).logits[0].float()


def logps(model: PreTrainedModel, prompt: Sequence[int], response: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities [T] of a response's tokens, and [T] those of the likeliest tokens in their places, nats."""
    logits_TV = logits(model, [*prompt, *response])[len(prompt) - 1 : -1]
    all_TV = logits_TV.double().log_softmax(-1)
    target_T = torch.tensor(list(response), device=all_TV.device)
    return all_TV.gather(1, target_T[:, None])[:, 0], all_TV.amax(-1)


def more_exact(model: PreTrainedModel, precision: torch.dtype) -> PreTrainedModel:
    """Return a model that rounds less than a policy does, to measure the policy's rounding.

    Args:
        model: the policy's model, with float32 weights.
        precision: in which the policy computes.

    Returns:
        For a lower precision the model itself, which computes in float32 without autocast; for float32 a copy in
        float64. A large model is not copied: it is returned, and then no rounding is found.
    """
    if precision != torch.float32 or model.num_parameters() > MOST_WEIGHTS:
        return model
    return copy.deepcopy(model).double()


def ordinary_tokens(model: PreTrainedModel, n: int) -> list[int]:
    """n token ids of the model's vocabulary that its configuration names nowhere (ends, padding, images); the same at
    every call."""
    embeddings = cast(nn.Embedding, model.get_input_embeddings())
    size = min(len(embeddings.weight), model.config.get_text_config().vocab_size)
    named = _named(model.config.to_dict())
    ids = np.random.default_rng(0).permutation(min(size, 2**16))
    kept = [int(i) for i in ids if int(i) not in named]
    return (kept * n)[:n]


def _named(config: dict) -> set[int]:
    """Token ids that a configuration names, at any depth."""
    ids: set[int] = set()
    for key, value in config.items():
        if isinstance(value, dict):
            ids |= _named(value)
        elif _SPECIAL.search(str(key)):
            ids |= {i for i in (value if isinstance(value, list) else [value]) if isinstance(i, int)}
    return ids


@contextmanager
def short_windows(model: PreTrainedModel) -> Iterator[None]:
    """A context in which every window of the model is a few tokens long, so that a short row shows its effect."""
    parts = [*model.modules(), *configs_of(model)]
    changed = []
    for part in parts:
        for name in WINDOWS:
            size = getattr(part, "__dict__", {}).get(name)
            if isinstance(size, int) and size > SHORT:
                changed.append((part, name, size))
    try:
        for part, name, _ in changed:
            setattr(part, name, SHORT)
        yield
    finally:
        for part, name, size in changed:
            setattr(part, name, size)


def configs_of(model: PreTrainedModel) -> list[PreTrainedConfig]:
    """Every configuration in a model, once; an outer one comes before those inside it."""
    waiting, found = [m.config for m in model.modules() if isinstance(m, PreTrainedModel)], {}
    for config in waiting:  # grows meanwhile
        if id(config) not in found:
            found[id(config)] = config
            waiting += [value for value in vars(config).values() if isinstance(value, PreTrainedConfig)]
    return list(found.values())
