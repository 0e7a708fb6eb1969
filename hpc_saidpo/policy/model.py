"""A causal LM and its tokenizer: load, save, encode."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from .. import settings
from ..errors import RunError
from ..parallel import shards
from ..parallel.world import World
from .attention import attention_of, precision_of
from .save import FILE_BYTES, save_spread


@dataclass
class Policy:
    """A causal LM with its tokenizer, on one device. Weights are float32; `precision` is that of the computation."""

    model: nn.Module
    tokenizer: object
    device: torch.device
    precision: torch.dtype
    path: str

    @classmethod
    def load(cls, path: str, config: settings.Policy, device: torch.device) -> Policy:
        """Load a Hugging Face folder (or a name in the local Hub cache).

        Raises:
            RunError: no model or no tokenizer there; names the path and what is missing.
        """
        precision = precision_of(config, device)
        try:
            model = AutoModelForCausalLM.from_pretrained(
                path, dtype=torch.float32, attn_implementation=attention_of(config, device)
            )
        except (OSError, ValueError) as error:
            raise RunError(f"policy.path={path}: no model could be loaded from there: {error}") from error
        policy = cls(model.to(device), _load_tokenizer(path), device, precision, path)
        model.config.use_cache = True
        return policy

    def save(self, folder: Path, world: World | None = None, file_bytes: int = FILE_BYTES) -> None:
        """Save in Hugging Face layout: AutoModelForCausalLM.from_pretrained(folder) loads it.

        Args:
            world: collective: root writes, also weights of which each rank has a shard. None: this rank writes.
            file_bytes: the size of a file of weights; what one of them holds, at most, root has twice in memory.
        """
        is_root = world is None or world.is_root
        weights = self.model.state_dict(keep_vars=True)
        if any(map(shards.is_sharded, weights.values())):
            save_spread(self.model, weights, folder, is_root, file_bytes)
        elif is_root:
            self.model.save_pretrained(folder, max_shard_size=file_bytes)
        if is_root:
            self.tokenizer.save_pretrained(folder)

    @property
    def eos_ids(self) -> set[int]:
        """Every token that ends a response."""
        ids = getattr(self.model.generation_config, "eos_token_id", None)
        ids = ids if isinstance(ids, list) else [ids]
        return {i for i in [*ids, self.tokenizer.eos_token_id] if i is not None}

    def autocast(self):
        """The precision of the computation, as a context."""
        if self.precision == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.precision)

    def chat_template(self, messages: list[dict]) -> str:
        """Messages as one string with the assistant's turn opened.

        Raises:
            RunError: the tokenizer has no chat template.
        """
        if not self.tokenizer.chat_template:
            raise RunError(
                f"the tokenizer of {self.path} has no chat template: set rollouts/prompt=plain (or another prompt with "
                "chat: false)"
            )
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def encode_prompt(self, prompt: str, chat: bool) -> list[int]:
        """Token ids; a chat template already holds its special tokens, plain text gets the tokenizer's own."""
        return self.tokenizer(prompt, add_special_tokens=not chat)["input_ids"]

    def encode_response(self, text: str, finished: bool, stop: Sequence[str]) -> list[int]:
        """Token ids of a response to train on; one that ended by itself carries what ended it."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if not finished:
            return ids
        end = self.tokenizer(stop[0], add_special_tokens=False)["input_ids"] if stop else [self.tokenizer.eos_token_id]
        return ids + end


def _load_tokenizer(path):
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"policy.path={path}: the model is there but its tokenizer is not loadable ({error}): save both into the "
            "folder, tokenizer.save_pretrained(folder)"
        ) from error
    if len(tokenizer) == 0 or tokenizer.eos_token_id is None:
        raise RunError(f"policy.path={path}: its tokenizer is empty or has no end-of-sequence token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def longest(policy: Policy) -> float:
    """Positions that the model was made for."""
    return getattr(policy.model.config, "max_position_embeddings", None) or math.inf


def check_length(policy: Policy, n_tokens: int) -> None:
    """Refuse prompts and responses longer than the model was made for.

    Raises:
        RunError: n_tokens exceeds the model's max_position_embeddings.
    """
    limit = longest(policy)
    if n_tokens > limit:
        raise RunError(
            f"the longest prompt and rollouts.max_new_tokens need {n_tokens} positions, but the model at {policy.path} "
            f"has {limit}: lower rollouts.max_new_tokens or rollouts.prompt.shots"
        )
