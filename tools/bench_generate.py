#!/usr/bin/env python3
"""Measure the rollout engine beside transformers' own generate, on one thread.

    python tools/bench_generate.py --quick
    python tools/bench_generate.py --json bench.json

SmolLM2-135M in float32 answers questions of the demo's pool (reasoning-gym), 8 responses each, up to 128 new tokens at
temperature 1, without examples and with the demo's four. Beside it `model.generate` at its best: 48 rows at once,
prompts sorted by length; and one question at a time with num_return_sequences=8. Each repeat goes through all of them in turn,
CPU time is counted, and medians are shown; a token costs what it costs, so every engine's time is divided by the tokens
it made. greedy_match is the share of greedy responses that are those of `model.generate`, token for token; memory is
the peak of a process of its own, above what the loaded model takes. --quick takes fewer questions and one repeat.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(HOME))
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROWS, K, NEW_TOKENS = 48, 8, 128
ENGINES = {"shared": ("shared", ROWS), "hf": ("hf", ROWS), "one": ("hf", K)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="12 questions, one repeat")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--memory-of", choices=["shared", "hf"], help=argparse.SUPPRESS)
    asked = parser.parse_args()
    n, repeats = (12, 1) if asked.quick else (36, 3)
    policy, prompts = load(n)
    if asked.memory_of:
        print(memory(policy, prompts["few-shot"][:6], asked.memory_of))
        return 0
    figures: dict[str, float] = {}
    for name, own in prompts.items():
        suffix = "_fewshot" if name == "few-shot" else ""
        cost = measure(policy, own, repeats)
        figures[f"x_hf_batched{suffix}"] = cost["hf"] / cost["shared"]
        figures[f"x_one_at_a_time{suffix}"] = cost["one"] / cost["shared"]
        figures |= {f"{engine}_ms_per_token{suffix}": 1000 * value for engine, value in cost.items()}
    figures["greedy_match"] = greedy_match(policy, prompts["plain"][:12] + prompts["few-shot"][:12])
    peaks = {engine: float(subprocess.run(
        [sys.executable, __file__, "--quick", "--memory-of", engine], capture_output=True, text=True, check=True
    ).stdout.split()[-1]) for engine in ("shared", "hf")}  # fmt: skip
    figures["mem_vs_hf"] = peaks["shared"] / peaks["hf"]
    figures |= {f"{engine}_peak_gib": peak for engine, peak in peaks.items()}
    for name, value in figures.items():
        print(f"{name:34s} {value:10.3f}")
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def load(n: int):
    """(policy, token ids of n prompts by kind)."""
    import tempfile

    import torch

    from hpc_saidpo import config, parallel, policy, pool, rollouts

    torch.set_num_threads(1)
    settings = config.from_overrides(["experiment=demo"])
    plain = config.from_overrides(["experiment=demo", "rollouts/prompt=plain"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        path.mkdir()
        policy.convert_gguf(policy.locate(settings.policy.path), path)
        own = policy.Policy.load(str(path), settings.policy, parallel.World().device)
    questions = pool.load(settings.pool, _store())
    chosen = questions.questions[:: len(questions.questions) // n][:n]
    some = dict(enumerate(chosen))
    kinds = {"plain": (plain, {}), "few-shot": (settings, questions.examples)}
    return own, {
        kind: [rollouts.Prompts(some, examples, own, c.rollouts.prompt).tokens(i) for i in some]
        for kind, (c, examples) in kinds.items()
    }


def _store():
    from hpc_saidpo import parallel
    from hpc_saidpo.store import RunDir

    return RunDir(Path("bench"), parallel.World(), {}, print)


def run(policy, prompts, engine: str, temperature: float = 1.0, first_seed: int = 0, k: int = K):
    """The responses, and the CPU-seconds that they took."""
    from hpc_saidpo.generate import Config, Sampling, generate

    kind, rows = ENGINES[engine]
    how = Sampling(temperature, 1.0, NEW_TOKENS)
    seeds = [[first_seed + 1000 * i + s for s in range(k)] for i in range(len(prompts))]
    # As rollouts.cut does: prompts of one start and like length together.
    started = time.process_time()
    made = generate(policy, prompts, seeds, how, Config(engine=kind, rows=rows))
    return made, time.process_time() - started


def measure(policy, prompts, repeats: int) -> dict[str, float]:
    """CPU-seconds per token of each engine: medians over the repeats, in which all take turns."""
    costs: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    for repeat in range(repeats):
        for engine, found in costs.items():
            made, seconds = run(policy, prompts, engine, first_seed=10**6 * repeat)
            found.append(seconds / sum(len(r.tokens) for row in made for r in row))
    return {engine: statistics.median(found) for engine, found in costs.items()}


def greedy_match(policy, prompts) -> float:
    """Share of prompts whose greedy response is token for token that of transformers' generate."""
    ours, theirs = (run(policy, prompts, engine, temperature=0.0, k=1)[0] for engine in ("shared", "one"))
    return statistics.fmean(a[0].tokens == b[0].tokens for a, b in zip(ours, theirs, strict=True))


def memory(policy, prompts, engine: str) -> float:
    """Peak memory of decoding, GiB, above what there was before."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run(policy, prompts, engine)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20


if __name__ == "__main__":
    sys.exit(main())
