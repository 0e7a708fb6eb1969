"""Estimate before the job: does the model fit, how long do the stages take, is the time limit enough? Collective.

The figures are rough on purpose; they separate half an hour from three hours. Rates are measured here for one second,
sizes follow from the configuration. The real length of responses and the share of questions that yield a pair are not
known before the run.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from .. import settings
from ..errors import RunError
from ..evaluate import benchmarks
from ..grader.grader import shared_grader
from ..grader.self_check import HALF, GoldReport, by_grading
from ..parallel.world import World
from ..policy import attention
from ..pool.stage import load_pool
from ..records import Question, pick
from ..rollouts.chunks import count, too_many_ranks
from ..settings.whole import Settings
from ..store.run import RunDir
from . import memory
from .finding import Finding, judge
from .foresight import EXPECTED_YIELD
from .memory import GIB, Model

CHARACTERS_PER_TOKEN = 3.5  # assumed
GOLDS = 256  # gold answers of the pool that are graded, evenly spread
TRAINING, DECODING = 0.3, 0.5  # shares of the measured rates that whole steps reach (the demo's, on the CPU)
LAYER_OVERHEAD_S = 0.4e-3  # of a decoding step, on the host


@dataclass(frozen=True)
class Rates:
    """Rates measured on one rank: matrix multiplication in FLOP/s, memory in bytes/s."""

    flops: float
    bytes_per_s: float


@dataclass(frozen=True)
class Sizes:
    """The amount of work: tokens of a prompt, questions of the pool, responses of an evaluation; some gold answers."""

    prompt_tokens: int
    pool_questions: int
    evaluated_responses: int
    golds: GoldReport = field(default_factory=lambda: GoldReport(0, 0))


def prompt_tokens(questions: Sequence[Question], shots: int) -> int:
    """Estimate the mean tokens of a prompt from the characters of the first thousand questions.

    Args:
        shots: few-shot examples in the prompt, each as long as a question.
    """
    some = questions[:1000]
    return round((1 + shots) * sum(len(q.text) for q in some) / len(some) / CHARACTERS_PER_TOKEN)


def chunk_s(model: Model, config: settings.Rollouts, rates: Rates, n_bytes: int) -> float:
    """Estimate the seconds of a large chunk of rollouts with K responses to each question.

    A decoding step reads the weights once and multiplies them with every row; the slower of both counts.
    """
    rows = memory.decoded_at_once(config)
    times = config.chunk_bounds("explore")[0] * config.k / rows
    step = max(n_bytes * model.n_parameters / rates.bytes_per_s, 2 * rows * model.n_parameters / rates.flops)
    return times * config.max_new_tokens * (step / DECODING + LAYER_OVERHEAD_S * model.n_layers)


def stage_times(
    model: Model, config: Settings, sizes: Sizes, rates: Rates, n_ranks: int, n_bytes: int
) -> dict[str, float]:
    """Estimate the seconds of each stage of an iteration on `n_ranks` ranks.

    Args:
        n_bytes: bytes of a number in the precision of the computation.
    """
    # Seconds for the K rollouts of one question.
    one = chunk_s(model, config.rollouts, rates, n_bytes) / config.rollouts.chunk_bounds("explore")[0]
    n_pairs = EXPECTED_YIELD * config.sampler.n_questions * config.pairs.per_question
    tokens = memory.Lengths(sizes.prompt_tokens, config.rollouts.max_new_tokens).pair
    # A forward and backward pass each epoch (6 FLOP per parameter and token), a forward pass of the reference (2).
    flop = n_pairs * tokens * model.n_parameters * (6 * config.dpo.epochs + 2)
    return {
        "probe": config.probe.fraction * sizes.pool_questions * one / n_ranks,
        "explore": config.sampler.n_questions * one / n_ranks,
        "DPO": flop / (TRAINING * rates.flops) / n_ranks,
        "evaluate": sizes.evaluated_responses / config.rollouts.k * one / n_ranks,
    }


def measure(device: torch.device, precision: torch.dtype) -> Rates:
    """Measure the rates of this rank's device, in about a second."""
    n = 4096 if device.type == "cuda" else 1024
    a = torch.ones(n, n, device=device, dtype=precision)
    big = torch.ones(64 << 20, device=device, dtype=torch.uint8)
    return Rates(2 * n**3 / _time_of(lambda: a @ a, device), 2 * big.numel() / _time_of(big.clone, device))


