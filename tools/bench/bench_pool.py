#!/usr/bin/env python3
"""Measure the loading of a large pool: seconds, and memory of every rank.

    tools/bench/bench_pool.py --quick
    tools/bench/bench_pool.py --json bench.json
    tools/bench/bench_pool.py --contamination --data DIR --json bench.json

Makes 1,000,000 questions as JSON lines (about 0.9 GB, beside 0.4 GB of what is loaded; TMPDIR says where, and they are
removed afterwards), then loads them the way a run does, on 2 MPI ranks: first from the file, checked and compared with
a benchmark of 5,000 questions; then, by new processes, as a second run finds them. Each time every rank goes through
the knowledge points of all questions, and reads 1,000 random ones. Seconds count from when the ranks are connected,
CPU seconds are those of all ranks together; memory is each process's peak, imports included. --quick takes 100,000
questions: half a minute.

--contamination measures the filter instead, with your copies of MATH500 (DIR/math500.jsonl) and of other MATH questions
(DIR/pool_math*.jsonl), as JSON lines with `question`: MATH500 in eight rewritings (tools/bench/rewritings.py) is a pool
of which every question should be found, and 500 other questions, in the same rewritings, are false hits where they are
found. MATH500 with other numbers is reported, as another class. Ten seconds.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import common
import rewritings

common.start("mpi4py")

import numpy as np

from hpc_saidpo import records
from hpc_saidpo.cli import compose
from hpc_saidpo.evaluate import benchmarks
from hpc_saidpo.parallel.launch import connect
from hpc_saidpo.pool.decontaminate import LEAKS, NUMBERS, Filter
from hpc_saidpo.pool.stage import load_pool
from hpc_saidpo.settings.pool import compared_benchmarks
from hpc_saidpo.store.run import RunDir
from hpc_saidpo.tags.column import read_points

BENCHMARK = 5000  # questions
LEAKED = 100  # of them are in the pool
SAMPLE = 1000
LIMIT_S, LIMIT_GIB = 60, 4
UNRELATED = 500  # questions
LEAST_CAUGHT, MOST_FALSE = 490, 3
SUBJECTS = ("algebra", "geometry", "number theory", "combinatorics", "probability", "calculus", "precalculus")


def main() -> int:
    parser = common.parser(__doc__, "100,000 questions")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--contamination", action="store_true", help="measure the filter, with the questions in --data")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of math500.jsonl and pool_math*.jsonl")
    parser.add_argument("--rank-of", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank_of:
        load(arguments.rank_of)
        return 0
    if arguments.contamination:
        if not arguments.data:
            parser.error("--contamination needs --data")
        figures = contamination(arguments.data)
        common.write_figures(figures, arguments, "bench_pool-contamination")
        return 0
    n = 100_000 if arguments.quick else 1_000_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begin = time.perf_counter()
        write(folder, n)
        size = (folder / "pool.jsonl").stat().st_size
        print(f"{n:,} questions, {size / 1e9:.2f} GB, made in {time.perf_counter() - begin:.0f} s", flush=True)
        figures: dict[str, float] = {"questions": n, "bytes": size, "ranks": arguments.ranks}
        for label in ("first", "again"):
            figures |= {f"{label}_{key}": value for key, value in run(folder, arguments.ranks).items()}
        figures["stored_bytes"] = sum(p.stat().st_size for p in folder.rglob("*.h5"))
    show(figures, arguments.ranks)
    common.write_figures(figures, arguments)
    return 0


def contamination(data: Path) -> dict[str, float]:
    """Rewritten copies of MATH500 that the filter finds, and other questions that it takes for one. Prints both."""
    known = [(row["id"], row["question"]) for row in read(data / "math500.jsonl")]
    others = [row["question"] for path in sorted(data.glob("pool_math*.jsonl")) for row in read(path)]
    others = random.Random(0).sample(others, UNRELATED)
    known_filter = Filter({"math500": known})
    figures: dict[str, float] = {}
    false_hits: dict[int, int] = {}
    print(f"{'rewriting':34}{'caught':>8}" + "".join(f"{kind:>11}" for kind in LEAKS))
    for name, rewrite in rewritings.REWRITINGS.items():
        matches = known_filter.match([rewrite(text) for _, text in known])
        caught = [match.kind for i, match in enumerate(matches) if match and match.number == i]
        figures[f"caught_{'_'.join(name.replace(',', '').split())}"] = len(caught)
        print(f"{name:34}{len(caught):8}" + "".join(f"{caught.count(kind):11}" for kind in LEAKS))
        for i, match in enumerate(known_filter.match([rewrite(text) for text in others])):
            if match:
                false_hits[i] = match.number
    figures |= {"caught_min_of_8": min(figures.values()), "false_hits": len(false_hits)}
    changed = [(text, rewritings.other_numbers(text, i)) for i, (_, text) in enumerate(known)]
    changed = [new for text, new in changed if new != text]
    kinds = [match.kind if match else "" for match in known_filter.compare(changed)]
    figures |= {"other_numbers": len(changed), "other_numbers_reported": kinds.count(NUMBERS)}
    figures["other_numbers_taken_for_leaks"] = sum(kind in LEAKS for kind in kinds)
    for i, number in false_hits.items():
        print(f"false hit: {others[i][:200]!r}\n   taken for {known[number][1][:200]!r}")
    print(f"{len(false_hits)} false hits among {UNRELATED} other questions")
    print("with other numbers: {other_numbers}; reported as such {other_numbers_reported}, ".format(**figures), end="")
    print("taken for leaks {other_numbers_taken_for_leaks}".format(**figures))
    good = figures["caught_min_of_8"] >= LEAST_CAUGHT and len(false_hits) <= MOST_FALSE
    print(f"{'within' if good else 'NOT within'} {LEAST_CAUGHT} caught in each, and {MOST_FALSE} false hits")
    return figures


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def questions(n: int, seed: int) -> Iterator[dict]:
    """Texts of the lengths of real pools: sentences of a fixed stock, with numbers of their own."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("etaoinshrdlucmfwypvbgk"), rng.integers(2, 9))) for _ in range(3000)]
    frequency = 1 / np.arange(1, len(words) + 1)
    rng = np.random.default_rng(seed)
    drawn = rng.choice(words, (4000, 24), p=frequency / frequency.sum())
    sentences = [" ".join(row).capitalize() for row in drawn]
    tags = [f"{SUBJECTS[i % len(SUBJECTS)]} topic {i}" for i in range(300)]
    for i in range(n):
        a, b, c, d, e, f = rng.integers(0, len(sentences), 6).tolist()
        yield {
            "id": f"{seed}-{i}",
            "question": f"{sentences[a]}, where $x = \\frac{{{i}}}{{{c + 2}}}$. {sentences[d]}: find ${a}x^2 - {i}$.",
            "answer": str(a),
            "solution": f"{sentences[e]}.\n\n{sentences[f]}, so $x = {a}$.\n\n{sentences[b]}: $\\boxed{{{a}}}$.",
            "subject": SUBJECTS[a % len(SUBJECTS)],
            "level": f"Level {b % 5 + 1}",
            "tags": [tags[a % 300], tags[c % 300]],
            "source": "made",
        }


