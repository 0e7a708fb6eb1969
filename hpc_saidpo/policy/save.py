"""Saving of a model in the layout of Hugging Face, also when its weights are sharded over the ranks."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import nn
from transformers import GenerationConfig, PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion
from transformers.utils import GENERATION_CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME

from ..parallel import shards

FILE_BYTES = 5_000_000_000  # size of one file of weights


def is_stored_as_computed(model: PreTrainedModel) -> bool:
    """Check that weights have the same names in files as in memory. transformers merges the weights of experts."""
    weights = {name: torch.empty_like(w, device="meta") for name, w in model.state_dict().items()}
    return revert_weight_conversion(model, weights).keys() == weights.keys()


def save_whole(model: PreTrainedModel, folder: Path, file_bytes: int, precision: torch.dtype = torch.float32) -> None:
    """Like save_pretrained, for any generation_config: transformers reads some that it refuses to write.

    Args:
        file_bytes: maximum size of one file of weights.
        precision: of the saved parameters.
    """
    generation = model.generation_config
    model.generation_config = GenerationConfig()
    weights = None if precision == torch.float32 else _rounded(model.state_dict(keep_vars=True), precision)
    try:
        model.save_pretrained(folder, max_shard_size=file_bytes, state_dict=weights)
    finally:
        model.generation_config = generation
    if weights is None:
        _save_generation_config(generation, folder)
    else:
        _save_configs(model, folder, precision)


def _rounded(weights: Mapping[str, torch.Tensor], precision: torch.dtype) -> dict[str, torch.Tensor]:
    """Return weights whose parameters have another precision; tied ones are one tensor, as before."""
    copies = {id(w): w.detach().to("cpu", precision_in_file(w, precision)) for w in weights.values()}
    return {name: copies[id(w)] for name, w in weights.items()}


def precision_in_file(weight: torch.Tensor, precision: torch.dtype) -> torch.dtype:
    """Return the precision in which a weight is saved: the given one for parameters; buffers keep theirs."""
    return precision if isinstance(weight, nn.Parameter) and weight.is_floating_point() else weight.dtype


def _save_configs(model: PreTrainedModel, folder: Path, precision: torch.dtype) -> None:
    config = copy.deepcopy(model.config)
    config.dtype = precision
    config.save_pretrained(folder)
    _save_generation_config(model.generation_config, folder)


def _save_generation_config(generation: GenerationConfig, folder: Path) -> None:
    (folder / GENERATION_CONFIG_NAME).write_text(generation.to_json_string())


def save_by_file(
    model: PreTrainedModel,
    weights: Mapping[str, torch.Tensor],
    folder: Path,
    is_root: bool,
    file_bytes: int,
    precision: torch.dtype = torch.float32,
) -> None:
    """Like save_pretrained, for weights that may be sharded over the ranks. Root holds one file's weights. Collective.

    Args:
        weights: the model's state with its parameters themselves (`keep_vars`), stored as they are computed.
        precision: of the saved parameters.
    """
    names = {id(tensor): name for name, tensor in reversed(list(weights.items()))}  # tied weights: the first name
    dtypes = {name: precision_in_file(weights[name], precision) for name in names.values()}
    plan = split_torch_state_dict_into_shards(
        {name: torch.empty(weights[name].shape, dtype=dtype, device="meta") for name, dtype in dtypes.items()},
        max_shard_size=file_bytes,
    )
    if is_root:
        folder.mkdir(parents=True, exist_ok=True)
    for file, names_in_file in plan.filename_to_tensors.items():
        tensors = {}
        for name in names_in_file:
            tensor = shards.gather(weights[name].detach())
            if is_root:
                tensors[name] = tensor.to("cpu", dtypes[name]).contiguous()
        if is_root:
            save_file(tensors, folder / file, metadata={"format": "pt"})
        if any(map(shards.is_sharded, weights.values())):
            shards.barrier()  # a rank that is ahead would wait in the next gathering for as long as all files take
    if not is_root:
        return
    _save_configs(model, folder, precision)
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / SAFE_WEIGHTS_INDEX_NAME).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
