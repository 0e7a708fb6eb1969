"""Small tokenizers of the two common kinds, and a policy of random weights for them.

Both have two end tokens, a special token that is no end, and tokens of several letters, in which a stop string can end.
"""

from __future__ import annotations

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from hpc_saidpo.policy.model import Policy

SPECIAL = ["<pad>", "<eos>", "<end_of_turn>", "</think>"]
MERGES = [("a", "b"), ("ab", "c"), ("b", "c"), ("1", "2"), ("\n", "\n")]
LETTERS = "abcdefgh 0123456789+=?\n"


def byte_level() -> PreTrainedTokenizerFast:
    """Like GPT-2's: every byte is a token, so a character of several bytes is several tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [pair for pair in MERGES if pair != ("\n", "\n")] + [("Ċ", "Ċ"), ("Ġ", "Ċ")]
    pieces = [*alphabet, *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _finished(tokenizer)


def sentence_piece() -> PreTrainedTokenizerFast:
    """Like Llama 2's: a blank before every text, "▁" for blanks, and bytes for unknown characters."""
    letters = [letter.replace(" ", "▁") for letter in LETTERS]
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters, *("".join(pair) for pair in MERGES)]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, MERGES, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _finished(tokenizer)


KINDS = {"byte-level": byte_level, "sentence-piece": sentence_piece}


def policy_of(tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> Policy:
    """A tiny Llama of random weights. Its responses end with <eos> or <end_of_turn>."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, bos_token_id=None, tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    special = tokenizer.convert_tokens_to_ids(SPECIAL[1:])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6.0) if parameter.dim() > 1 else None
        model.lm_head.weight.mul_(2.0)
        model.lm_head.weight[special] += 0.5  # so that special tokens are drawn now and then
    model.generation_config.eos_token_id = special[:2]
    return Policy(model, tokenizer, torch.device("cpu"), torch.float32, "tiny")


def _finished(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>")
