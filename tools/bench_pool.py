#!/usr/bin/env python3
"""Measure the loading of a large pool: seconds, and memory of every rank.

    python tools/bench_pool.py --quick
    python tools/bench_pool.py --json bench.json

Makes 1,000,000 questions as JSON lines (about 0.9 GB, beside 0.4 GB of what is loaded; TMPDIR says where, and they are
removed afterwards), then loads them the way a run does, on 2 MPI ranks: first from the file, checked and compared with
a benchmark of 5,000 questions; then, by new processes, as a second run finds them. Each time every rank goes through
the knowledge points of all questions, and reads 1,000 random ones. Seconds count from when the ranks are connected,
CPU seconds are those of all ranks together; memory is each process's peak, imports included. --quick takes 100,000
questions: half a minute.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hpc_saidpo import records
from hpc_saidpo.cli import compose
from hpc_saidpo.evaluate import benchmarks
from hpc_saidpo.parallel.launch import connect
from hpc_saidpo.pool import stage
from hpc_saidpo.store.run import RunDir
from hpc_saidpo.tags.column import read_points

HOME = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(HOME))

BENCHMARK = 5000  # questions
LEAKED = 100  # of them are in the pool
SAMPLE = 1000
LIMIT_S, LIMIT_GIB = 60, 4
SUBJECTS = ("algebra", "geometry", "number theory", "combinatorics", "probability", "calculus", "precalculus")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="100,000 questions")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the figures to this file too, as one flat object")
    parser.add_argument("--rank-of", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.rank_of:
        load(asked.rank_of)
        return
    n = 100_000 if asked.quick else 1_000_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begin = time.perf_counter()
        write(folder, n)
        size = (folder / "pool.jsonl").stat().st_size
        print(f"{n:,} questions, {size / 1e9:.2f} GB, made in {time.perf_counter() - begin:.0f} s", flush=True)
        figures = {"questions": n, "bytes": size, "ranks": asked.ranks}
        for label in ("first", "again"):
            figures |= {f"{label}_{key}": value for key, value in run(folder, asked.ranks).items()}
        figures["stored_bytes"] = sum(p.stat().st_size for p in folder.rglob("*.h5"))
    show(figures)
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=1) + "\n")


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


def run(folder: Path, n_ranks: int) -> dict:
    """Load on new ranks; what root printed."""
    launcher = Path(sys.executable).parent / "mpiexec"
    line = [launcher if launcher.exists() else "mpiexec", "-n", n_ranks, sys.executable, "-m", "mpi4py", __file__]
    # As the program does: a rank that waits leaves its core to one that computes.
    env = {**os.environ, "MPIR_CVAR_ENABLE_HEAVY_YIELD": "1", "OMP_NUM_THREADS": "1"}
    begin = time.perf_counter()
    done = subprocess.run(list(map(str, [*line, "--rank-of", folder])), capture_output=True, text=True, env=env)
    if done.returncode != 0:
        sys.exit(f"the ranks failed:\n{done.stdout}{done.stderr}")
    return {**json.loads(done.stdout.splitlines()[-1]), "whole_s": time.perf_counter() - begin}


def load(folder: Path) -> None:
    """What a rank does; root prints the figures."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")

    world = connect()
    given = (f"pool.path={folder}/pool.jsonl", f"evaluate.benchmarks=[{folder}/benchmark.jsonl]", "policy.path=none")
    settings = compose.from_overrides([*given, f"run.root={folder}"])
    imports = peak_gib()
    with RunDir.open(settings.run, {"run": {"name": "bench"}}, {}, world) as runs:
        begin, begin_cpu = time.perf_counter(), time.process_time()
        pool = stage.load_pool(settings, runs, world.on_root(lambda: benchmarks.read(settings)))
        load_cpu_s = time.process_time() - begin_cpu
        world.barrier()
        load_s = time.perf_counter() - begin
        points = read_points(pool.questions)
        world.barrier()
        points_s = time.perf_counter() - begin - load_s
        picked = records.pick(pool.questions, np.random.default_rng(0).choice(len(points), SAMPLE, replace=False))
        sample_s = time.perf_counter() - begin - load_s - points_s
    peaks, everyones_imports, cpu_s = world.gather(peak_gib()), world.gather(imports), world.gather(load_cpu_s)
    if world.is_root:
        figures = {
            "kept": len(pool.questions),
            "load_cpu_s": sum(cpu_s),
            "load_s": load_s,
            "points_s": points_s,
            "sample_s": sample_s,
        }
        figures |= {f"rank{rank}_cpu_s": own for rank, own in enumerate(cpu_s)}
        figures |= {f"rank{rank}_peak_gib": peak for rank, peak in enumerate(peaks)}
        figures |= {"imports_gib": max(everyones_imports), "peak_gib": sum(peaks), "picked": len(picked)}
        print(json.dumps(figures))


def peak_gib() -> float:
    """Of this process's memory, so far."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 2**20


def show(figures: dict) -> None:
    ranks = range(figures["ranks"])
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
    print(f"{removed} questions left out, {LEAKED} are the benchmark's own; imports are {imports:.2f} GiB of each rank")
    good = figures["first_load_s"] < LIMIT_S and figures["first_peak_gib"] < LIMIT_GIB and removed >= LEAKED
    print(f"{'within' if good else 'NOT within'} {LIMIT_S} s and {LIMIT_GIB} GiB")


if __name__ == "__main__":
    main()
