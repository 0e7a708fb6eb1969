"""Estimate the GPU memory of a DPO step and of rollouts from a model's configuration alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from .. import settings
from ..dpo.adapters import linear_layers
from ..errors import shown
from ..parallel.world import World
from ..policy import locate
from ..rollouts.engine.memory import CPU_ROWS
from ..settings.whole import Settings
from .finding import Finding, judge

GIB = 2**30
MOMENTS = {"adamw": 8.0, "adamw_8bit": 2.03, "paged_adamw_8bit": 2.03}  # bytes per parameter; a scale for 256 numbers
GATHERED = 2  # layers that FSDP holds at once: one computes while the next one arrives


@dataclass(frozen=True)
class Model:
    """The sizes of a model on which memory depends.

    Attributes:
        n_parameters: of the whole model.
        layer_parameters: of one of its layers; the rest is embeddings, last norm and head.
        rank_parameters: of adapters of rank 1 at every linear layer.
        hidden, mlp, queries: numbers per token of the residual stream, inside the MLP, and of all heads' queries.
        kv_width: keys and values of one token in one layer.
    """

    n_parameters: int
    n_layers: int
    layer_parameters: int
    rank_parameters: int
    hidden: int
    mlp: int
    queries: int
    kv_width: int
    vocabulary: int

    @property
    def outer_parameters(self) -> int:
        return self.n_parameters - self.n_layers * self.layer_parameters


@dataclass(frozen=True)
class Lengths:
    """Tokens of a prompt, and of a response of full length (rollouts.max_new_tokens)."""

    prompt: int
    response: int

    @property
    def pair(self) -> int:
        """Tokens of a pair: its prompt, which both responses share, and two responses."""
        return self.prompt + 2 * self.response


def model_at(path: str) -> Model:
    """Read the sizes of the model at a path from its configuration; no weights are read.

    Raises:
        OSError, ValueError, KeyError: there is no configuration that transformers can read.
    """
    located = Path(locate.locate(path))
    if locate.is_gguf(str(located)):
        return model_of(AutoConfig.from_pretrained(located.parent, gguf_file=located.name, trust_remote_code=False))
    return model_of(AutoConfig.from_pretrained(located, trust_remote_code=False))


def model_on_root(config: Settings, world: World) -> Model | Finding:
    """The sizes of policy.path as the first rank reads them, or a finding that says why it cannot. Collective."""

    def read() -> Model | Finding:
        try:
            return model_at(config.policy.path)
        except (OSError, ValueError, KeyError) as error:
            return judge("memory", "not estimated", failure=f"policy.path={shown(config.policy.path)}: {error}")

    return world.on_root(read)


def model_of(config: PretrainedConfig) -> Model:
    """Compute the sizes of the model with a configuration of transformers."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    text, n = config.get_text_config(), sum(p.numel() for p in model.parameters())
    first = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList))[0]
    n_heads = _largest(text, "num_attention_heads")  # 0: states instead of attention
    n_kv_heads = _largest(text, "num_key_value_heads") or n_heads
    head_size = _largest(text, "head_dim") or text.hidden_size // max(1, n_heads)
    shapes = [layer.get_parameter("weight").shape for layer in linear_layers(model).values()]
    return Model(
        n_parameters=n,
        n_layers=text.num_hidden_layers,
        layer_parameters=sum(p.numel() for p in first.parameters()),
        rank_parameters=sum(map(sum, shapes)),
        hidden=text.hidden_size,
        mlp=_largest(text, "intermediate_size") or 4 * text.hidden_size,
        queries=n_heads * head_size,
        kv_width=2 * n_kv_heads * head_size,
        vocabulary=text.vocab_size,
    )


def _largest(config: PretrainedConfig, name: str) -> int:
    """A size in a configuration, the largest one if it differs between layers; 0 if there is none."""
    sizes: list[int] = []
    for layer in getattr(config, "per_layer_config", None) or [config]:
        size = getattr(layer, name, None) or 0
        sizes += size if isinstance(size, list | tuple) else [size]
    return max(sizes, default=0)


