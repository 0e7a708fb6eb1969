"""What a run takes of a GPU's memory, before it does: arithmetic from the model's configuration alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from ..dpo.adapters import linear_layers
from ..policy import locate
from ..rollouts.engine.engine import CPU_ROWS

GIB = 2**30
MOMENTS = {"adamw": 8.0, "adamw_8bit": 2.03, "paged_adamw_8bit": 2.03}  # bytes per parameter; a scale for 256 numbers
GATHERED = 2  # layers at once, of FSDP: one computes while the next comes


@dataclass(frozen=True)
class Model:
    """What the arithmetic needs to know of a model.

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


def model_at(path: str) -> Model:
    """The model at a path, by its configuration alone: no weights are read."""
    found = Path(locate.locate(path))
    if locate.is_gguf(str(found)):
        return model_of(AutoConfig.from_pretrained(found.parent, gguf_file=found.name))
    return model_of(AutoConfig.from_pretrained(found))


def model_of(config: PretrainedConfig) -> Model:
    """The model with a configuration."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    text, n = config.get_text_config(), sum(p.numel() for p in model.parameters())
    first = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList))[0]
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return Model(
        n_parameters=n,
        n_layers=text.num_hidden_layers,
        layer_parameters=sum(p.numel() for p in first.parameters()),
        rank_parameters=sum(sum(layer.weight.shape) for layer in linear_layers(model).values()),
        hidden=text.hidden_size,
        mlp=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        queries=text.num_attention_heads * head_size,
        kv_width=2 * heads * head_size,
        vocabulary=text.vocab_size,
    )


def training(model: Model, config, n_prompt: int, size: int, n_bytes: int) -> dict[str, float]:
    """Bytes of a DPO step on one rank, at its peak, by part.

    Weights, gradients and moments are float32 (but dpo.optimizer), of adapters only with dpo.lora.rank, and divided by
    the ranks with fsdp. Communication: DDP's buckets; of FSDP embeddings, head and `GATHERED` layers as they are
    gathered, and their gradients before they are shared out. Copies: weights in the precision of the computation. Exact
    sums: gradients in float64 (run.deterministic).

    Args:
        config: of the whole run.
        n_prompt: tokens of a prompt; responses are as long as they may be.
        size: number of ranks; one rank has nothing to communicate.
        n_bytes: of a number in the precision of the computation.
    """
    strategy, lora = config.dpo.strategy, config.dpo.lora.rank
    is_cut = strategy == "fsdp" and size > 1
    adapters = model.rank_parameters * (lora or 0)
    trained, held = adapters or model.n_parameters, model.n_parameters + adapters
    share = 1 / size if is_cut else 1.0
    outer, layers = model.outer_parameters, GATHERED * model.layer_parameters
    communication = copies = 0.0
    if is_cut:
        gradients = n_bytes * outer + (n_bytes + 4) * layers  # computed at 16 bits, shared out in float32
        communication = n_bytes * (outer + layers) + gradients * trained / held
    elif n_bytes == 2:
        # torch keeps a copy of what is trained until the forward pass ends; of the rest, what autograd needs.
        copies = 2.0 * (outer + layers if lora and config.dpo.checkpointing else model.n_parameters)
    if strategy == "ddp" and size > 1:
        communication = 4.0 * trained
    tokens = micro_batch_tokens(config, n_prompt)
    answered = tokens * 2 * config.rollouts.max_new_tokens // pair_tokens(config, n_prompt)
    return {
        "weights": 4.0 * held * share,
        "gradients": 4.0 * trained * share,
        "optimizer": MOMENTS[config.dpo.optimizer] * trained * share,
        "exact sums": 8.0 * trained * config.run.deterministic,
        "communication": communication,
        "copies": copies,
        "activations": activations(model, tokens, n_bytes, config.dpo.checkpointing),
        "logits": 12.0 * min(config.dpo.head_tokens, answered) * model.vocabulary,
    }


def activations(model: Model, tokens: int, n_bytes: int, checkpointing: bool) -> float:
    """Bytes that autograd keeps of a forward pass, the head aside; attention matrices are not among them.

    Per token and layer, of what transformers' Llama and Qwen2 keep: the residual stream and the normalised one,
    float32, twice each; the inputs of the linear layers (at 16 bits, each layer's own copy); queries, keys and values
    as wide as these, and attention's output; four numbers per unit of the MLP. With checkpointing the residual stream
    alone, and one layer's whole.
    """
    layer = tokens * ((16 + (8 if n_bytes == 4 else 10)) * model.hidden + 4 * n_bytes * (model.queries + model.mlp))
    return 4.0 * tokens * model.hidden * model.n_layers + layer if checkpointing else float(layer * model.n_layers)


def pair_tokens(config, n_prompt: int) -> int:
    """Places that a pair takes up: its prompt stands in front of both responses."""
    return n_prompt + 2 * config.rollouts.max_new_tokens


def micro_batch_tokens(config, n_prompt: int) -> int:
    """Places of a micro-batch whose responses are as long as they may be."""
    pair = pair_tokens(config, n_prompt)
    return max(pair, config.dpo.micro_tokens) if config.dpo.micro_tokens else config.dpo.micro_pairs * pair


def decoded_at_once(config) -> int:
    """Responses of a chunk that are decoded together; on a GPU the engine takes more where there is room for them."""
    return min(config.rollouts.chunk_questions * config.rollouts.k, config.rollouts.generate.rows or CPU_ROWS)


def rollouts(model: Model, config, n_prompt: int, n_bytes: int) -> dict[str, float]:
    """Bytes of decoding on one rank, by part: the whole policy, its copy, keys and values of all rows, full length."""
    tokens = decoded_at_once(config) * (n_prompt + config.rollouts.max_new_tokens)
    return {
        "weights": 4.0 * model.n_parameters,
        "copies": 2.0 * model.n_parameters * (n_bytes == 2),
        "keys and values": float(tokens * model.n_layers * model.kv_width * n_bytes),
    }