def _time_of(work: Callable[[], torch.Tensor], device: torch.device) -> float:
    """Measure the shortest time of one call, in s, over half a second of calls after a first one."""
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
    """Bytes that one rank may use: its GPU's memory; on the CPU its share of the node's or the job's memory."""
    if world.device.type == "cuda":
        return torch.cuda.get_device_properties(world.device).total_memory
    limits = [_available_bytes()]
    if "SLURM_MEM_PER_NODE" in os.environ:
        limits.append(int(os.environ["SLURM_MEM_PER_NODE"]) << 20)
    if "SLURM_MEM_PER_CPU" in os.environ:
        n_cpus = world.local_size * int(os.environ.get("SLURM_CPUS_PER_TASK", "1"))
        limits.append(n_cpus * (int(os.environ["SLURM_MEM_PER_CPU"]) << 20))
    return min(limits) / world.local_size


def _available_bytes() -> int:
    """Available memory of the node (MemAvailable)."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    line = next(line for line in lines if line.startswith("MemAvailable:"))
    return 1024 * int(line.split()[1])


def time_left_s() -> float | None:
    """Seconds until the job's time limit; None outside of Slurm or without a limit."""
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        return None
    if "SLURM_JOB_END_TIME" in os.environ:
        return int(os.environ["SLURM_JOB_END_TIME"]) - time.time()
    try:
        command = ["squeue", "-h", "-j", job, "-o", "%L"]
        output = subprocess.run(command, capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", output.strip())
    if not match:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((24 * days + hours) * 60 + minutes) * 60 + seconds


def in_words(seconds: float) -> str:
    """A duration for reading: 12 s, 3 min or 4.2 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def check(world: World, config: Settings, model: Model) -> list[Finding]:
    """Check the memory of this model, the times of the stages and the time limit."""
    precision = attention.precision_of(config.policy, world.device)
    rates = measure(world.device, precision)
    rates = Rates(min(world.gather(rates.flops)), min(world.gather(rates.bytes_per_s)))
    usable_bytes = min(world.gather(memory_bytes(world)))

    def on_root() -> list[Finding]:
        try:
            sizes = _sizes(config)
        except RunError as error:
            return [judge("stage times", "not estimated", failure=str(error))]
        n_bytes = precision.itemsize
        times = stage_times(model, config, sizes, rates, world.size, n_bytes)
        longest = chunk_s(model, config.rollouts, rates, n_bytes) * config.rollouts.max_responses / config.rollouts.k
        needed = _needed_bytes(model, config, sizes.prompt_tokens, world.size, n_bytes)
        found = [_memory(model, *needed, usable_bytes), *_times(config, times, longest, time_left_s())]
        return [*found, judge_chunks(config, sizes.pool_questions, world.size), _golds(sizes.golds)]

    return world.on_root(on_root)


def _golds(report: GoldReport) -> Finding:
    """Judge the gold answers of some questions of the pool."""
    fault = report.fault()
    is_refused = report.rate < HALF
    return judge("gold answers", report.text(), failure=fault * is_refused, warning=fault)


def judge_chunks(config: Settings, n_pool: int, n_ranks: int) -> Finding:
    """Compare the chunks of the stages of rollouts with the ranks.

    Args:
        n_pool: number of questions in the pool.
    """
    questions = {"probe": max(1, round(config.probe.fraction * n_pool)), "explore": config.sampler.explored_at_once}
    counts = {stage: count(n, *config.rollouts.chunk_bounds(stage)) for stage, n in questions.items()}
    text = ", ".join(f"{stage} {n}" for stage, n in counts.items())
    stage = "explore"  # most of the work of an iteration; the probe is short
    return judge("chunks", text, warning=too_many_ranks(n_ranks, questions[stage], config.rollouts, stage))


def _sizes(config: Settings) -> Sizes:
    """Read the pool and the benchmarks as a run does, and count; nothing is kept.

    Raises:
        RunError: a file is missing or wrong.
    """
    with tempfile.TemporaryDirectory() as folder:
        loaded = load_pool(config.pool, RunDir(Path(folder) / "run", World(), {}, lambda message: None))
        evaluated = benchmarks.load(config.evaluate, loaded.held_out)
        n_evaluated = sum(len(b.questions) * b.plan.samples for b in evaluated)
        n_prompt = prompt_tokens(loaded.questions, config.rollouts.prompt.shots)
        some = range(0, len(loaded.questions), max(1, -(-len(loaded.questions) // GOLDS)))
        golds = by_grading(pick(loaded.questions, some).values(), shared_grader(config.rollouts.grader))
        return Sizes(n_prompt, len(loaded.questions), n_evaluated, golds)


def _needed_bytes(model: Model, config: Settings, n_prompt: int, n_ranks: int, n_bytes: int) -> tuple[float, float]:
    """Bytes of training and of rollouts on one rank."""
    lengths = memory.Lengths(n_prompt, config.rollouts.max_new_tokens)
    train = memory.training(model, config.dpo, lengths, config.run.deterministic, n_ranks, n_bytes)
    return sum(train.values()), sum(memory.rollouts(model, config.rollouts, n_prompt, n_bytes).values())


def _memory(model: Model, train: float, roll: float, usable_bytes: float) -> Finding:
    """Compare the bytes of training and of rollouts with the usable bytes of a rank."""
    text = (
        f"{model.n_parameters / 1e6:,.1f} M parameters; training {train / GIB:.1f} GiB, rollouts {roll / GIB:.1f} GiB, "
        f"of {usable_bytes / GIB:.1f} per rank"
    )
    failure = warning = ""
    if train > usable_bytes:
        failure = (
            "training does not fit: see `hpc-saidpo plan`; dpo.checkpointing=true, dpo.micro_pairs=1, a lower "
            "dpo.head_tokens, dpo=lora, a smaller model or larger GPUs"
        )
    elif roll > usable_bytes:
        failure = "the rollouts do not fit: lower rollouts.generate.rows"
    elif max(train, roll) > 0.85 * usable_bytes:
        warning = "close to the limit: lower dpo.micro_pairs (or dpo.micro_tokens) and rollouts.generate.rows"
    return judge("memory", text, failure=failure, warning=warning)


def _times(config: Settings, times: dict[str, float], one: float, left: float | None) -> list[Finding]:
    """Compare the stage times with run.grace_s and with the time limit.

    Args:
        one: seconds of a chunk of rollouts.
        left: seconds until the time limit; None without one.
    """
    listed = ", ".join(f"{name} {in_words(s)}" for name, s in times.items())
    long = (
        f"a chunk may take longer than run.grace_s={config.run.grace_s:g}, and would be lost at a stop: lower "
        "rollouts.chunk_questions"
    ) * (one > config.run.grace_s)
    text = f"an iteration, roughly: {listed}; a chunk of rollouts {in_words(one)}"
    findings = [judge("stage times", text, warning=long)]
    if left is None:
        return [*findings, judge("time limit", "no limit detected")]
    whole = config.loop.iterations * sum(times.values())
    starts = f"the job will be requeued about {whole / left:.0f} times before the end" * (whole > left)
    short = "not one chunk fits: raise --time, or lower rollouts.chunk_questions" * (one > left)
    limit = f"{in_words(left)} left; {config.loop.iterations} iterations need about {in_words(whole)}"
    return [*findings, judge("time limit", limit, failure=short, warning=starts)]
