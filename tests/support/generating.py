"""Prompts, seeds and models of random weights for tests of the engines; greedy responses by transformers itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import AutoModelForCausalLM

from hpc_saidpo.policy.model import Policy
from hpc_saidpo.records import seed_of

from .architectures import ARCHITECTURES, EAGER_ONLY, UNUSUAL

SUPPORTED = {**ARCHITECTURES, **EAGER_ONLY}  # by the engine `shared`
PROMPTS = ["12+34\n", "double 7 add 5\n", "9-4\n", "5*13=?\n"]


def tokens(policy: Policy, prompts: Sequence[str] = PROMPTS) -> list[list[int]]:
    return [policy.encode_prompt(prompt, chat=False) for prompt in prompts]


def seeds(n_prompts: int, k: int, seed: int = 0, first: int = 0) -> list[list[int]]:
    """K seeds for each prompt; `first` is the number of the first prompt."""
    return [[seed_of(seed, 0, "test", first + q, s) for s in range(k)] for q in range(n_prompts)]


def tiny(micro: Policy, name: str) -> Policy:
    """A tiny model of an architecture, with random weights and the micro model's tokenizer."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config({**SUPPORTED, **UNUSUAL}[name]).eval()
    return Policy(model, micro.tokenizer, torch.device("cpu"), torch.float32, name)


def greedy_by_transformers(policy: Policy, prompt: list[int], n: int) -> list[int]:
    """The tokens of transformers' own generate, at most n."""
    ids = torch.tensor([prompt])
    # pad_token_id None would be taken from the config of models that have none
    out = policy.model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=n,
        pad_token_id=policy.tokenizer.pad_token_id, eos_token_id=list(policy.eos_ids),
    )  # fmt: skip
    return out[0, len(prompt) :].tolist()
