"""Every causal language model of transformers as a tiny one with random weights."""

from __future__ import annotations

import functools
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from hpc_saidpo import settings
from hpc_saidpo.policy.attention import attention_of

SCALE = 3.0  # of random weights: with the usual ones all tokens would be about equally probable
SHARPNESS = 2.0  # standard deviation of the logits
MOST_LAYERS = 4
BY_SIZE = {
    99: "vocab_size text_vocab_size vocab_size_per_layer_input n_words unpadded_vocab_size",
    64: """index_topk keep_window_size max_position_embeddings n_positions n_ctx max_seq_len seq_length
        intermediate_size ffn_dim ffn_hidden_size
        model_max_length dense_intermediate_size mamba_d_ssm hybrid_intermediate_size max_length dim_ff d_inner""",
    32: """hidden_size n_embd d_model dim embedding_size word_embed_proj_dim lru_width n_embed moe_intermediate_size
        shared_expert_intermediate_size shared_intermediate_size dense_ffn_size input_hidden_size
        moe_shared_expert_intermediate_size shared_experts_intermediate_size intermediate_size_mlp
        expert_ffn_hidden_size expert_ffn_size mlp_hidden_size dff moe_latent_size attention_hidden_size emb_dim
        embedding_dim prompt_length""",
    16: "q_lora_rank kv_lora_rank mamba_d_head mamba_head_dim o_lora_rank",
    8: """head_dim attention_head_dim qk_nope_head_dim v_head_dim linear_key_head_dim index_head_dim
        linear_value_head_dim linear_head_dim state_size mamba_d_state ssm_state_size kv_channels global_head_dim
        mamba_ngroups_size hidden_size_per_layer_input mamba_chunk_size chunk_size swa_head_dim swa_v_head_dim
        dim_head""",
    6: """sliding_window window_size attention_window_size attention_chunk_size local_attention sliding_window_size
        attention_window""",
    4: """num_attention_heads n_head n_heads num_experts num_local_experts n_routed_experts moe_num_experts
        mamba_n_heads mamba_num_heads linear_num_value_heads index_n_heads linear_num_heads mamba_d_conv conv_kernel
        num_heads qk_rope_head_dim rotary_dim time_step_rank mamba_dt_rank swa_num_attention_heads
        num_query_groups""",
    2: """num_hidden_layers n_layer n_layers num_layers num_key_value_heads n_head_kv num_kv_heads num_experts_per_tok
        moe_topk num_experts_per_token moe_top_k moe_k top_k_experts linear_num_key_heads num_global_key_value_heads
        n_kv_heads router_topk swa_num_key_value_heads num_blocks n_mamba_heads swa_num_kv_heads""",
    1: """n_group topk_group n_groups mamba_n_groups n_shared_experts num_shared_experts num_expert_group
        moe_num_shared_experts num_nextn_predict_layers""",
}
SIZE = {name: size for size, names in BY_SIZE.items() for name in names.split()}
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
LINEAR, FULL, SLIDING = "linear_attention", "full_attention", "sliding_attention"
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
# What cannot be derived from the default configuration.
MORE: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "cohere_compass_text": {"layer_types": [SLIDING, FULL], "rope_parameters": {SLIDING: ROPE, FULL: ROPE}},
    "dbrx": {"attn_config": {"rope_theta": 1e4, "kv_n_heads": 2, "clip_qkv": 8.0},
             "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2}},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dory": {"num_hidden_layers": 6, "layer_types": [SLIDING, "mlp", FULL, "mlp", SLIDING, "mlp"], "n_input_layers": 2,
             "n_recurrent_layers": 2, "n_output_layers": 2},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "dots3_note_text": {"num_hidden_layers": 2, "head_dim": 12, "layer_types": ["indexed_attention", SLIDING],
                        "mlp_layer_types": ["dense", "sparse"],
                        "per_layer_config": {"01": {"num_attention_heads": 2, "num_key_value_heads": 2}}},
    "falcon_h1": {"mamba_d_head": 16, "lm_head_multiplier": 0.3},
    "gemma3n_text": {"num_hidden_layers": 4, "layer_types": [SLIDING, FULL] * 2, "intermediate_size": [64] * 4,
                     "activation_sparsity_pattern": [0.0] * 4, "num_kv_shared_layers": 2},
    "granite": {"logits_scaling": 8.0},
    "granitemoe": {"logits_scaling": 6.0},
    "granitemoehybrid": {"layer_types": [LINEAR, FULL]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2": {"num_hidden_layers": 2, "layer_types": ["conv", FULL], "full_attn_idxs": [1]},
    "lfm2_moe": {"layer_types": ["conv", FULL], "num_dense_layers": 1},
    "mamba2": {"head_dim": 16},
    "nemotron": {"num_key_value_heads": 2},
    "qwen4_exp_text": {"indexer_budget": 64, "indexer_compress_ratio": 2, "indexer_n_heads": 4, "indexer_kv_heads": 1,
                       "indexer_head_dim": 8, "ngram_vocab_size_base": 97},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "zamba": {"num_hidden_layers": 4, "layers_block_type": [LINEAR, "hybrid"] * 2, "attention_hidden_size": 64,
              "attention_head_dim": 16},
    "zamba2": {"num_hidden_layers": 4, "layers_block_type": [LINEAR, "hybrid"] * 2, "attention_hidden_size": 64,
               "attention_head_dim": 16, "mamba_headdim": 16, "n_mamba_heads": 4, "hybrid_layer_ids": [1, 3]},
}  # fmt: skip
# Not to be shrunk, or not a language model on its own, with the reason.
LEFT_OUT = {
    "blt": "reads bytes, which a second model cuts into patches",
    "dots3_note": "has parts for images and sound of fixed sizes; its language model is dots3_note_text",
    "gemma3n": "needs the package timm",
    "gemma4_assistant": "reads the keys and values of another model",
    "gemma4_unified_assistant": "reads the keys and values of another model",
    "xlstm": "its backward pass in transformers fails at some lengths of rows",
}
SHARED, HF, ALIKE, REFUSED = "shared", "hf", "hf without padding", "refused"
# One model of each kind, with the ways in which it is decoded and trained.
KINDS: dict[str, tuple[str, str] | str] = {
    "llama": (SHARED, "shared"),
    "gpt2": (SHARED, "shared"),  # learned positions
    "opt": (SHARED, "shared"),  # a decoder inside the decoder
    "olmo": (SHARED, "shared"),  # norms without weights
    "stablelm": (SHARED, "shared"),
    "codegen": (SHARED, "shared"),
    "gpt_bigcode": (SHARED, "shared"),  # one head of keys
    "granite": (SHARED, "shared"),  # scaled logits
    "granitemoe": (SHARED, "shared"),
    "cohere": (SHARED, "shared"),
    "cohere2": (SHARED, "packed"),
    "mistral": (SHARED, "packed"),  # a sliding window
    "gemma2": (SHARED, "padded"),  # no sdpa; soft caps
    "gemma3": (SHARED, "packed"),  # a configuration inside the configuration
    "gemma3n_text": (SHARED, "packed"),  # layers that use the keys of others
    "gemma4_text": (SHARED, "packed"),  # heads of several sizes
    "modernbert-decoder": (SHARED, "packed"),  # layers between decoder and logits
    "moshi": (SHARED, "packed"),
    "mixtral": (SHARED, "shared"),  # experts
    "dbrx": (SHARED, "shared"),
    "phi3": (SHARED, "shared"),
    "deepseek_v2": (SHARED, "shared"),  # latent attention: heads of values are smaller
    "deepseek_v3": (SHARED, "shared"),
    "minicpm3": (SHARED, "shared"),
    "longcat_flash": (SHARED, "shared"),
    "diffllama": (SHARED, "shared"),  # attention twice in a layer
    "dory": (SHARED, "packed"),  # layers that run several times
    "llama4_text": (HF, "packed"),  # chunks of attention
    "gpt_oss": (HF, "padded"),  # attention sinks
    "bloom": (HF, "padded"),  # biases instead of positions
    "mpt": (HF, "padded"),
    "gpt_neo": (HF, "padded"),  # windows that the configuration does not name
    "falcon": (HF, "shared"),
    "mamba": (HF, "padded"),  # states instead of keys and values
    "mamba2": (HF, "padded"),
    "bamba": (HF, "padded"),  # both
    "falcon_h1": (HF, "padded"),
    "jamba": (HF, "padded"),
    "lfm2": (HF, "padded"),  # convolutions
    "lfm2_moe": (HF, "padded"),
    "nemotron_h": (HF, "padded"),
    "qwen3_next": (HF, "padded"),
    "zamba2": (HF, "padded"),
    "deepseek_v32": (HF, "padded"),  # attention to selected tokens
    "doge": (HF, "padded"),
    "git": (ALIKE, "shared"),
    "recurrent_gemma": (ALIKE, "single"),
    "rwkv": REFUSED,
    "xlnet": REFUSED,
    "mllama": REFUSED,  # saved as a part
}
TOKENS = {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}


def shrunk(config: PreTrainedConfig, **more: Any) -> PreTrainedConfig:
    """A tiny configuration of the same class, with a layer of each kind."""
    given = {n: v for n, v in vars(config).items() if n in SIZE and isinstance(v, int) and not isinstance(v, bool)}
    changed: dict[str, Any] = {name: min(SIZE[name], value) for name, value in given.items()}
    if "qk_rope_head_dim" in given:  # latent attention: sizes of heads of its own, and as many keys as queries
        changed |= {name: 4 for name in ("num_key_value_heads", "head_dim") if name in given}
    changed |= _layers(config)
    for name, value in vars(config).items():
        if isinstance(value, PreTrainedConfig):
            changed[name] = shrunk(value)
    if vars(config).get("head_dim", 0) is None:
        changed["head_dim"] = 8
    tokens = {name: value for name, value in TOKENS.items() if hasattr(config, name)}
    return type(config)(**{**changed, **tokens, **MORE.get(config.model_type, {}), **more})


def _layers(config: PreTrainedConfig) -> dict[str, Any]:
    """The number of layers and all that is listed by layer, so that each kind of layer occurs."""
    name = next((n for n in LAYERS if isinstance(vars(config).get(n), int)), None)
    if name is None:
        return {}
    total = vars(config)[name]
    lists = {n: list(v) for n, v in vars(config).items() if isinstance(v, list | tuple) and len(v) == total > 2}
    kinds: dict[tuple, int] = {}
    for i in range(total) if lists else ():
        kinds.setdefault(tuple(str(values[i]) for values in lists.values()), i)
    chosen = sorted(kinds.values())[:MOST_LAYERS]
    chosen = [*chosen, *chosen][:2] if len(chosen) == 1 else chosen
    return {name: len(chosen) or 2, **{n: [values[i] for i in chosen] for n, values in lists.items()}}


def model_of(config: PreTrainedConfig) -> PreTrainedModel:
    """A model with random weights, with the attention that policy.attention=auto would choose on a CPU."""
    torch.manual_seed(0)
    kind = AutoModelForCausalLM._model_mapping[type(config)]
    attention = attention_of(settings.Policy(path="x"), torch.device("cpu"), kind)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() >= 2 and "A_log" not in name and "conv" not in name:
                weight.mul_(SCALE)
            elif weight.is_floating_point() and "A_log" not in name:
                weight.add_(0.1 * torch.randn_like(weight))
        model.tie_weights()
        logits = model(input_ids=torch.arange(3, 11)[None]).logits
        model.get_output_embeddings().weight.mul_(SHARPNESS / logits.std())
    model.tie_weights()
    return model


def names() -> list[str]:
    """The model types of all causal language models that can be shrunk; encoders are none."""
    return [n for n in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if n not in LEFT_OUT and not is_encoder(n)]


@functools.cache
def is_encoder(name: str) -> bool:
    config = CONFIG_MAPPING[name]()
    is_decoder = getattr(config, "is_decoder", True) or name.startswith("gpt_neox")
    return bool(config.is_encoder_decoder or not is_decoder)
