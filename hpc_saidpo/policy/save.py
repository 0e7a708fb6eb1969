"""Saving of a model in the layout of Hugging Face, also when its weights are sharded over the ranks."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from transformers import GenerationConfig, PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion
from transformers.utils import GENERATION_CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME

from ..parallel import shards

FILE_BYTES = 5_000_000_000  # size of one file of weights


def is_stored_as_computed(model: PreTrainedModel) -> bool:
    """Check that weights have the same names in files as in memory. transformers merges the weights of experts."""
    weights = {name: torch.empty_like(w, device="meta") for name, w in model.state_dict().items()}
    return revert_weight_conversion(model, weights).keys() == weights.keys()


def save_whole(model: PreTrainedModel, folder: Path, file_bytes: int) -> None:
    """Like save_pretrained, for any generation_config: transformers reads some that it refuses to write.

    Args:
        file_bytes: maximum size of one file of weights.
    """
    generation = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        model.save_pretrained(folder, max_shard_size=file_bytes)
    finally:
        model.generation_config = generation
    _save_generation_config(generation, folder)


def _save_generation_config(generation: GenerationConfig, folder: Path) -> None:
    (folder / GENERATION_CONFIG_NAME).write_text(generation.to_json_string())


def save_sharded(
    model: PreTrainedModel, weights: dict[str, torch.Tensor], folder: Path, is_root: bool, file_bytes: int
) -> None:
    """Like save_pretrained, for weights sharded over the ranks. Root holds one file's weights at a time. Collective."""
    names = {id(tensor): name for name, tensor in reversed(list(weights.items()))}  # tied weights: the first name
    plan = split_torch_state_dict_into_shards(
        {name: torch.empty(weights[name].shape, dtype=weights[name].dtype, device="meta") for name in names.values()},
        max_shard_size=file_bytes,
    )
    for file, names_in_file in plan.filename_to_tensors.items():
        tensors = {}
        for name in names_in_file:
            tensor = shards.gather(weights[name].detach())
            if is_root:
                tensors[name] = tensor.to("cpu").contiguous()
        if is_root:
            save_file(tensors, folder / file, metadata={"format": "pt"})
    if not is_root:
        return
    model.config.save_pretrained(folder)
    _save_generation_config(model.generation_config, folder)
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / SAFE_WEIGHTS_INDEX_NAME).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
