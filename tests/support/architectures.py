"""Configurations of tiny models of several architectures, for random weights."""

from transformers import (
    BloomConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

SMALL = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "bos_token_id": None,
         "eos_token_id": 1, "pad_token_id": 0, "max_position_embeddings": 64}  # fmt: skip
ARCHITECTURES = {
    "llama-gqa": LlamaConfig(**SMALL, num_key_value_heads=2, intermediate_size=64),
    "qwen2": Qwen2Config(**SMALL, num_key_value_heads=1, intermediate_size=64, tie_word_embeddings=True),
    "mistral-sliding": MistralConfig(**SMALL, num_key_value_heads=2, intermediate_size=64, sliding_window=6),
    "gemma": GemmaConfig(**SMALL, num_key_value_heads=1, intermediate_size=64, head_dim=8),
    "qwen3": Qwen3Config(**SMALL, num_key_value_heads=2, intermediate_size=64, head_dim=8, tie_word_embeddings=False),
    "gemma3-sliding": Gemma3TextConfig(
        **SMALL,
        num_key_value_heads=1,
        intermediate_size=64,
        head_dim=8,
        sliding_window=6,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "gpt2": GPT2Config(
        vocab_size=99, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=None, eos_token_id=1, pad_token_id=0
    ),
}
# For which transformers has no sdpa: capped scores.
EAGER_ONLY = {
    "gemma2-sliding": Gemma2Config(
        **SMALL,
        num_key_value_heads=2,
        intermediate_size=64,
        head_dim=8,
        sliding_window=6,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=3.0,
    ),
}
# With more to their attention than keys and values: relative biases, sinks.
UNUSUAL = {
    "bloom": BloomConfig(
        vocab_size=99, hidden_size=32, n_layer=2, n_head=4, bos_token_id=None, eos_token_id=1, pad_token_id=0
    ),
    "gpt-oss": GptOssConfig(
        **SMALL, num_key_value_heads=2, intermediate_size=32, head_dim=8, num_local_experts=2, num_experts_per_tok=1
    ),
}
