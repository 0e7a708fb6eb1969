"""Flash attention: a check that it can run here, and its kernel."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable

import torch
from transformers.utils.import_utils import is_flash_attn_2_available, is_flash_attn_3_available

# transformers' names, the better one first, and the module of each package.
MODULE_OF = {"flash_attention_3": "flash_attn_interface", "flash_attention_2": "flash_attn"}


def kernel(name: str) -> Callable:
    """The package's attention over cached keys and values, by transformers' name of the implementation.

    Raises:
        ImportError, OSError, RuntimeError, AttributeError: the package is missing, or was built for another torch.
    """
    return importlib.import_module(MODULE_OF[name]).flash_attn_with_kvcache


def obstacle(name: str, device: torch.device, precision: torch.dtype) -> str:
    """The reason why flash attention cannot run here; "" when it can.

    transformers must not check this itself: when the package is missing, it downloads kernels from the Hub. The package
    may be missing, may not load, or may be another package with the same module name (flash-attn-4).
    """
    if device.type != "cuda":
        return "there is no GPU"
    if precision not in (torch.float16, torch.bfloat16):
        return f"it does not compute in policy.precision={str(precision).removeprefix('torch.')}, but in bfloat16"
    major, minor = torch.cuda.get_device_capability(device)
    # Version 3 uses instructions of Hopper, which no other GPU has (its README: "H100 / H800 GPU").
    if major < 8 or (name == "flash_attention_3" and major != 9):
        needed = "9.0" if name == "flash_attention_3" else "8.0 or more"
        return f"this GPU has capability {major}.{minor}, it needs {needed}"
    return _absence(name)


def _absence(name: str) -> str:
    module = MODULE_OF[name]
    if importlib.util.find_spec(module) is None:
        return f"the package {module} is not installed"
    try:
        kernel(name)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        return f"the package {module} is installed but does not load ({error}): build it against this torch"
    is_accepted = is_flash_attn_2_available if name == "flash_attention_2" else is_flash_attn_3_available
    return "" if is_accepted() else f"transformers does not accept this {module} as {name}: install a current version"
