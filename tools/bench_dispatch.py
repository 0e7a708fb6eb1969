#!/usr/bin/env python3
"""Measure how busy ranks are when lengths of responses differ: real MPI ranks that sleep in place of decoding.

    python tools/bench_dispatch.py --quick
    python tools/bench_dispatch.py --json bench.json

Questions of 20 subjects, whose responses differ in length by a factor of 10, are cut into chunks as a run does, 50 or
more for each rank; a chunk takes as long as its responses together, 4 ms to 0.5 s where a run's takes up to minutes.
Half of the questions were seen before, give or take 30 %: from this a run's own order follows. 4 and 64 ranks claim the
chunks, in turn: longest expected first, as a run does; and as they come. Root computes in Python for a fifth of its
time, as a rank that decodes does, while it hands out. Shown are medians over the repeats: the idle share of the ranks,
from the start of the first to the end of the last; what it would be had each rank every n-th chunk, or a block of
neighbouring ones, and asked nobody (computed); and how long a rank waits for a chunk. --quick: one repeat, a minute.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from hpc_saidpo.parallel.launch import connect
from hpc_saidpo.rollouts import chunks

HOME = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(HOME))

CHUNKS = 50  # per rank, at least
SKEW = 10.0
SUBJECTS = 20
SEEN, NOISE = 0.5, 0.3
LARGEST, SMALLEST = 64, 8  # questions of a chunk, as in conf/rollouts/default.yaml
WAYS = {
    "": "longest first",
    "_unordered": "as they come",
    "_static": "every n-th",
    "_blocks": "blocks",
}
LIMIT = 0.05


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one repeat: about a minute")
    parser.add_argument("--ranks", type=int, nargs="+", default=[4, 64])
    parser.add_argument("--seconds", type=float, default=8.0, help="of work for each rank")
    parser.add_argument("--json", type=Path, help="write the figures here, as one flat object")
    parser.add_argument("--rank-of", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.rank_of:
        take_part(asked.rank_of, asked.seconds)
        return 0
    figures: dict[str, float] = {}
    for n_ranks in asked.ranks:
        figures |= run(n_ranks, 1 if asked.quick else 3, asked.seconds)
    show(figures, asked.ranks)
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def run(n_ranks: int, repeats: int, seconds: float) -> dict[str, float]:
    """The figures of some ranks, which are started anew and stay for all repeats."""
    launcher = Path(sys.executable).parent / "mpiexec"
    line = [launcher if launcher.exists() else "mpiexec", "-n", n_ranks, sys.executable, "-m", "mpi4py", __file__]
    # As the program does: a rank that waits leaves its core to one that computes.
    env = {**os.environ, "MPIR_CVAR_ENABLE_HEAVY_YIELD": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    asked = ["--rank-of", repeats, "--seconds", seconds]
    done = subprocess.run(list(map(str, [*line, *asked])), capture_output=True, text=True, env=env)
    if done.returncode != 0:
        sys.exit(f"the ranks failed:\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def plan(n_ranks: int, seconds: float, seed: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """`seconds` of work for each rank.

    Returns:
        (seconds of each chunk, its number of questions, numbers of the chunks longest expected first).
    """

    n_questions = SMALLEST * CHUNKS * n_ranks
    while True:
        rng = np.random.default_rng(seed)
        subject_N = rng.integers(0, SUBJECTS, n_questions)
        # A subject has its own typical length, a question its own again; together a factor of SKEW from end to end.
        place_N = np.clip(subject_N / (SUBJECTS - 1) + rng.normal(0, 0.2, n_questions), 0, 1)
        length_N = 100 * SKEW**place_N
        seen_N = rng.random(n_questions) < SEEN
        tokens_N = np.where(seen_N, length_N * rng.lognormal(0, NOISE, n_questions), np.nan)
        token_Q = {q: range(n) for q, n in enumerate(rng.integers(50, 200, n_questions).tolist())}
        chunks = chunks.cut(token_Q, lambda q, s=subject_N: str(s[q]), LARGEST, SMALLEST)
        if len(chunks) >= CHUNKS * n_ranks:
            break
        n_questions *= 2
    expected_Q = chunks.expected_tokens(tokens_N, subject_N, np.arange(n_questions))
    cost_I = np.array([length_N[chunk].sum() for chunk in chunks])
    size_I = np.array([len(chunk) for chunk in chunks])
    return cost_I * seconds * n_ranks / cost_I.sum(), size_I, chunks.longest_first(chunks, token_Q, expected_Q)


def take_part(repeats: int, seconds: float) -> None:
    """What a rank does; root prints the figures."""

    world = connect()
    for _ in world.claim(2 * world.size):  # MPI connects two ranks when they first talk
        time.sleep(0.1)
    idle_of: dict[str, list[float]] = {way: [] for way in WAYS}
    waited = []
    for repeat in range(repeats):
        cost_I, size_I, longest_first = world.bcast(plan(world.size, seconds, repeat) if world.is_root else None)
        in_order = np.arange(len(cost_I))
        for way, order in (("", longest_first), ("_unordered", in_order)):
            claimed = timed(world.claim(len(order)))
            waits = [wait for wait, i in claimed if work(cost_I[order[i]], world.is_root)]
            idle_of[way].append(statistics.mean(world.idle_shares()))
            waited += [wait for own in world.gather(waits) for wait in own]
        blocks_I = (np.cumsum(size_I) - size_I) * world.size // size_I.sum()  # as many questions for each rank
        idle_of["_static"].append(idle(cost_I, in_order % world.size))
        idle_of["_blocks"].append(idle(cost_I, blocks_I))
    if world.is_root:
        suffix = f"_{world.size}_ranks"
        figures = {f"idle_share{suffix}{way}": statistics.median(own) for way, own in idle_of.items()}
        figures |= {f"claim_ms_p{p}{suffix}": 1000 * float(np.percentile(waited, p)) for p in (50, 99)}
        figures[f"chunks{suffix}"] = len(cost_I)
        figures[f"chunk_ms_p50{suffix}"] = 1000 * float(np.median(cost_I))
        print(json.dumps(figures))


def idle(cost_I: np.ndarray, rank_I: np.ndarray) -> float:
    """Mean idle share of ranks that do the chunks of their number and then wait for the last one."""
    busy_W = np.bincount(rank_I, weights=cost_I)
    return 1 - float(busy_W.mean() / busy_W.max())


def timed(items):
    """(seconds waited for it, item); the wait for the end is not counted."""
    items, asked = iter(items), time.perf_counter()
    for item in items:
        yield time.perf_counter() - asked, item
        asked = time.perf_counter()


def work(seconds: float, computes: bool) -> bool:
    """Sleep; or compute first, for a fifth of the time, in Python, which other threads have to ask for their turn."""
    until = time.perf_counter() + seconds
    while computes and time.perf_counter() < until - 0.8 * seconds:
        sum(range(1000))
    time.sleep(max(0.0, until - time.perf_counter()))
    return True


def show(figures: dict[str, float], ranks: list[int]) -> None:
    print(f"{'idle share':12}{'chunks':>8}{'median':>10}" + "".join(f"{n:>15}" for n in WAYS.values()), end="")
    print(f"{'a claim: p50':>15}{'p99':>10}")
    for n in ranks:
        of = {name.replace(f"_{n}_ranks", ""): value for name, value in figures.items()}
        print(
            f"{f'{n} ranks':12}{of['chunks']:8,}{of['chunk_ms_p50']:7.0f} ms"
            + "".join(f"{100 * of[f'idle_share{way}']:13.1f} %" for way in WAYS)
            + f"{of['claim_ms_p50']:12.1f} ms{of['claim_ms_p99']:7.1f} ms"
        )
    good = all(figures[f"idle_share_{n}_ranks"] <= LIMIT for n in ranks)
    print(f"{'within' if good else 'NOT within'} {100 * LIMIT:.0f} % idle")


if __name__ == "__main__":
    sys.exit(main())