def training(
    model: Model, dpo: settings.Dpo, lengths: Lengths, exact: bool, n_ranks: int, n_bytes: int
) -> dict[str, float]:
    """Estimate the peak memory of a DPO step on one rank, in bytes, by part.

    Weights, gradients and moments are float32 (moments: see dpo.optimizer). With dpo.lora.rank only adapters have
    gradients and moments. With fsdp all three are divided by the number of ranks.

    Args:
        exact: gradients are summed in float64 (run.deterministic).
        n_ranks: number of ranks; one rank has nothing to communicate.
        n_bytes: bytes of a number in the precision of the computation.

    Returns:
        Bytes by part. communication: DDP's buckets; for FSDP the gathered embeddings, head and `GATHERED` layers, and
        their gradients before they are sharded. copies: weights in the precision of the computation. exact sums:
        gradients in float64. Responses have full length.
    """
    lora = dpo.lora.rank
    is_sharded = dpo.strategy == "fsdp" and n_ranks > 1
    adapters = model.rank_parameters * (lora or 0)
    trained, held = adapters or model.n_parameters, model.n_parameters + adapters
    share = 1 / n_ranks if is_sharded else 1.0
    outer, layers = model.outer_parameters, GATHERED * model.layer_parameters
    communication = copies = 0.0
    if is_sharded:
        gradients = n_bytes * outer + (n_bytes + 4) * layers  # computed at 16 bits, sharded in float32
        communication = n_bytes * (outer + layers) + gradients * trained / held
    elif n_bytes == 2:
        # torch keeps copies of trained weights until the forward pass ends; of the others, only those for autograd.
        copies = 2.0 * (outer + layers if lora and dpo.checkpointing else model.n_parameters)
    if dpo.strategy == "ddp" and n_ranks > 1:
        communication = 4.0 * trained
    tokens = micro_batch_tokens(dpo, lengths)
    answered = tokens * 2 * lengths.response // lengths.pair
    return {
        "weights": 4.0 * held * share,
        "gradients": 4.0 * trained * share,
        "optimizer": MOMENTS[dpo.optimizer] * trained * share,
        "exact sums": 8.0 * trained * exact,
        "communication": communication,
        "copies": copies,
        "activations": activations(model, tokens, n_bytes, dpo.checkpointing),
        "logits": 12.0 * min(dpo.head_tokens, answered) * model.vocabulary,
    }


def activations(model: Model, tokens: int, n_bytes: int, checkpointing: bool) -> float:
    """Estimate the bytes that autograd keeps of a forward pass, without the head and without attention matrices.

    Per token and layer, for the Llama and Qwen2 of transformers: the residual stream and the normalised one, float32,
    twice each; the inputs of the linear layers (at 16 bits, a copy for each layer); queries, keys and values, each as
    wide as the queries, and the output of attention; four numbers per unit of the MLP. With checkpointing: the residual
    stream of every layer, and all activations of one layer.
    """
    layer = tokens * ((16 + (8 if n_bytes == 4 else 10)) * model.hidden + 4 * n_bytes * (model.queries + model.mlp))
    return 4.0 * tokens * model.hidden * model.n_layers + layer if checkpointing else float(layer * model.n_layers)


def micro_batch_tokens(dpo: settings.Dpo, lengths: Lengths) -> int:
    """Tokens of a micro-batch of pairs whose responses have full length."""
    return max(lengths.pair, dpo.micro_tokens) if dpo.micro_tokens else dpo.micro_pairs * lengths.pair


def decoded_at_once(config: settings.Rollouts) -> int:
    """Responses of a chunk that are decoded together. On a GPU the engine decodes more when memory allows it."""
    return min(config.chunk_bounds("explore")[0] * config.k, config.generate.rows or CPU_ROWS)


def rollouts(model: Model, config: settings.Rollouts, n_prompt: int, n_bytes: int) -> dict[str, float]:
    """Estimate the memory of decoding on one rank, in bytes, by part. Responses have full length.

    Args:
        n_prompt: tokens of a prompt.
        n_bytes: bytes of a number in the precision of the computation.
    """
    tokens = decoded_at_once(config) * (n_prompt + config.max_new_tokens)
    return {
        "weights": 4.0 * model.n_parameters,
        "copies": 2.0 * model.n_parameters * (n_bytes == 2),
        "keys and values": float(tokens * model.n_layers * model.kv_width * n_bytes),
    }
