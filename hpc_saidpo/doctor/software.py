"""Do the installed libraries fit each other and the driver? Collective."""

from __future__ import annotations

import ctypes
import platform
import re
from importlib import metadata

import torch

from ..errors import RunError
from ..grader.available import check_verifiers
from ..parallel.world import World
from ..policy import attention, flash
from .finding import Finding, judge

PACKAGES = ("torch", "transformers", "sentence-transformers", "mpi4py", "h5py", "numpy")


def check(world: World, config) -> list[Finding]:
    """Versions on all nodes; driver, CUDA, cuML, CuPy; attention; what the pool's questions are graded by."""
    return [_versions(world), _cuda(world), _clustering(config), _attention(world, config), _verifier(world, config)]


def _verifier(world: World, config) -> Finding:
    verifier = getattr(config.pool, "verifier", "math")
    try:
        check_verifiers([verifier], world, config.rollouts.grader)
    except RunError as error:
        return judge("verifier", verifier, failure=str(error))
    return judge("verifier", verifier)


def _versions(world: World) -> Finding:
    mine = {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}}
    everyones = world.gather(mine)
    unlike = [name for name in mine if len({own[name] for own in everyones}) > 1]
    told = ", ".join(f"{name} {version}" for name, version in mine.items())
    remedy = f"ranks run different versions of {', '.join(unlike)}: give all nodes the same environment" * bool(unlike)
    return judge("software", told, failure=remedy)


def driver_cuda() -> int | None:
    """The newest CUDA that the driver supports, as 1000·major + 10·minor; None without a driver."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version = ctypes.c_int()
    return version.value if library.cuDriverGetVersion(ctypes.byref(version)) == 0 else None


def _cuda(world: World) -> Finding:
    driver, built = driver_cuda(), torch.version.cuda
    if driver is None:
        told = f"no driver; torch is built for {'CUDA ' + built if built else 'the CPU'}"
        return judge("driver and CUDA", told)
    told = f"driver for CUDA {driver // 1000}.{driver % 1000 // 10}; torch for {built or 'the CPU'}"
    if built is None:
        return judge("driver and CUDA", told, failure="torch has no CUDA: install PyPI's torch, not the CPU build")
    major = int(built.split(".")[0])
    failure = ""
    if driver // 1000 < major:
        failure = f"the driver is too old for CUDA {built}: install a torch built for CUDA {driver // 1000}"
    elif not torch.cuda.is_available():
        failure = "torch cannot use the GPU (see nvidia-smi): is one allocated to this job?"
    return judge("driver and CUDA", told, failure=failure)


def _clustering(config) -> Finding:
    found = {}
    for name in metadata.packages_distributions():
        if name in ("cuml", "cupy"):
            distribution = metadata.packages_distributions()[name][0]
            found[distribution] = metadata.version(distribution)
    told = ", ".join(f"{name} {version}" for name, version in found.items()) or "no cuML: scikit-learn on the CPU"
    built = (torch.version.cuda or "").split(".")[0]
    unlike = [n for n in found if (m := re.search(r"(?:cu|cuda)(\d+)", n)) and built and m[1] != built]
    failure = f"{', '.join(unlike)}: built for another CUDA than torch ({built}): install the cu{built} ones" * bool(
        unlike
    )
    if config.clusters.backend == "gpu" and not any("cuml" in name for name in found):
        failure = "clusters.backend=gpu, but cuML is not installed: pip install 'hpc_saidpo[gpu]', or backend=auto"
    return judge("cuML and CuPy", told, failure=failure)


def _attention(world: World, config) -> Finding:
    try:
        chosen = attention.attention_of(config.policy, world.device)
    except RunError as error:
        return judge("attention", config.policy.attention, failure=str(error))
    obstacle = flash.obstacle("flash_attention_2", world.device, attention.precision_of(config.policy, world.device))
    remedy = (
        f"no flash attention, {obstacle}: pip install flash-attn --no-build-isolation; sdpa serves until then"
        if world.device.type == "cuda" and chosen == "sdpa" and config.policy.attention == "auto"
        else ""
    )
    return judge("attention", chosen, warning=remedy)
