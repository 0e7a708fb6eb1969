"""GGUF files: converted once into a Hugging Face folder."""

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
    where, name = str(Path(gguf).parent), Path(gguf).name
    try:
        # Its own progress bar heeds no switch, and would tear our log.
        with contextlib.redirect_stderr(io.StringIO()):
            model = AutoModelForCausalLM.from_pretrained(where, gguf_file=name, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=name)
    except (OSError, ValueError, ImportError) as error:
        raise RunError(f"policy.path={gguf}: not readable as GGUF ({error})") from error
    # The weights are plain float32 now; transformers still marks the model as quantized and would refuse to save it.
    model.hf_quantizer, model.is_quantized = None, False
    del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
