"""Configurations of tiny models of several architectures, for random weights."""

from transformers import GemmaConfig, GPT2Config, LlamaConfig, MistralConfig, Qwen2Config

SMALL = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "bos_token_id": None,
         "eos_token_id": 1, "pad_token_id": 0, "max_position_embeddings": 64}  # fmt: skip
ARCHITECTURES = {
    "llama-gqa": LlamaConfig(**SMALL, num_key_value_heads=2, intermediate_size=64),
    "qwen2": Qwen2Config(**SMALL, num_key_value_heads=1, intermediate_size=64, tie_word_embeddings=True),
    "mistral-sliding": MistralConfig(**SMALL, num_key_value_heads=2, intermediate_size=64, sliding_window=6),
    "gemma": GemmaConfig(**SMALL, num_key_value_heads=1, intermediate_size=64, head_dim=8),
    "gpt2": GPT2Config(
        vocab_size=99, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=None, eos_token_id=1, pad_token_id=0
    ),
}
