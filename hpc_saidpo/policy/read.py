"""Reading a model's folder: configuration, weights, tokenizer. Whatever is wrong with them becomes one message.

Code in a folder is never run: without `trust_remote_code=False` transformers would ask the terminal whether to run it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import GENERATION_CONFIG_NAME

from ..errors import RunError, input_errors, memory_errors, shown
from ..progress import say_once
from ..reading import parse_json, read_text
from .locate import TOKENIZER_FILES

FIRST = 3  # names that a message lists
MEMORY_REMEDY = "its weights take 4 bytes each on every rank: use fewer ranks on a node, or a smaller policy"


def read_config(path: str) -> PretrainedConfig:
    """Read the configuration of a model.

    Raises:
        RunError: there is none, it is damaged, or transformers does not know its model_type.
    """
    problem = f"policy.path={path}: no model could be loaded from there: config.json is not readable"
    with input_errors(problem, "name a model that transformers supports"):
        return AutoConfig.from_pretrained(path, trust_remote_code=False)


def read_class(path: str) -> type[PreTrainedModel]:
    """Return the class of the model in a folder.

    Raises:
        RunError: as `read_config`; or transformers has no causal language model of this configuration.
    """
    config = read_config(path)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise RunError(
            f"policy.path={shown(path)}: no model could be loaded from there: a {config.model_type} model is no causal "
            "language model of transformers: name a model that generates text"
        )
    return cast(type[PreTrainedModel], MODEL_FOR_CAUSAL_LM_MAPPING[type(config)])


def read_weights(path: str, **options: Any) -> PreTrainedModel:
    """Load a causal language model with float32 weights.

    Args:
        options: further arguments of transformers' `from_pretrained`.

    Raises:
        RunError: the folder holds no causal language model; a file is damaged; a weight is missing or has another shape
            than config.json says; or memory does not suffice.
    """
    problem = f"policy.path={path}: no model could be loaded from there"
    with (
        memory_errors(f"while the weights of policy.path={path} are loaded", MEMORY_REMEDY),
        input_errors(problem, "copy the whole folder of a causal language model again"),
    ):
        loaded = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            trust_remote_code=False,
            **options,
        )
    model, report = cast(tuple[PreTrainedModel, dict[str, Any]], loaded)
    # transformers would fill such weights with random numbers, and warn only.
    missing = sorted(report["missing_keys"])
    others = sorted(f"{name} {[*stored]} for {[*needed]}" for name, stored, needed in report["mismatched_keys"])
    if missing or others:
        reasons = [f"{len(missing)} of its weights are missing, {some(missing)}"] * bool(missing)
        reasons += [f"{len(others)} of its weights have another shape than config.json says, {some(others)}"] * bool(
            others
        )
        raise RunError(f"{problem}: {'; '.join(reasons)}: copy the whole folder again")
    _read_generation_config(path, model)
    return model


def skeleton(path: str) -> PreTrainedModel:
    """Return a model's layers without weights (on the device meta), from its configuration alone.

    Raises:
        RunError: as `read_config`; or there is no causal language model with this configuration.
    """
    config = read_config(path)
    problem = f"policy.path={path}: config.json describes no causal language model"
    with input_errors(problem, "name a model that generates text"), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    _read_generation_config(path, model)
    return model


def _read_generation_config(path: str, model: PreTrainedModel) -> None:
    """Read generation_config.json, if there is one, into the model.

    Raises:
        RunError: it is damaged. transformers would use a default instead, without a message.
    """
    if (Path(path) / GENERATION_CONFIG_NAME).exists():
        problem = f"policy.path={path}: {GENERATION_CONFIG_NAME} is not readable"
        with input_errors(problem, "copy it again, or remove it"):
            content = parse_json(read_text(Path(path) / GENERATION_CONFIG_NAME))
            model.generation_config = GenerationConfig.from_dict(content)


def read_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer. It always has a token to pad with.

    Raises:
        RunError: it is missing, damaged or empty, or has no end-of-sequence token.
    """
    problem = f"policy.path={path}: the model is there but its tokenizer does not load"
    remedy = "save both into the folder, tokenizer.save_pretrained(folder) writes it"
    # Some versions of transformers make a tokenizer without a vocabulary where there is none.
    if Path(path).is_dir() and not any((Path(path) / name).exists() for name in TOKENIZER_FILES):
        raise RunError(f"{problem} (there is none of {', '.join(TOKENIZER_FILES)}): {remedy}")
    with input_errors(problem, remedy):
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    if len(tokenizer) == 0 or tokenizer.eos_token_id is None:
        raise RunError(f"policy.path={shown(path)}: its tokenizer is empty or has no end-of-sequence token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def check_vocabulary(path: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that the model has an embedding of every token of its tokenizer.

    Added tokens without an embedding are accepted and reported once: some published models have such tokens, which
    occur in no prompt of text. If it is the padding token, the end-of-sequence token replaces it.

    Raises:
        RunError: an ordinary token, or a token that ends a response, has no embedding.
    """
    n = n_embeddings(model)
    added = tokenizer.added_tokens_decoder
    without = {name: id for name, id in tokenizer.get_vocab().items() if id >= n}
    ordinary = sorted(name for name, id in without.items() if id not in added)
    remedy = "the tokenizer belongs to another model: save both into the folder"
    if ordinary:
        raise RunError(
            f"policy.path={shown(path)}: the model has embeddings of {n} tokens, but {len(ordinary)} further tokens "
            f"of its tokenizer have none, {some(ordinary)}: {remedy}"
        )
    ends = [id for id in end_ids(model, tokenizer) if not (isinstance(id, int) and 0 <= id < n)]
    if ends:
        raise RunError(
            f"policy.path={shown(path)}: the end-of-sequence token {ends[0]!r} is none of the model's {n} tokens: "
            "correct eos_token_id in generation_config.json and config.json, or eos_token in tokenizer_config.json"
        )
    if without:
        say_once(f"the model has no embedding of {some(sorted(without))}: a prompt with such a token is refused")
    if cast(int, tokenizer.pad_token_id) >= n:
        tokenizer.pad_token = tokenizer.eos_token


def n_embeddings(model: PreTrainedModel) -> int:
    """Return the number of tokens that a model has embeddings of."""
    return cast(torch.Tensor, model.get_input_embeddings().weight).shape[0]


def end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return every token that ends a response."""
    ids = getattr(model.generation_config, "eos_token_id", None)
    ids = ids if isinstance(ids, list) else [ids]
    return {i for i in [*ids, tokenizer.eos_token_id] if i is not None}


def some(names: list[str]) -> str:
    """Return the first of some names, for a message."""
    return ", ".join(names[:FIRST]) + " ..." * (len(names) > FIRST)
