#!/usr/bin/env python3
"""Measure a run on a large pool, and simulate it on many ranks.

    tools/bench/bench_scale.py --quick
    tools/bench/bench_scale.py --json bench.json

**A million questions.** Remainders with solutions and knowledge points as JSON lines (0.5 GB, beside 0.3 GB of what
is loaded; TMPDIR says where, and they are removed afterwards). A run of one iteration reads them on 2 MPI ranks of one
thread each, with the shipped micro model; then the same command starts again. Shown are seconds since the start of the
processes, and the private memory of each rank (RssAnon), its peak in each stage. `gib_per_million_per_rank` is the
growth of these peaks from a run on a fifth of the questions, that of the stage with the largest growth, on the other
ranks than root; `gib_per_million_root` the same on root.

**1,000 ranks that claim 1,000,000 questions**, as a discrete-event simulation with `chunks.cut` and
`chunks.longest_first`. How long root takes to answer, and how long a rank waits, are measured first, on real MPI ranks
on this machine. A question's length is lognormal within its cluster; half of the questions were seen before, give or
take 30 %. A chunk takes 40 s on average. `idle_share_1000_ranks` is the share of the ranks' time without work,
`dispatcher_load_1000_ranks` the share of root's time that it spends on answers.

`files_per_iteration` counts the files of a finished iteration; `files_explore_peak` those that exploration of all
questions makes before they become shards.

--quick: 300,000 questions, 6 minutes.
"""

from __future__ import annotations

import argparse
import heapq
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import common

common.start("mpi4py")

import numpy as np

from hpc_saidpo.cli.main import main as program
from hpc_saidpo.parallel.launch import connect
from hpc_saidpo.rollouts import chunks
from hpc_saidpo.store.life import Life
from hpc_saidpo.store.stage import SHARD_ROWS

LIMITS = {"gib_per_million_per_rank": 0.15, "idle_share_1000_ranks": 0.05, "dispatcher_load_1000_ranks": 0.5}
RANKS = 2
TOPICS = 1000
SAMPLE_S = 0.02  # between two looks at a rank's memory
WORDS = (
    "experiment=tiny", "pool=jsonl", "pool.held_out=100", "loop.iterations=1", "run.threads=1", "rollouts.k=4",
    "sampler.n_questions=1000", "probe.stratified=false",
)  # fmt: skip
N_RANKS, QUESTIONS = 1000, 1_000_000  # of the simulation
LARGEST, SMALLEST = 64, 8  # questions of a chunk, as in conf/rollouts/default.yaml
CHUNK_S = 40.0
CLUSTERS, SEEN, NOISE, SPREAD = 150, 0.5, 0.3, 0.6
CLAIMS = 10_000


