"""The device that is checked, the sizes of the checks, and measurements on it."""

from __future__ import annotations

import functools
import gc
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ...policy.model import Policy
from . import models
from .models import Shape

_SYNCHRONISING = "called a synchronizing CUDA operation"  # torch's warning, c10/cuda/CUDAFunctions.cpp


@dataclass(frozen=True)
class Sizes:
    """The sizes of the checks.

    Attributes:
        small, large: models of the checks against float32 and of the speed.
        head_sizes, attended: heads and tokens of the attention kernels.
        square: rows and columns of the matrices whose product measures the peak.
        copied: bytes of the copy that measures the bandwidth.
        prompts, k, prompt_tokens, common, new_tokens: of the rollouts; `common`: tokens of a common start.
        pairs, pair_tokens: pairs of a DPO step, and tokens of prompt and one response together.
    """

    small: Shape
    large: Shape
    head_sizes: tuple[int, ...]
    attended: int
    square: int
    copied: int
    prompts: int
    k: int
    prompt_tokens: int
    common: int
    new_tokens: int
    pairs: int
    pair_tokens: int


GPU_SIZES = Sizes(
    small=Shape(hidden=512, layers=4, heads=8, kv_heads=2, mlp=1024, vocabulary=32_000),
    large=models.QWEN_1_5B, head_sizes=(64, 128), attended=1000, square=8192, copied=4 << 30, prompts=32, k=8,
    prompt_tokens=128, common=96, new_tokens=128, pairs=8, pair_tokens=512,
)  # fmt: skip
CPU_SIZES = Sizes(
    small=Shape(hidden=64, layers=2, heads=4, kv_heads=2, mlp=96, vocabulary=512),
    large=Shape(hidden=64, layers=2, heads=4, kv_heads=2, mlp=128, vocabulary=600), head_sizes=(16,), attended=40,
    square=256, copied=1 << 24, prompts=3, k=2, prompt_tokens=12, common=8, new_tokens=6, pairs=4, pair_tokens=24,
)  # fmt: skip


@dataclass(frozen=True)
class Kernels:
    """The kernels of a piece of work on a GPU: their number, their time in seconds, the longest ones as text."""

    n: int
    seconds: float
    longest: str


class Bench:
    """A device and the sizes of its checks.

    Attributes:
        peak_flops, bytes_per_s: measured by the check `peak`; None before it.
    """

    def __init__(self, device: torch.device, sizes: Sizes):
        self.device, self.sizes = device, sizes
        self.peak_flops: float | None = None
        self.bytes_per_s: float | None = None

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @functools.cached_property
    def large(self) -> Policy:
        """The random policy whose speed is measured. It stays in memory until `forget`."""
        return models.large_policy(self.sizes.large, self.device)

    def forget(self) -> None:
        """Free the large policy."""
        self.__dict__.pop("large", None)
        self.release()

    def release(self) -> None:
        """Free the memory of deleted tensors."""
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()

    def synchronise(self) -> None:
        """Wait for the device."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], object], repeats: int = 1) -> float:
        """The seconds of one call: the mean of `repeats` calls in a row."""
        self.synchronise()
        started = time.perf_counter()
        for _ in range(repeats):
            work()
        self.synchronise()
        return (time.perf_counter() - started) / repeats

    def peak_gib(self, work: Callable[[], object]) -> float | None:
        """The peak of allocated memory during a call, GiB; None without a GPU."""
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
        work()
        return torch.cuda.max_memory_allocated(self.device) / 2**30 if self.on_gpu else None

    def host_waits(self, work: Callable[[], object]) -> Counter[str] | None:
        """How often the host waits for the GPU during a call, by the line of the source; None without a GPU.

        It counts the operations that torch knows to wait.
        """
        if not self.on_gpu:
            return None
        self.synchronise()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                work()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return Counter(f"{Path(w.filename).name}:{w.lineno}" for w in caught if _SYNCHRONISING in str(w.message))

    def kernels(self, work: Callable[[], object]) -> Kernels | None:
        """The kernels of a call; None without a GPU, or where the profiler sees none."""
        if not self.on_gpu:
            return None
        from torch.autograd import DeviceType  # pyright: ignore[reportPrivateImportUsage] - public, but without __all__
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            work()
            self.synchronise()
        events = [e for e in profiler.key_averages() if e.device_type == DeviceType.CUDA]
        events.sort(key=lambda e: -e.self_device_time_total)
        total_us = sum(e.self_device_time_total for e in events)
        if not total_us:
            return None
        longest = "; ".join(f"{e.key[:70]} {e.self_device_time_total / total_us:.1%} ×{e.count}" for e in events[:12])
        return Kernels(sum(e.count for e in events), total_us / 1e6, longest)
