"""A causal language model and its tokenizer: load, save, encode."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from .. import settings
from ..errors import RunError, memory_errors, shown
from ..parallel import shards
from ..parallel.world import World
from ..progress import say_once
from .attention import attention_of, precision_of, save_precision_of, selected_tokens
from .chat import apply_template
from .experts import in_autocast
from .read import (
    MEMORY_REMEDY,
    check_vocabulary,
    end_ids,
    read_class,
    read_config,
    read_tokenizer,
    read_weights,
    skeleton,
)
from .save import FILE_BYTES, is_stored_as_computed, save_by_file, save_whole

ROPES_BY_LENGTH = ("longrope", "dynamic")
# Names under which configurations limit the length of a row.
LENGTHS = ("max_position_embeddings", "max_seq_len", "max_target_positions")


@dataclass
class Policy:
    """A causal language model with its tokenizer, on one device.

    Attributes:
        precision: of the computation; weights in memory are always float32.
        path: the folder that it was loaded from.
        ends: token ids that end a response; None: those of its generation config and its tokenizer.
        saved: precision of the weights that `save` writes.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    precision: torch.dtype
    path: str
    ends: frozenset[int] | None = None
    saved: torch.dtype = torch.float32

    @classmethod
    def load(cls, path: str, config: settings.Policy, device: torch.device) -> Policy:
        """Load a Hugging Face folder (or a name in the local Hub cache).

        Raises:
            RunError: the folder contains no model or no tokenizer; the message names the path and what is missing.
        """
        precision = precision_of(config, device)
        model = read_weights(path, attn_implementation=attention_of(config, device, read_class(path)))
        with memory_errors(f"while policy.path={path} is moved to {device}", MEMORY_REMEDY):
            model.to(device)  # pyright: ignore[reportArgumentType] - transformers wraps it without `self`
        saved = save_precision_of(config, read_config(path).dtype)
        in_autocast(model)
        policy = cls(model, read_tokenizer(path), device, precision, path, saved=saved)
        check_vocabulary(path, model, policy.tokenizer)
        model.config.use_cache = True
        return policy

    @classmethod
    def without_weights(cls, path: str) -> Policy:
        """Read a policy's configuration and tokenizer, for checks before any work: its layers have no weights.

        Raises:
            RunError: as `load`.
        """
        model, device = skeleton(path), torch.device("meta")
        policy = cls(model, read_tokenizer(path), device, torch.float32, path)
        check_vocabulary(path, model, policy.tokenizer)
        return policy

    def save(self, folder: Path, world: World | None = None, file_bytes: int = FILE_BYTES) -> None:
        """Save in Hugging Face layout, in the precision `saved`: AutoModelForCausalLM.from_pretrained(folder) loads it.

        Args:
            world: if not None, the call is collective and root writes, also weights that are sharded over the ranks.
                None: this rank writes.
            file_bytes: maximum size of one file of weights. Root holds at most two copies of one file in memory; of a
                model whose weights have other names in files, also a copy of all weights in a lower precision.
        """
        is_root = world is None or world.is_root
        weights = self.model.state_dict(keep_vars=True)
        is_rounded = self.saved != torch.float32
        if any(map(shards.is_sharded, weights.values())) or (is_rounded and is_stored_as_computed(self.model)):
            save_by_file(self.model, weights, folder, is_root, file_bytes, self.saved)
        elif is_root:
            save_whole(self.model, folder, file_bytes, self.saved)
        if is_root:
            self.tokenizer.save_pretrained(folder)

    @property
    def eos_ids(self) -> set[int]:
        """Every token that ends a response."""
        return set(self.ends) if self.ends is not None else end_ids(self.model, self.tokenizer)

    def autocast(self) -> contextlib.AbstractContextManager:
        """A context in which torch computes in `precision`."""
        if self.precision == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.precision)

    def chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        arguments: Mapping[str, Any] | None = None,
        now: datetime | None = None,
    ) -> str:
        """Messages as one string that ends where the assistant's turn begins. See `chat.apply_template`.

        Raises:
            RunError: the tokenizer has no chat template, or several without a default; or the template fails.
        """
        return apply_template(self.tokenizer, messages, arguments or {}, now)

    def token_name(self, token_id: int) -> str:
        """The name of a token, for messages: the tokenizer's, or its number if only the model has it."""
        name = self.tokenizer.convert_ids_to_tokens(token_id)
        return f"token {token_id}" if name is None else str(name)

    def encode_prompt(self, prompt: str, chat: bool) -> list[int]:
        """Token ids of a prompt. Special tokens are added to plain text only: a chat template contains them.

        Tokens that the tokenizer adds after every text (an end token) are left out: a response follows the prompt.
        """
        ids = self.tokenizer(prompt, add_special_tokens=not chat)["input_ids"]
        return ids if chat else ids[: len(ids) - self._n_added_after]

    @functools.cached_property
    def _n_added_after(self) -> int:
        """Number of tokens that the tokenizer adds after every text."""
        whole, bare = (self.tokenizer("1", add_special_tokens=added)["input_ids"] for added in (True, False))
        starts = (i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
        added = whole[next(starts, len(whole)) + len(bare) :]
        if added:
            names = " ".join(map(self.token_name, added))
            say_once(f"  the tokenizer of {self.path} adds {names} after every text: left out of the prompts")
        return len(added)

    def encode_response(self, text: str, finished: bool, stop: Sequence[str]) -> list[int]:
        """Token ids of a response whose drawn ids are unknown. A finished one gets an end: a stop string or the token.

        They may differ from the drawn ids: several sequences of tokens make the same text.
        """
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if not finished:
            return ids
        end = self.tokenizer(stop[0], add_special_tokens=False)["input_ids"] if stop else [self.tokenizer.eos_token_id]
        return ids + end


def max_positions(policy: Policy) -> float:
    """The longest row that the model computes, and computes in the same way beside any other row.

    Rotary embeddings of the types longrope and dynamic change for all rows of a batch when one of them crosses a
    length, and some attention selects tokens in longer rows (`attention.selected_tokens`): then that length is the
    limit. Infinite when the configuration does not limit it.
    """
    return min(_limits(policy.model.config.get_text_config()).values())


def check_length(policy: Policy, n_tokens: int) -> None:
    """Check that the longest prompt with its response fits into the model's positions.

    Raises:
        RunError: n_tokens exceeds `max_positions`.
    """
    limit = max_positions(policy)
    if n_tokens > limit:
        limits = _limits(policy.model.config.get_text_config())
        reason = max((text for text, length in limits.items() if length == limit), key=len)
        raise RunError(
            f"the longest prompt and rollouts.max_new_tokens need {n_tokens} positions, but the model at "
            f"{shown(policy.path)} has {limit}{reason}: lower rollouts.max_new_tokens or rollouts.prompt.shots"
        )


def _limits(config: PreTrainedConfig) -> dict[str, float]:
    """The limits on the length of a row, each under the remark that explains it."""
    longest = min(filter(None, (getattr(config, name, None) for name in LENGTHS)), default=math.inf)
    limits = {"": longest, " (its attention selects tokens in longer rows)": selected_tokens(config)}
    parameters = getattr(config, "rope_parameters", None) or {}
    for rope in (parameters, *parameters.values()):  # or one for each type of layer
        kind = rope.get("rope_type") if isinstance(rope, dict) else None
        if kind in ROPES_BY_LENGTH:
            remark = f" (its rotary embeddings, of type {kind}, change when a row is longer)"
            limits[remark] = rope.get("original_max_position_embeddings") or longest
    return limits