def main() -> int:
    parser = common.parser(__doc__, "300,000 questions")
    parser.add_argument("--part", choices=("pool", "ranks"), help="measure the large pool alone, or simulate alone")
    parser.add_argument("--rank-of", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank_of == ["claims"]:
        measure_claims()
        return 0
    if arguments.rank_of:
        return take_part(arguments.rank_of)
    n = 300_000 if arguments.quick else 1_000_000
    figures: dict[str, float] = {}
    if arguments.part != "ranks":
        with tempfile.TemporaryDirectory() as name:
            figures |= {"questions": n, **large_pool(Path(name), n)}
    if arguments.part != "pool":
        claims = json.loads(common.on_ranks(__file__, 4, "--rank-of", "claims"))
        figures |= {f"claim_{key}": value for key, value in claims.items() if key != "waits_ms"}
        figures |= simulate(claims)
    common.show_figures(figures)
    good = all(figures[name] <= limit for name, limit in LIMITS.items() if name in figures)
    print(f"{'within' if good else 'NOT within'} {LIMITS}")
    common.write_figures(figures, arguments)
    return 0


def rows(n: int) -> Iterator[dict]:
    """Remainders of numbers under 100,000 in a mixed order. The micro model guesses some of them."""
    for i in np.random.default_rng(0).permutation(1_000_000)[:n].tolist():
        a, b = divmod(i, 10)
        b += 2
        yield {
            "id": f"remainder-{i}",
            "question": f"{a} mod {b}",
            "answer": str(a % b),
            "solution": f"The remainder of {a} divided by {b} is to be found. " * 5 + f"#### {a % b}",
            "subject": "remainders",
            "tags": ["remainders", f"numbers of kind {i % TOPICS}"],
            "source": "made",
        }


def large_pool(folder: Path, n: int) -> dict[str, float]:
    """The figures of a first run and a restart on n questions, and of a run on a fifth of them."""
    seen = {}
    for name, size in (("small", n // 5), ("large", n)):
        with open(folder / f"{name}.jsonl", "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows(size))
        words = [f"pool.path={folder}/{name}.jsonl", f"run.root={folder}/{name}", "run.name=run"]
        words.append(f"probe.fraction={1000 / size}")
        seen[name] = json.loads(common.on_ranks(__file__, RANKS, "--rank-of", *WORDS, *words))
    again = json.loads(common.on_ranks(__file__, RANKS, "--rank-of", *WORDS, *words))
    show_memory(seen["small"]["memory_gib"], seen["large"]["memory_gib"], again["memory_gib"])
    millions = (n - n // 5) / 1e6

    def growth(rank: int) -> float:
        small, large = (seen[name]["memory_gib"][rank] for name in ("small", "large"))
        return max(large[place] - small[place] for place in small.keys() & large.keys()) / millions

    run = folder / "large" / "run"
    return {
        "million_prepare_s": seen["large"]["prepare_s"],
        "million_run_s": seen["large"]["whole_s"],
        "million_restart_s": again["prepare_s"],
        "gib_per_million_per_rank": max(growth(rank) for rank in range(1, RANKS)),
        "gib_per_million_root": growth(0),
        "files_per_iteration": sum(path.is_file() for path in (run / "iter-000").rglob("*")),
        "files_of_the_run": sum(path.is_file() for path in run.rglob("*")),
        "files_shared": sum(path.is_file() for path in (folder / "large" / ".shared").rglob("*")),
    }


class Memory(threading.Thread):
    """Peaks of this process's private memory, by stage."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak_gib: dict[str, float] = {}
        self.place = "start"
        self.start()

    def run(self) -> None:
        while True:
            used = common.memory_gib("RssAnon")
            self.peak_gib[self.place] = max(used, self.peak_gib.get(self.place, 0.0))
            time.sleep(SAMPLE_S)


def take_part(words: Sequence[str]) -> int:
    """Be one rank of the program. Root prints the figures of all ranks as the last line."""
    begin, memory, ready_s = time.perf_counter(), Memory(), []
    working = Life.working

    def watched(self: Life, place: str):
        memory.place = place
        if place.startswith("base") and not ready_s:
            ready_s.append(time.perf_counter() - begin)
        return working(self, place)

    Life.working = watched
    code = program(words)
    whole_s, world = time.perf_counter() - begin, connect()
    peaks = world.gather(memory.peak_gib)
    if world.is_root:
        print(json.dumps({"prepare_s": ready_s[0], "whole_s": whole_s, "memory_gib": peaks}))
    return code


def show_memory(*runs: list[dict[str, float]]) -> None:
    print(f"{'private memory, GiB':28}{'a fifth':>{9 * RANKS}}{'all':>{9 * RANKS}}{'restart':>{9 * RANKS}}")
    print(f"{'':28}" + "".join(f"{f'rank {r}':>9}" for _ in runs for r in range(RANKS)))
    for place in runs[1][0]:
        print(f"{place:28}" + "".join(f"{peaks.get(place, float('nan')):9.3f}" for run in runs for peaks in run))


def measure_claims() -> None:
    """Claim items without work, then items of 20 ms, on real ranks. Root prints what an answer takes, and a wait.

    An answer takes less where more ranks wait at once: root sends all their answers in one look at its messages.
    """
    world = connect()
    for _ in world.claim(2 * world.size):  # MPI connects two ranks when they first talk
        time.sleep(0.1)
    world.barrier()

    def claim_all() -> None:
        for _ in world.claim(CLAIMS):  # root works, so that its thread answers the other ranks
            time.sleep(1.0 if world.is_root else 0)

    seconds, _ = common.wall_s(claim_all)
    waits, waiting = [], time.perf_counter()
    for _ in world.claim(50 * world.size):
        waits.append(time.perf_counter() - waiting)
        time.sleep(0.02)
        waiting = time.perf_counter()
    every = [1000 * wait for of_rank in world.gather(waits)[1:] for wait in of_rank[1:]]
    if world.is_root:
        p50, p99 = np.percentile(every, (50, 99))
        print(
            json.dumps(
                {"answer_ms": 1000 * seconds / CLAIMS, "wait_ms_p50": p50, "wait_ms_p99": p99, "waits_ms": every}
            )
        )


def simulate(claims: dict) -> dict[str, float]:
    """N_RANKS ranks claim QUESTIONS questions. Each answer takes root some time, and each rank waits for its own."""
    rng = np.random.default_rng(0)
    cluster_N = rng.integers(0, CLUSTERS, QUESTIONS)
    typical_C = rng.lognormal(6.0, SPREAD, CLUSTERS)
    length_N = typical_C[cluster_N] * rng.lognormal(0, SPREAD, QUESTIONS)
    seen_N = np.where(rng.random(QUESTIONS) < SEEN, length_N * rng.lognormal(0, NOISE, QUESTIONS), np.nan)
    token_Q = {q: range(n) for q, n in enumerate(rng.integers(50, 200, QUESTIONS).tolist())}
    pieces = chunks.cut(token_Q, lambda q: "", LARGEST, SMALLEST)
    expected_Q = chunks.expected_tokens(seen_N, cluster_N, np.arange(QUESTIONS))
    order = chunks.longest_first(pieces, token_Q, expected_Q)
    cost_I = np.array([length_N[pieces[i]].sum() for i in order])
    cost_I *= CHUNK_S / cost_I.mean()
    idle, load = idle_share(cost_I, claims["answer_ms"] / 1000, np.array(claims["waits_ms"]) / 1000, rng)
    rows_per_chunk = statistics.mean(map(len, pieces)) * 8
    return {
        "chunks_1000_ranks": len(pieces),
        "idle_share_1000_ranks": idle,
        "dispatcher_load_1000_ranks": load,
        "claims_per_s_1000_ranks": load / (claims["answer_ms"] / 1000),
        "files_explore_peak": len(pieces),
        "files_explore_shards": -(-len(pieces) // max(1, int(SHARD_ROWS / rows_per_chunk))),
    }


def idle_share(
    cost_I: np.ndarray, answer_s: float, wait_S: np.ndarray, rng: np.random.Generator
) -> tuple[float, float]:
    """(idle share of the ranks, share of the time in which root answers), from the first start to the last end.

    Args:
        cost_I: seconds of each chunk, in the order of the claims.
        answer_s: time that root takes for one answer.
        wait_S: sample of waits of a rank whose request meets no other one.
    """
    free = [(cost, rank) for rank, cost in enumerate(cost_I[:N_RANKS].tolist())]
    heapq.heapify(free)
    wait_I = rng.choice(wait_S, len(cost_I))
    root_free_s = 0.0
    for cost, wait in zip(cost_I[N_RANKS:].tolist(), wait_I.tolist(), strict=False):
        now, rank = heapq.heappop(free)
        root_free_s = max(now, root_free_s) + answer_s
        heapq.heappush(free, (max(root_free_s, now + wait) + cost, rank))
    span_s = max(end for end, _ in free)
    return 1 - float(cost_I.sum()) / (N_RANKS * span_s), (len(cost_I) - N_RANKS) * answer_s / span_s


if __name__ == "__main__":
    sys.exit(main())