def write(folder: Path, n: int) -> None:
    """A pool of n questions without duplicates, and a benchmark some of whose questions are in it."""
    benchmark = list(questions(BENCHMARK, seed=1))
    with open(folder / "pool.jsonl", "w", encoding="utf-8") as file:
        for i, row in enumerate(questions(n, seed=0)):
            if i % (n // LEAKED) == 0:
                benchmark[i // (n // LEAKED)]["question"] = row["question"].upper()
            file.write(json.dumps(row) + "\n")
    (folder / "benchmark.jsonl").write_text("".join(json.dumps(row) + "\n" for row in benchmark), encoding="utf-8")


def run(folder: Path, n_ranks: int) -> dict[str, float]:
    """Load on new ranks. Returns the figures that root printed."""
    seconds, printed = common.wall_s(lambda: common.on_ranks(__file__, n_ranks, "--rank-of", folder))
    return {**json.loads(printed), "whole_s": seconds}


def load(folder: Path) -> None:
    """Load the pool as one rank. Root prints the figures."""
    world = connect()
    words = (f"pool.path={folder}/pool.jsonl", f"evaluate.benchmarks=[{folder}/benchmark.jsonl]", "policy.path=none")
    settings = compose.from_overrides([*words, f"run.root={folder}"])
    imports = common.memory_gib()
    with RunDir.open(settings.run, {"run": {"name": "bench"}}, {}, world) as runs:
        begin, begin_cpu = time.perf_counter(), time.process_time()
        compared = compared_benchmarks(settings.pool)
        pool = load_pool(settings.pool, runs, world.on_root(lambda: benchmarks.read(settings.evaluate, compared)))
        load_cpu_s = time.process_time() - begin_cpu
        world.barrier()
        load_s = time.perf_counter() - begin
        points = read_points(pool.questions)
        world.barrier()
        points_s = time.perf_counter() - begin - load_s
        picked = records.pick(pool.questions, np.random.default_rng(0).choice(len(points), SAMPLE, replace=False))
        sample_s = time.perf_counter() - begin - load_s - points_s
    peaks, everyones_imports, cpu_s = world.gather(common.memory_gib()), world.gather(imports), world.gather(load_cpu_s)
    if world.is_root:
        figures = {
            "kept": len(pool.questions),
            "load_cpu_s": sum(cpu_s),
            "load_s": load_s,
            "points_s": points_s,
            "sample_s": sample_s,
        }
        figures |= {f"rank{rank}_cpu_s": seconds for rank, seconds in enumerate(cpu_s)}
        figures |= {f"rank{rank}_peak_gib": peak for rank, peak in enumerate(peaks)}
        figures |= {"imports_gib": max(everyones_imports), "peak_gib": sum(peaks), "picked": len(picked)}
        print(json.dumps(figures))


def show(figures: dict[str, float], n_ranks: int) -> None:
    ranks = range(n_ranks)
    print(
        f"{'':28}{'seconds':>10}{'CPU-s':>10}{'points':>10}{'sample':>10}"
        + "".join(f"{f'rank {r}':>12}" for r in ranks)
        + f"{'sum':>12}"
    )
    for label, name in (("first", "from the file"), ("again", "loaded before")):
        seconds = "".join(f"{figures[f'{label}_{key}_s']:10.1f}" for key in ("load", "load_cpu", "points", "sample"))
        peaks = [figures[f"{label}_rank{r}_peak_gib"] for r in ranks] + [figures[f"{label}_peak_gib"]]
        print(f"{name:28}{seconds}" + "".join(f"{peak:8.2f} GiB" for peak in peaks))
    removed = figures["questions"] - figures["first_kept"]
    imports = figures["first_imports_gib"]
    print(f"{removed:.0f} questions left out, {LEAKED} of them are in the benchmark")
    print(f"imports are {imports:.2f} GiB of each rank")
    good = figures["first_load_s"] < LIMIT_S and figures["first_peak_gib"] < LIMIT_GIB and removed >= LEAKED
    print(f"{'within' if good else 'NOT within'} {LIMIT_S} s and {LIMIT_GIB} GiB")


if __name__ == "__main__":
    sys.exit(main())
