"""Arithmetic before the job: does the model fit, how long do the stages take, is the time limit enough? Collective.

Rough on purpose (half an hour or three hours): rates are measured here for a second, sizes follow from the
configuration; how long responses really are, and how many questions give a pair, nobody knows before.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import RunError
from ..evaluate import benchmarks
from ..parallel.world import World
from ..policy import attention
from ..pool.stage import load_pool
from ..records import Question
from ..store.run import RunDir
from . import memory
from .finding import Finding, judge
from .memory import GIB, Model

CHARACTERS_PER_TOKEN = 3.5  # assumed
YIELD = 0.5  # assumed share of drawn questions that give a pair
TRAINING, DECODING = 0.3, 0.5  # shares of the measured rates that whole steps reach (the demo's, on the CPU)
LAYER_OVERHEAD_S = 0.4e-3  # of a decoding step, on the host


@dataclass(frozen=True)
class Rates:
    """Measured on one rank: matrix multiplication in FLOP/s, memory in bytes/s."""

    flops: float
    bytes_per_s: float


def prompt_tokens(questions: Sequence[Question], config) -> int:
    """Mean length of a prompt, from the characters of the first thousand questions; few-shot examples are as long."""
    some = questions[:1000]
    return round((1 + config.rollouts.prompt.shots) * sum(len(q.text) for q in some) / len(some) / CHARACTERS_PER_TOKEN)


def chunk_s(model: Model, config, rates: Rates, n_bytes: int) -> float:
    """Time of a large chunk of rollouts: a decoding step reads the weights once and multiplies them with every row."""
    rows = memory.decoded_at_once(config)
    times = config.rollouts.chunk_questions * config.rollouts.k / rows
    step = max(n_bytes * model.n_parameters / rates.bytes_per_s, 2 * rows * model.n_parameters / rates.flops)
    return times * config.rollouts.max_new_tokens * (step / DECODING + LAYER_OVERHEAD_S * model.n_layers)


def stage_times(
    model: Model, config, n_prompt: int, n_pool: int, n_evaluated: int, rates: Rates, size: int, n_bytes: int
) -> dict[str, float]:
    """Seconds of each stage of an iteration on `size` ranks; `n_evaluated` counts responses."""
    one = chunk_s(model, config, rates, n_bytes) / config.rollouts.chunk_questions  # of a question's K rollouts
    n_pairs = YIELD * config.sampler.n_questions * config.pairs.per_question
    tokens = n_prompt + 2 * config.rollouts.max_new_tokens
    # A forward and backward pass each epoch (6 FLOP per parameter and token), a forward pass of the reference (2).
    flop = n_pairs * tokens * model.n_parameters * (6 * config.dpo.epochs + 2)
    return {
        "probe": config.probe.fraction * n_pool * one / size,
        "explore": config.sampler.n_questions * one / size,
        "DPO": flop / (TRAINING * rates.flops) / size,
        "evaluate": n_evaluated / config.rollouts.k * one / size,
    }


def measure(device: torch.device, precision: torch.dtype) -> Rates:
    """Rates of this rank's device, in about a second."""
    n = 4096 if device.type == "cuda" else 1024
    a = torch.ones(n, n, device=device, dtype=precision)
    big = torch.ones(64 << 20, device=device, dtype=torch.uint8)
    return Rates(2 * n**3 / _time_of(lambda: a @ a, device), 2 * big.numel() / _time_of(big.clone, device))


def _time_of(work, device) -> float:
    """Shortest time of one call, after one to warm up; as many as half a second holds."""
    work()
    shortest, until = float("inf"), time.monotonic() + 0.5
    while time.monotonic() < until:
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        shortest = min(shortest, time.perf_counter() - started)
    return shortest


def memory_bytes(world: World) -> float:
    """What one rank may use: its GPU's memory; on the CPU its share of what the node, or the job, has."""
    if world.device.type == "cuda":
        return torch.cuda.get_device_properties(world.device).total_memory
    node = 1024 * int(re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())[1])
    job = [
        int(os.environ["SLURM_MEM_PER_NODE"]) << 20 if "SLURM_MEM_PER_NODE" in os.environ else node,
        world.local_size
        * int(os.environ.get("SLURM_CPUS_PER_TASK", "1"))
        * (int(os.environ["SLURM_MEM_PER_CPU"]) << 20)
        if "SLURM_MEM_PER_CPU" in os.environ
        else node,
    ]
    return min(node, *job) / world.local_size


