"""Random models for the checks of a device, and the arithmetic of their forward passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3MoeConfig,
)

from ... import settings
from ...policy import locate
from ...policy.attention import attention_of, precision_of
from ...policy.model import Policy
from ...policy.read import read_tokenizer

MICRO = "pkg://hpc_saidpo/data/micro_llama"
SHARPNESS = 2.0  # factor of random weights: with those of an initialisation attention would hardly matter
POSITIONS = 4096


@dataclass(frozen=True)
class Shape:
    """The shape of a model.

    Attributes:
        hidden, mlp: width of a token's state, and inside the feed-forward part.
        heads, kv_heads: of queries; of keys and values.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    mlp: int
    vocabulary: int

    @property
    def layer_parameters(self) -> int:
        """The weights of the matrices of all layers."""
        kv_width = self.kv_heads * self.hidden // self.heads
        return self.layers * self.hidden * (2 * self.hidden + 2 * kv_width + 3 * self.mlp)

    @property
    def head_parameters(self) -> int:
        """The weights of the LM head."""
        return self.vocabulary * self.hidden

    def forward_flops(self, n_tokens: float, n_logits: float, n_seen: float) -> float:
        """The floating-point operations of a forward pass.

        Args:
            n_tokens: tokens that pass the layers.
            n_logits: places whose logits are computed.
            n_seen: pairs of a token and one that it attends to.
        """
        by_weights = 2 * (self.layer_parameters * n_tokens + self.head_parameters * n_logits)
        return by_weights + 4 * self.layers * self.hidden * n_seen

    def arguments(self) -> dict[str, Any]:
        """The arguments of a configuration of transformers. No token is special."""
        return {
            "hidden_size": self.hidden, "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads, "intermediate_size": self.mlp, "vocab_size": self.vocabulary,
            "max_position_embeddings": POSITIONS, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
        }  # fmt: skip


# Of Qwen2.5-1.5B (its config.json).
QWEN_1_5B = Shape(hidden=1536, layers=28, heads=12, kv_heads=2, mlp=8960, vocabulary=151_936)


def llama_config(shape: Shape) -> LlamaConfig:
    """A Llama with grouped queries."""
    return LlamaConfig(**shape.arguments())


def experts_config(shape: Shape) -> Qwen3MoeConfig:
    """A mixture of experts: two of four for each token."""
    experts: dict[str, Any] = {
        "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": shape.mlp // 2,
        "head_dim": shape.hidden // shape.heads,
    }  # fmt: skip
    return Qwen3MoeConfig(**shape.arguments(), **experts)


def small_model(config: PreTrainedConfig, device: torch.device) -> PreTrainedModel:
    """A model with the same random float32 weights on every device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(
            config, attn_implementation="sdpa", dtype=torch.float32, trust_remote_code=False
        ).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(SHARPNESS)
    return moved(model, device)


def moved(model: PreTrainedModel, place: torch.device | torch.dtype) -> PreTrainedModel:
    """The model on another device, or in another precision; it is changed in place."""
    return model.to(place)  # pyright: ignore[reportArgumentType] - transformers wraps it without `self`


def policy_of(model: PreTrainedModel, device: torch.device, precision: torch.dtype = torch.float32) -> Policy:
    """A policy with the tokenizer of the shipped micro model, whose responses never end by themselves."""
    model.config.use_cache = True
    tokenizer = read_tokenizer(locate.locate(MICRO))
    return Policy(model, tokenizer, device, precision, "a random model", ends=frozenset())


def large_policy(shape: Shape, device: torch.device) -> Policy:
    """A policy in the shape of Qwen2.5, with random weights made on the device, and the settings of a run."""
    config = settings.Policy(path="random", precision="auto", attention="auto")
    attention = attention_of(config, device, Qwen2ForCausalLM)
    model_config = Qwen2Config(**shape.arguments(), tie_word_embeddings=True)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(
            model_config, attn_implementation=attention, dtype=torch.float32, trust_remote_code=False
        )
    return policy_of(model.eval(), device, precision_of(config, device))


def random_ids(shape: Shape, n: int, length: int, seed: int) -> list[list[int]]:
    """n lists of random token ids."""
    return np.random.default_rng(seed).integers(10, shape.vocabulary, (n, length)).tolist()
