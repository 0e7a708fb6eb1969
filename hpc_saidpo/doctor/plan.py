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
from transformers import AutoConfig, AutoModelForCausalLM

from .. import benchmarks, policy, pool
from ..generate.engine import CPU_ROWS
from ..parallel import World
from ..records import Question, RunError
from ..store import RunDir
from .finding import Finding, judge

GIB = 2**30
CHARACTERS_PER_TOKEN = 3.5  # assumed
YIELD = 0.5  # assumed share of drawn questions that give a pair
TRAINING, DECODING = 0.3, 0.5  # shares of the measured rates that whole steps reach (the demo's, on the CPU)
LAYER_OVERHEAD_S = 0.4e-3  # of a decoding step, on the host


@dataclass(frozen=True)
class Model:
    """What the arithmetic needs to know of a model; `kv_width` is keys and values of one token in one layer."""

    n_parameters: int
    n_layers: int
    hidden: int
    kv_width: int
    vocabulary: int


@dataclass(frozen=True)
class Rates:
    """Measured on one rank: matrix multiplication in FLOP/s, memory in bytes/s."""

    flops: float
    bytes_per_s: float


def model_of(path: str) -> Model:
    """The model at a path, by its configuration alone: no weights are read."""
    found = Path(policy.locate(path))
    if policy.is_gguf(str(found)):
        config = AutoConfig.from_pretrained(found.parent, gguf_file=found.name)
    else:
        config = AutoConfig.from_pretrained(found)
    with torch.device("meta"):
        n = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return Model(n, text.num_hidden_layers, text.hidden_size, 2 * heads * head_size, text.vocab_size)


def prompt_tokens(questions: Sequence[Question], config) -> int:
    """Mean length of a prompt, from the characters of the first thousand questions; few-shot examples are as long."""
    some = questions[:1000]
    return round((1 + config.rollouts.prompt.shots) * sum(len(q.text) for q in some) / len(some) / CHARACTERS_PER_TOKEN)


def training_bytes(model: Model, config, n_prompt: int, size: int, n_bytes: int) -> float:
    """Peak memory of a DPO step on one rank.

    Weights, gradients and two AdamW moments in float32; DDP's buckets; with run.deterministic a float64 sum.
    Activations after Korthikanti et al. 2022, eq. 2 (34 bytes per token, layer and hidden unit at 16 bits, attention
    matrices not kept); logits, their softmax and its gradient of one chunk of response tokens (dpo.head_tokens).

    Args:
        n_prompt: tokens of a prompt.
        size: number of ranks.
        n_bytes: of a number in the precision of the computation.
    """
    pair = n_prompt + 2 * config.rollouts.max_new_tokens
    tokens = max(pair, config.dpo.micro_tokens) if config.dpo.micro_tokens else config.dpo.micro_pairs * pair
    layer = 17 * n_bytes * tokens * model.hidden
    kept = (
        n_bytes * tokens * model.hidden * model.n_layers + layer if config.dpo.checkpointing else layer * model.n_layers
    )
    answered = tokens * 2 * config.rollouts.max_new_tokens // pair
    logits = 3 * 4 * min(config.dpo.head_tokens, answered) * model.vocabulary
    weights = 16 + (4 if size > 1 else 0) + (8 if config.run.deterministic else 0) + (2 if n_bytes == 2 else 0)
    return weights * model.n_parameters + kept + logits


def decoded_at_once(config) -> int:
    """Responses of a chunk that are decoded together; on a GPU the engine takes more where there is room for them."""
    return min(config.rollouts.chunk_questions * config.rollouts.k, config.rollouts.generate.rows or CPU_ROWS)


def rollout_bytes(model: Model, config, n_prompt: int, n_bytes: int) -> float:
    """Peak memory of decoding on one rank: weights, and keys and values of all rows at full length."""
    rows = decoded_at_once(config)
    tokens = n_prompt + config.rollouts.max_new_tokens
    weights = 4 + (2 if n_bytes == 2 else 0)
    return weights * model.n_parameters + rows * tokens * model.n_layers * model.kv_width * n_bytes


def chunk_s(model: Model, config, rates: Rates, n_bytes: int) -> float:
    """Time of a large chunk of rollouts: a decoding step reads the weights once and multiplies them with every row."""
    rows = decoded_at_once(config)
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
    precision = policy.precision_of(config.policy, world.device)
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
        loaded = pool.load(config.pool, RunDir(Path(folder) / "run", World(), {}, lambda words: None))
        found = benchmarks.load(config.evaluate, loaded.held_out)
        n_evaluated = sum(len(b.questions) * b.how.samples for b in found)
        return prompt_tokens(loaded.questions, config), len(loaded.questions), n_evaluated


def _memory(model, config, n_prompt, size, n_bytes, have) -> Finding:
    train = training_bytes(model, config, n_prompt, size, n_bytes)
    roll = rollout_bytes(model, config, n_prompt, n_bytes)
    told = (
        f"{model.n_parameters / 1e6:,.1f} M parameters; training {train / GIB:.1f} GiB, rollouts {roll / GIB:.1f} GiB, "
        f"of {have / GIB:.1f} per rank"
    )
    failure = warning = ""
    if train > have:
        failure = (
            "training does not fit: dpo.checkpointing=true, dpo.micro_pairs=1, a lower dpo.head_tokens, a smaller "
            "model or larger GPUs"
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
