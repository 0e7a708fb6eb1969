"""Preflight checks of the installed libraries: versions, CUDA and driver, attention, verifier. Collective."""

from __future__ import annotations

import platform
import re
from importlib import metadata

import torch

from ..errors import RunError
from ..grader.available import check_verifiers
from ..parallel import devices
from ..parallel.world import World
from ..policy import attention, flash
from ..rollouts.engine.machine import check_machine
from ..settings.whole import Settings
from .finding import Finding, judge

PACKAGES = ("torch", "transformers", "sentence-transformers", "mpi4py", "h5py", "numpy")


def check(world: World, config: Settings) -> list[Finding]:
    """Check versions on all nodes; driver, CUDA, cuML, CuPy; attention; the engine; the verifier of the pool."""
    of_config = (_attention, _engine, _verifier)
    return [_versions(world), _cuda(), _clustering(config), *(check_one(world, config) for check_one in of_config)]


def _engine(world: World, config: Settings) -> Finding:
    """Check that every rank can decode as rollouts.generate says."""
    engine = config.rollouts.generate
    try:
        world.everywhere(lambda: check_machine(engine, world.device))
    except RunError as error:
        return judge("engine", engine.engine, failure=str(error))
    return judge("engine", engine.engine)


def _verifier(world: World, config: Settings) -> Finding:
    """Check that the pool's verifier can grade on every rank."""
    verifier = getattr(config.pool, "verifier", "math")
    try:
        check_verifiers([verifier], world, config.rollouts.grader)
    except RunError as error:
        return judge("verifier", verifier, failure=str(error))
    return judge("verifier", verifier)


def _versions(world: World) -> Finding:
    """Check that all ranks run the same versions."""
    mine = {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}}
    everyones = world.gather(mine)
    different = [name for name in mine if len({of_rank[name] for of_rank in everyones}) > 1]
    text = ", ".join(f"{name} {version}" for name, version in mine.items())
    remedy = f"ranks run different versions of {', '.join(different)}: use the same environment on all nodes"
    return judge("software", text, failure=remedy * bool(different))


def _cuda() -> Finding:
    """Check that torch's CUDA fits the driver, and that torch can use the GPU."""
    driver, built = devices.driver_cuda(), torch.version.cuda
    if driver is None:
        text = f"no driver; torch is built for {'CUDA ' + built if built else 'the CPU'}"
        return judge("driver and CUDA", text)
    text = f"driver for CUDA {driver // 1000}.{driver % 1000 // 10}; torch for {built or 'the CPU'}"
    if built is None:
        return judge("driver and CUDA", text, failure="torch has no CUDA: install PyPI's torch, not the CPU build")
    major = int(built.split(".")[0])
    failure = ""
    if driver // 1000 < major:
        failure = (
            f"the driver is too old for CUDA {built}: install a torch built for CUDA {driver // 1000}. For CUDA 12: "
            "pip install --index-url https://download.pytorch.org/whl/cu126 torch, and the extra gpu12 of hpc_saidpo"
        )
    elif not torch.cuda.is_available():
        failure = "torch cannot use the GPU (see nvidia-smi): is one allocated to this job?"
    return judge("driver and CUDA", text, failure=failure)


def _clustering(config: Settings) -> Finding:
    """Check that cuML and CuPy are built for torch's CUDA, and installed where clusters.backend needs them."""
    distributions = metadata.packages_distributions()
    named = [distributions[name][0] for name in distributions if name in ("cuml", "cupy")]
    installed = {name: metadata.version(name) for name in named}
    text = ", ".join(f"{name} {version}" for name, version in installed.items()) or "no cuML: scikit-learn on the CPU"
    built = (torch.version.cuda or "").split(".")[0]
    others = [n for n in installed if (m := re.search(r"(?:cu|cuda)(\d+)", n)) and built and m[1] != built]
    failure = ""
    if others:
        failure = f"{', '.join(others)}: built for another CUDA than torch ({built}): install the cu{built} packages"
    if config.clusters.backend == "gpu" and not any("cuml" in name for name in installed):
        failure = "clusters.backend=gpu, but cuML is not installed: pip install 'hpc_saidpo[gpu]' (CUDA 12: [gpu12])"
    return judge("cuML and CuPy", text, failure=failure)


def _attention(world: World, config: Settings) -> Finding:
    """Check that the requested attention implementation can run, and whether flash attention is missing."""
    try:
        chosen = attention.attention_of(config.policy, world.device)
    except RunError as error:
        return judge("attention", config.policy.attention, failure=str(error))
    obstacle = flash.obstacle("flash_attention_2", world.device, attention.precision_of(config.policy, world.device))
    remedy = (
        f"no flash attention, {obstacle}: pip install flash-attn --no-build-isolation; sdpa is used until then"
        if world.device.type == "cuda" and chosen == "sdpa" and config.policy.attention == "auto"
        else ""
    )
    return judge("attention", chosen, warning=remedy)
