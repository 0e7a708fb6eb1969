"""The device `pretend`: it computes on the CPU, and refuses tensors of the CPU where CUDA does (pretend.cpp).

It shows that the package puts its tensors where they belong. It has neither CUDA's kernels and rounding, nor its
memory, graphs or NCCL, and it does not enter branches of `device.type == "cuda"`.
"""

from __future__ import annotations

import contextlib
import subprocess
import types
from pathlib import Path

import torch

SOURCE = Path(__file__).with_name("pretend.cpp")


class Stream:
    """Stands in for a CUDA stream. This device computes at once, so there is nothing to wait for."""

    def synchronize(self) -> None: ...

    def wait_stream(self, stream: Stream) -> None: ...


def build(folder: Path, compiler: str) -> Path:
    """Compile the device: about 10 CPU-seconds. Returns the library.

    Raises:
        subprocess.CalledProcessError: it does not compile.
    """
    home, library = Path(torch.__file__).parent, folder / "libpretend.so"
    headers = [f"-I{home / 'include'}", f"-I{home / 'include/torch/csrc/api/include'}"]
    linked = [f"-L{home / 'lib'}", "-ltorch", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{home / 'lib'}"]
    options = ["-std=c++20", "-O0", "-w", "-fPIC", "-shared"]
    subprocess.run([compiler, *options, *headers, str(SOURCE), "-o", str(library), *linked], check=True)
    return library


def load(library: Path) -> torch.device:
    """Register the device in this process. It cannot be removed again."""
    torch.utils.rename_privateuse1_backend("pretend")
    module = types.ModuleType("torch.pretend")
    vars(module).update(
        is_available=lambda: True, is_initialized=lambda: True, _lazy_init=lambda: None, _is_in_bad_fork=lambda: False,
        current_device=lambda: 0, device_count=lambda: 1, set_device=lambda *_: None, synchronize=lambda *_: None,
        device=lambda *_: contextlib.nullcontext(), get_amp_supported_dtype=lambda: [torch.bfloat16, torch.float16],
        manual_seed=lambda _: None, manual_seed_all=lambda _: None, get_rng_state=lambda *_: torch.get_rng_state(),
        set_rng_state=lambda *_: None, Stream=Stream, current_stream=lambda *_: Stream(),
        stream=lambda *_: contextlib.nullcontext(),
    )  # fmt: skip
    torch._register_device_module("pretend", module)
    # Else `.to` would untie tied weights.
    torch.__future__.set_swap_module_params_on_conversion(True)
    torch.ops.load_library(str(library))
    torch.utils.generate_methods_for_privateuse1_backend(for_storage=False, for_packed_sequence=False)
    torch.library.impl("aten::histc", "PrivateUse1")(_count)
    return torch.device("pretend", 0)


def _count(x: torch.Tensor, bins: int = 100, min: float = 0, max: float = 0) -> torch.Tensor:
    """A histogram, of integers too: the CPU has none, CUDA has."""
    return torch.histc(x.cpu().float(), bins, min, max).to(x.dtype).to(x.device)
