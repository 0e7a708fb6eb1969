#!/usr/bin/env python3
"""Measure how busy ranks are when lengths of responses differ: real MPI ranks that sleep in place of decoding.

    tools/bench/bench_dispatch.py --quick
    tools/bench/bench_dispatch.py --json bench.json

Questions of 20 subjects, whose responses differ in length by a factor of 10, are cut into chunks as a run does, 50 or
more for each rank; a chunk takes as long as its responses together, 4 ms to 0.5 s where a run's takes up to minutes.
Half of the questions were seen before, give or take 30 %: from this a run's own order follows. 4 and 64 ranks claim the
chunks, in turn: longest expected first, as a run does; and as they come. Root computes in Python for a fifth of its
time, as a rank that decodes does, while it hands out. Shown are medians over the repeats: the idle share of the ranks,
from the start of the first to the end of the last; what it would be had each rank every n-th chunk, or a block of
neighbouring ones, and requested none (computed); and how long a rank waits for a chunk. --quick: one repeat, a minute.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Sequence

import common

common.start("mpi4py")

import numpy as np

from hpc_saidpo.parallel.launch import connect
from hpc_saidpo.rollouts import chunks

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
    parser = common.parser(__doc__, "one repeat: about a minute", repeats=3)
    parser.add_argument("--ranks", type=int, nargs="+", default=[4, 64])
    parser.add_argument("--seconds", type=float, default=8.0, help="of work for each rank")
    parser.add_argument("--rank-of", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank_of:
        take_part(arguments.rank_of, arguments.seconds)
        return 0
    figures: dict[str, float] = {}
    for n_ranks in arguments.ranks:  # the ranks of one size do all repeats
        words = ("--rank-of", common.repeats_of(arguments), "--seconds", arguments.seconds)
        figures |= json.loads(common.on_ranks(__file__, n_ranks, *words))
    show(figures, arguments.ranks)
    common.write_figures(figures, arguments)
    return 0


def plan(n_ranks: int, seconds: float, seed: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Chunks with `seconds` of work for each rank.

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
        pieces = chunks.cut(token_Q, lambda q, s=subject_N: str(s[q]), LARGEST, SMALLEST)
        if len(pieces) >= CHUNKS * n_ranks:
            break
        n_questions *= 2
    expected_Q = chunks.expected_tokens(tokens_N, subject_N, np.arange(n_questions))
    cost_I = np.array([length_N[piece].sum() for piece in pieces])
    size_I = np.array([len(piece) for piece in pieces])
    return cost_I * seconds * n_ranks / cost_I.sum(), size_I, chunks.longest_first(pieces, token_Q, expected_Q)


def take_part(repeats: int, seconds: float) -> None:
    """Work as one rank. Root prints the figures."""
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
            waited += [wait for rank_waits in world.gather(waits) for wait in rank_waits]
        blocks_I = (np.cumsum(size_I) - size_I) * world.size // size_I.sum()  # as many questions for each rank
        idle_of["_static"].append(idle(cost_I, in_order % world.size))
        idle_of["_blocks"].append(idle(cost_I, blocks_I))
    if world.is_root:
        suffix = f"_{world.size}_ranks"
        figures = {f"idle_share{suffix}{way}": statistics.median(shares) for way, shares in idle_of.items()}
        figures |= {f"claim_ms_p{p}{suffix}": 1000 * float(np.percentile(waited, p)) for p in (50, 99)}
        figures[f"chunks{suffix}"] = len(cost_I)
        figures[f"chunk_ms_p50{suffix}"] = 1000 * float(np.median(cost_I))
        print(json.dumps(figures))


def idle(cost_I: np.ndarray, rank_I: np.ndarray) -> float:
    """Mean idle share of ranks that do the chunks of their number and then wait for the last one."""
    busy_W = np.bincount(rank_I, weights=cost_I)
    return 1 - float(busy_W.mean() / busy_W.max())


def timed(items: Iterable[int]) -> Iterator[tuple[float, int]]:
    """(seconds of waiting for it, item); the wait for the end is not counted."""
    waiting = time.perf_counter()
    for item in items:
        yield time.perf_counter() - waiting, item
        waiting = time.perf_counter()


def work(seconds: float, computes: bool) -> bool:
    """Sleep; or compute first, for a fifth of the time, in Python, while other threads wait for their turn."""
    until = time.perf_counter() + seconds
    while computes and time.perf_counter() < until - 0.8 * seconds:
        sum(range(1000))
    time.sleep(max(0.0, until - time.perf_counter()))
    return True


def show(figures: dict[str, float], ranks: Sequence[int]) -> None:
    print(f"{'idle share':12}{'chunks':>8}{'median':>10}" + "".join(f"{n:>15}" for n in WAYS.values()), end="")
    print(f"{'a claim: p50':>15}{'p99':>10}")
    for n in ranks:
        row = {name.replace(f"_{n}_ranks", ""): value for name, value in figures.items()}
        print(
            f"{f'{n} ranks':12}{row['chunks']:8,}{row['chunk_ms_p50']:7.0f} ms"
            + "".join(f"{100 * row[f'idle_share{way}']:13.1f} %" for way in WAYS)
            + f"{row['claim_ms_p50']:12.1f} ms{row['claim_ms_p99']:7.1f} ms"
        )
    good = all(figures[f"idle_share_{n}_ranks"] <= LIMIT for n in ranks)
    print(f"{'within' if good else 'NOT within'} {100 * LIMIT:.0f} % idle")


if __name__ == "__main__":
    sys.exit(main())
