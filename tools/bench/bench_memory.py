#!/usr/bin/env python3
"""Compare the memory that `hpc-saidpo plan` estimates with the measured peak of real DPO steps.

    tools/bench/bench_memory.py
    tools/bench/bench_memory.py LoRA "fsdp, 2 ranks"
    tools/bench/bench_memory.py --quick --json memory.json

Runs DPO steps of a model of 34 million parameters on the CPU of this machine, each case in its own processes. Exits 0
when all cases are within the tolerance, 1 when one is not, 2 when a measurement failed.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import common

common.start("mpi4py")

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from hpc_saidpo.cli.compose import from_overrides
from hpc_saidpo.doctor import memory
from hpc_saidpo.doctor.plan_memory import markdown
from hpc_saidpo.dpo.examples import Examples
from hpc_saidpo.dpo.train import Lesson, train
from hpc_saidpo.errors import RunError
from hpc_saidpo.parallel.launch import connect
from hpc_saidpo.parallel.world import World
from hpc_saidpo.policy.attention import precision_of
from hpc_saidpo.policy.model import Policy
from hpc_saidpo.records import Pairs
from hpc_saidpo.settings.whole import Settings

TOLERANCE = 0.25  # largest relative difference between a measured and an estimated peak
SMALL = LlamaConfig(
    vocab_size=8192, hidden_size=512, intermediate_size=1536, num_hidden_layers=8, num_attention_heads=8,
    num_key_value_heads=4, bos_token_id=None, eos_token_id=1, pad_token_id=0, tie_word_embeddings=False,
)  # fmt: skip
PROMPT, RESPONSE = 64, 64  # tokens
CASES = {
    "all weights": (1, []),
    "checkpointing": (1, ["dpo.checkpointing=true"]),
    "long responses": (1, ["rollouts.max_new_tokens=256"]),
    "bfloat16": (1, ["policy.precision=bfloat16"]),
    "adamw_8bit": (1, ["dpo.optimizer=adamw_8bit"]),
    "deterministic": (1, ["run.deterministic=true"]),
    "LoRA": (1, ["dpo.lora.rank=8"]),
    "LoRA, checkpointing": (1, ["dpo.lora.rank=8", "dpo.checkpointing=true"]),
    "ddp, 2 ranks": (2, []),
    "fsdp, 2 ranks": (2, ["dpo.strategy=fsdp"]),
}  # name: ranks, overrides
QUICK = ("all weights", "LoRA", "fsdp, 2 ranks")


@dataclass(frozen=True)
class Result:
    """Estimated and measured bytes of a case, on the rank with the highest peak."""

    case: str
    planned: float
    measured: int

    @property
    def ratio(self) -> float:
        return self.measured / self.planned


def main(words: list[str] | None = None) -> int:
    parser = common.parser(__doc__, f"run only: {'; '.join(QUICK)}")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"cases to run (default: all): {'; '.join(CASES)}")
    parser.add_argument("--peak-of", nargs="*", help=argparse.SUPPRESS)
    parsed = parser.parse_args(words)
    try:
        if parsed.peak_of is not None:
            return show_peak(parsed.peak_of)
        results = [compare(name) for name in chosen(parsed.cases or (QUICK if parsed.quick else CASES))]
    except RunError as error:
        print(f"bench_memory: {error}", file=sys.stderr)
        return 2
    rows = [["case", "planned MiB", "measured MiB", "measured / planned"]]
    for r in results:
        rows.append([r.case, f"{r.planned / 2**20:.0f}", f"{r.measured / 2**20:.0f}", f"{r.ratio:.2f}"])
    worst = max(abs(r.ratio - 1) for r in results)
    print(markdown(rows))
    print(f"\nlargest difference from the estimate: {worst:.0%}; tolerance {TOLERANCE:.0%}")
    figures: dict[str, float | str | None] = {}
    for r in results:
        figures |= {f"{r.case}: planned_bytes": r.planned, f"{r.case}: measured_bytes": r.measured}
        figures[f"{r.case}: measured / planned"] = r.ratio
    common.write_figures(figures, parsed)
    return int(worst > TOLERANCE)


def chosen(names: Iterable[str]) -> list[str]:
    """The requested cases.

    Raises:
        RunError: there is no such case.
    """
    names = list(names)
    unknown = sorted(set(names) - set(CASES))
    if unknown:
        raise RunError(f"no case {', '.join(unknown)}: there are {', '.join(CASES)}")
    return names


def compare(case: str) -> Result:
    """Estimate and measure one case."""
    n_ranks, overrides = CASES[case]
    config = small_config(overrides)
    n_bytes = precision_of(config.policy, torch.device("cpu")).itemsize
    lengths = memory.Lengths(PROMPT, config.rollouts.max_new_tokens)
    model, exact = memory.model_of(SMALL), config.run.deterministic
    planned = sum(memory.training(model, config.dpo, lengths, exact, n_ranks, n_bytes).values())
    return Result(case, planned, peak_of(n_ranks, overrides))


def small_config(overrides: list[str]) -> Settings:
    """The configuration of a case."""
    small = ["dpo.micro_pairs=2", "dpo.batch_pairs=4", "dpo.head_tokens=128", f"rollouts.max_new_tokens={RESPONSE}"]
    return from_overrides(["experiment=tiny", "run.deterministic=false", *small, *overrides])


def peak_of(n_ranks: int, overrides: list[str]) -> int:
    """Measure the peak bytes of a round in separate processes, on the rank with the highest peak.

    Raises:
        RunError: a process failed.
    """
    launch = [mpiexec(), "-n", str(n_ranks)] if n_ranks > 1 else []
    line = [*launch, sys.executable, *["-m", "mpi4py"] * (n_ranks > 1), __file__, "--peak-of", *overrides]
    # By default glibc keeps freed memory, up to the size of the largest freed piece (at most 32 MiB).
    kept = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, capture_output=True, text=True, env={**os.environ, **kept}, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise RunError(f"measuring {overrides} on {n_ranks} ranks failed:\n{done.stderr}")
    return int(done.stdout.split()[-1])


def mpiexec() -> str:
    """The mpiexec of this Python environment, or of the system.

    Raises:
        RunError: there is none.
    """
    beside = Path(sys.executable).parent / "mpiexec"
    path = str(beside) if beside.exists() else shutil.which("mpiexec")
    if not path:
        raise RunError("no mpiexec for the cases of several ranks: name other cases")
    return path


def show_peak(overrides: list[str]) -> int:
    """Train the small model, and print by how many bytes the memory of the process grew at its peak. Collective."""
    world, config = connect(), small_config(overrides)
    tiny = LlamaConfig(vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
    train_small(tiny, config, world)  # everything that is loaded or built only once
    gc.collect()
    common.reset_peak()
    before = common.memory_gib(common.NOW)
    train_small(SMALL, config, world)
    peaks = world.gather(round(2**30 * (common.memory_gib() - before)))
    if world.is_root:
        print(max(peaks))
    return 0


def train_small(model: LlamaConfig, config: Settings, world: World) -> None:
    """Make two steps of two micro-batches on random tokens; all responses have full length."""
    n, rng = 2 * config.dpo.batch_pairs, np.random.default_rng(0)
    length = config.rollouts.max_new_tokens
    prompt, chosen, rejected = (rng.integers(2, 64, (n, t)).tolist() for t in (PROMPT, length, length))
    pairs = Pairs.from_rows([(i, 0, 0, 1, True, True, 0, 0.5, 1.0, 1.0, str(i), "", "", "") for i in range(n)])
    built = AutoModelForCausalLM.from_config(model, attn_implementation="sdpa", trust_remote_code=False).eval()
    device = torch.device("cpu")
    policy = Policy(built, None, device, precision_of(config.policy, device), "random weights")
    lesson = Lesson(pairs, Examples(prompt, chosen, rejected), 0, 0, config.run.deterministic)
    train(policy, lesson, config.dpo, world)


if __name__ == "__main__":
    sys.exit(main())