def time_left_s() -> float | None:
    """Until the job's time limit; None outside of Slurm or without one."""
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        return None
    if "SLURM_JOB_END_TIME" in os.environ:
        return int(os.environ["SLURM_JOB_END_TIME"]) - time.time()
    try:
        said = subprocess.run(
            ["squeue", "-h", "-j", job, "-o", "%L"], capture_output=True, text=True, timeout=10
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", said.strip())
    if not match:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((24 * days + hours) * 60 + minutes) * 60 + seconds


def in_words(seconds: float) -> str:
    """12 s, 3 min or 4.2 h."""
    return (
        f"{seconds:.0f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.1f} h"
    )


def disk_bytes(model: Model, config) -> float:
    """What a run leaves on disk: a float32 policy for every iteration, and a checkpoint while it trains."""
    return model.n_parameters * (4.0 * config.loop.iterations + 12)


def check(world: World, config, model: Model) -> list[Finding]:
    """Memory of this model, times of the stages, the time limit."""
    precision = attention.precision_of(config.policy, world.device)
    rates = measure(world.device, precision)
    rates = Rates(min(world.gather(rates.flops)), min(world.gather(rates.bytes_per_s)))
    have = min(world.gather(memory_bytes(world)))

    def on_root():
        try:
            n_prompt, n_pool, n_evaluated = _read(config)
        except RunError as error:
            return [judge("stage times", "not estimated", failure=str(error))]
        sizes = (n_pool, n_evaluated, rates, world.size, precision.itemsize)
        times = stage_times(model, config, n_prompt, *sizes)
        return [
            _memory(model, config, n_prompt, world.size, precision.itemsize, have),
            *_times(config, times, chunk_s(model, config, rates, precision.itemsize), time_left_s()),
        ]

    return world.on_root(on_root)


def _read(config) -> tuple[int, int, int]:
    """Tokens of a prompt, questions of the pool and of the benchmarks; read as a run does, and not kept."""
    with tempfile.TemporaryDirectory() as folder:
        loaded = load_pool(config.pool, RunDir(Path(folder) / "run", World(), {}, lambda words: None))
        found = benchmarks.load(config.evaluate, loaded.held_out)
        n_evaluated = sum(len(b.questions) * b.plan.samples for b in found)
        return prompt_tokens(loaded.questions, config), len(loaded.questions), n_evaluated


def _memory(model, config, n_prompt, size, n_bytes, have) -> Finding:
    train = sum(memory.training(model, config, n_prompt, size, n_bytes).values())
    roll = sum(memory.rollouts(model, config, n_prompt, n_bytes).values())
    told = (
        f"{model.n_parameters / 1e6:,.1f} M parameters; training {train / GIB:.1f} GiB, rollouts {roll / GIB:.1f} GiB, "
        f"of {have / GIB:.1f} per rank"
    )
    failure = warning = ""
    if train > have:
        failure = (
            "training does not fit: see tools/plan_memory.py; dpo.checkpointing=true, dpo.micro_pairs=1, a lower "
            "dpo.head_tokens, dpo=lora, a smaller model or larger GPUs"
        )
    elif roll > have:
        failure = "the rollouts do not fit: lower rollouts.generate.rows"
    elif max(train, roll) > 0.85 * have:
        warning = "close to the limit: lower dpo.micro_pairs (or dpo.micro_tokens) and rollouts.generate.rows"
    return judge("memory", told, failure=failure, warning=warning)


def _times(config, times, one, left) -> list[Finding]:
    listed = ", ".join(f"{name} {in_words(s)}" for name, s in times.items())
    long = (
        f"a chunk may outlast run.grace_s={config.run.grace_s:g}, and would be given up at a stop: lower "
        "rollouts.chunk_questions"
    ) * (one > config.run.grace_s)
    told = f"an iteration, roughly: {listed}; a chunk of rollouts {in_words(one)}"
    found = [judge("stage times", told, warning=long)]
    if left is None:
        return [*found, judge("time limit", "none known")]
    whole = config.loop.iterations * sum(times.values())
    starts = f"the job will be requeued about {whole / left:.0f} times before the end" * (whole > left)
    short = "not one chunk fits: raise --time, or lower rollouts.chunk_questions" * (one > left)
    limit = f"{in_words(left)} left; {config.loop.iterations} iterations need about {in_words(whole)}"
    return [*found, judge("time limit", limit, failure=short, warning=starts)]
