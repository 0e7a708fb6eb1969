"""Whether a rank can decode as `rollouts.generate` says: compiler, GPU, instructions. Nothing is loaded for it."""

from __future__ import annotations

import os
import shutil

import torch

from ... import settings
from ...errors import RunError


def check_machine(config: settings.Engine, device: torch.device) -> None:
    """Refuse settings of our engines that this rank cannot carry out. Not collective.

    Raises:
        RunError: compile without a C++ compiler; graphs without a GPU; linears=bfloat16 on a CPU without instructions
            for it, where it would be slower than float32.
    """
    if config.engine == "vllm":
        return
    if config.compile and not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))):
        raise RunError("rollouts.generate.compile=true needs a C++ compiler on this node (CXX, g++ or clang++)")
    if config.graphs and device.type != "cuda":
        raise RunError("rollouts.generate.graphs=true needs a GPU, and this rank has none: set it to false")
    if config.linears == "bfloat16" and device.type == "cpu" and not has_bfloat16():
        raise RunError(
            "rollouts.generate.linears=bfloat16 needs a CPU with AMX or AVX512_BF16, and this CPU has neither: set it "
            "to float32"
        )


def has_bfloat16() -> bool:
    """Whether this CPU has instructions for products in bfloat16."""
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
