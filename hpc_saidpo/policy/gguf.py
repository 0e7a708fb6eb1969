"""Conversion of a GGUF file into a Hugging Face folder."""

from __future__ import annotations

import contextlib
import copy
import io
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from ..errors import RunError, input_errors, memory_errors
from .read import MEMORY_REMEDY

# Rotary embeddings of Llama 3.1 to 3.3; a GGUF file has only their effect, one divisor per frequency.
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
LLAMA3_FACTORS = (8.0, 32.0)


def convert_gguf(gguf: str, folder: Path) -> None:
    """Save a GGUF file as a Hugging Face folder: float32 weights, tokenizer, chat template.

    transformers leaves out how a file scales its rotary embeddings. Linear scaling and Llama 3's are added here.

    Raises:
        RunError: transformers cannot read the file, memory does not suffice, or the file scales rotary embeddings in
            another way.
    """
    parent, name = str(Path(gguf).parent), Path(gguf).name
    problem, remedy = (
        f"policy.path={gguf}: not readable as GGUF",
        "copy it again, or use the model's Hugging Face folder",
    )
    # Its progress bar cannot be switched off, and would tear our log.
    with (
        contextlib.redirect_stderr(io.StringIO()),
        memory_errors(f"while policy.path={gguf} is converted", MEMORY_REMEDY),
        input_errors(problem, remedy),
    ):
        model = AutoModelForCausalLM.from_pretrained(
            parent, gguf_file=name, dtype=torch.float32, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(parent, gguf_file=name, trust_remote_code=False)
    scaling = rope_scaling(gguf, model.config)
    if scaling:
        model.config.rope_parameters = {**model.config.rope_parameters, **scaling}
    # The weights are plain float32 now, but transformers still marks the model as quantized and would not save it.
    # The stubs of nn.Module accept tensors and modules only, those of the configuration declare no attributes.
    model.hf_quantizer, model.is_quantized = None, False  # pyright: ignore[reportArgumentType]
    del model.config.quantization_config  # pyright: ignore[reportAttributeAccessIssue]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def rope_scaling(gguf: str, config: PreTrainedConfig) -> dict[str, Any]:
    """The scaling of rotary embeddings in a GGUF file, as transformers' rope parameters; {} for none.

    Args:
        config: of the converted model.

    Raises:
        RunError: the file has a scaling that this function cannot express.
    """
    from gguf import GGUFReader  # an extra; `convert_gguf` has loaded the file with it

    reader = GGUFReader(gguf)
    fields = {name.partition(".")[2]: field.contents() for name, field in reader.fields.items() if ".rope." in name}
    kind = fields.get("rope.scaling.type", "none")
    factor = fields.get("rope.scaling.factor", fields.get("rope.scale_linear", 1.0))
    by_dimension = {t.name: torch.from_numpy(t.data.copy()) for t in reader.tensors if t.name.startswith("rope_f")}
    if by_dimension.keys() == {"rope_freqs.weight"} and kind == "none":
        scaling = _llama3(by_dimension["rope_freqs.weight"], config)
        if scaling:
            return scaling
    elif not by_dimension and kind in ("none", "linear"):
        return {"rope_type": "linear", "factor": float(factor)} if factor != 1 else {}
    if (getattr(config, "rope_parameters", None) or {}).get("rope_type") == kind:
        return {}  # transformers has read it
    found = ", ".join([f"type {kind}", f"factor {factor}", *(f"tensor {name}" for name in by_dimension)])
    raise RunError(
        f"policy.path={gguf}: its rotary embeddings are scaled ({found}) in a way that cannot be converted: use the "
        "model's Hugging Face folder"
    )


def _llama3(divisor_F: torch.Tensor, config: PreTrainedConfig) -> dict[str, Any]:
    """The rope parameters of Llama 3 that divide the frequencies by these numbers; {} when none do."""
    plain = copy.deepcopy(config)
    plain.rope_parameters = {**config.rope_parameters, "rope_type": "llama3", **LLAMA3}
    for factor in LLAMA3_FACTORS:
        plain.rope_parameters["factor"] = factor
        scaled_F, _ = ROPE_INIT_FUNCTIONS["llama3"](plain, torch.device("cpu"))
        size = 2 * len(scaled_F)
        exact_F = plain.rope_parameters["rope_theta"] ** -(torch.arange(0, size, 2) / size)
        if len(divisor_F) == len(scaled_F) and torch.allclose(exact_F / scaled_F, divisor_F, rtol=1e-4):
            return {"rope_type": "llama3", "factor": factor, **LLAMA3}
    return {}
