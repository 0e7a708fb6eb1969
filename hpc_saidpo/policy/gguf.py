"""Conversion of a GGUF file into a Hugging Face folder."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ..errors import RunError


def convert_gguf(gguf: str, folder: Path) -> None:
    """Save a GGUF file as a Hugging Face folder: float32 weights, tokenizer, chat template.

    Raises:
        RunError: transformers cannot read the file.
    """
    parent, name = str(Path(gguf).parent), Path(gguf).name
    try:
        # Its progress bar cannot be switched off, and would tear our log.
        with contextlib.redirect_stderr(io.StringIO()):
            model = AutoModelForCausalLM.from_pretrained(parent, gguf_file=name, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(parent, gguf_file=name)
    except (OSError, ValueError, ImportError) as error:
        raise RunError(f"policy.path={gguf}: not readable as GGUF ({error})") from error
    # The weights are plain float32 now, but transformers still marks the model as quantized and would not save it.
    # The stubs of nn.Module accept tensors and modules only, those of the configuration declare no attributes.
    model.hf_quantizer, model.is_quantized = None, False  # pyright: ignore[reportArgumentType]
    del model.config.quantization_config  # pyright: ignore[reportAttributeAccessIssue]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
