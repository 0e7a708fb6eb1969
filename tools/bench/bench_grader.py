#!/usr/bin/env python3
"""Measure the grader on real answers: how often it is right, and what it costs, beside math-verify.

    tools/bench/bench_grader.py --data FOLDER --quick
    tools/bench/bench_grader.py --data FOLDER --json bench.json
    tools/bench/bench_grader.py --verifierbench verifierbench.json --domain math

FOLDER holds JSON lines: benchmarks and pools in the format that the README describes (aime24, amc23, math500,
gsm8k_test, minerva_math, olympiadbench, gaokao2023en, college_math; pool_math_*, pool_gsm8k_*), hard cases
(grader_cases_dev.jsonl: prediction_text, gold, expected), and stored responses with verdicts
(rollouts_qwen_math100x8.jsonl). A missing file is left out.

What is counted: hard cases; the solution of a question against its own gold answer; every gold answer, boxed, against
itself; the solution of a question against another one's gold answer that is not the same text; 4,000 answers that are
no number ("undefined", 1/0, <, an empty bracket) against real gold answers, with each accepted one; stored verdicts.
--verifierbench FILE grades OpenCompass's VerifierBench instead (huggingface.co/datasets/opencompass/VerifierBench) and
prints F1 by its labels A (correct), B (incorrect) and C (invalid: a response without an answer). A pair
costs from extraction to verdict, on the clock, the grading process warm. math-verify 0.9 runs in this process on the
same pairs at its best setting (the gold answer as a formula, allow_set_relation_comp), with its own limit of 5 s.
--quick takes every tenth question of the pools and of the shuffled ones: under a minute.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import common

common.start("math_verify")

import grader_sets

from hpc_saidpo.grader.answers.exact import normalise
from hpc_saidpo.grader.answers.fast import decide
from hpc_saidpo.grader.grader import Grader
from hpc_saidpo.records import CORRECT, UNGRADABLE

BENCHMARKS = (
    "aime24", "amc23", "math500", "gsm8k_test", "minerva_math", "olympiadbench", "gaokao2023en", "college_math",
)  # fmt: skip
SHUFFLED = ("math500", "olympiadbench", "gaokao2023en", "minerva_math", "college_math")
INTEGERS = 200_000
Grade = Callable[[str, str, Sequence[str]], int]


class Timed:
    """A grader whose pairs are timed.

    Attributes:
        seconds: of each pair, on the clock.
    """

    def __init__(self, grade: Grade):
        self.grade = grade
        self.seconds: list[float] = []

    def __call__(self, response: str, gold: str, alternatives: Sequence[str] = ()) -> int:
        seconds, verdict = common.wall_s(lambda: self.grade(response, gold, alternatives))
        self.seconds.append(seconds)
        return verdict


def load(folder: Path, pattern: str) -> list[dict]:
    """The rows of all files of a name pattern."""
    lines = itertools.chain.from_iterable(p.read_text().split("\n") for p in sorted(folder.glob(pattern + ".jsonl")))
    return [json.loads(line) for line in lines if line.strip()]


def by_library() -> Grade:
    """math-verify at its best setting."""
    import math_verify

    def grade(response: str, gold: str, alternatives: Sequence[str] = ()) -> int:
        for one in (gold, *alternatives):
            plain = " ".join(one.replace("$", "").split()).rstrip(".")
            parsed = math_verify.parse(f"${plain}$"), math_verify.parse(response)
            if math_verify.verify(*parsed, allow_set_relation_comp=True):
                return CORRECT
        return 0

    return grade


def hard_cases(rows: Sequence[dict], grade: Timed) -> tuple[float, float]:
    """(accuracy, false accepts per case that is wrong) on cases with a known verdict."""
    accepted = [grade(r["prediction_text"], r["gold"]) == CORRECT for r in rows]
    wrong = [a for a, r in zip(accepted, rows, strict=True) if not r["expected"]]
    return statistics.fmean(a == r["expected"] for a, r in zip(accepted, rows, strict=True)), statistics.fmean(wrong)


def solutions(rows: Iterable[dict], grade: Timed) -> float:
    """Share of gold solutions that are correct by their gold answer."""
    rows = [r for r in rows if r.get("solution")]
    return statistics.fmean(grade(r["solution"], r["answer"], r.get("alt_answers") or ()) == CORRECT for r in rows)


def boxed(gold: str) -> str:
    inner = gold.strip().removeprefix("$").removesuffix("$") if gold.count("$") == 2 else gold
    return f"The answer is $\\boxed{{{' '.join(inner.split())}}}$."


def shuffled(rows: Sequence[dict], grade: Timed, seed: int = 0) -> list[bool]:
    """Whether each question's solution is accepted for another question's different answer."""
    rng, accepted = random.Random(seed), []
    for row in rows:
        other = rng.choice(rows)["answer"]
        if normalise(other) != normalise(row["answer"]):
            response = row["solution"] if "\\boxed" in row.get("solution", "") else boxed(row["answer"])
            accepted.append(grade(response, other) == CORRECT)
    return accepted


def junk(golds: Sequence[str], grade: Timed) -> list[tuple[str, str]]:
    """The pairs (gold answer, junk answer) that are accepted."""
    pairs = grader_sets.junk_pairs(golds)
    return [(gold, answer) for gold, answer in pairs if grade(f"\\boxed{{{answer}}}", gold) == CORRECT]


def integers_per_s(repeats: int) -> float:
    """Pairs of integers that are decided in a CPU-second; the median of the repeats."""
    rng = random.Random(0)
    pairs = [(str(rng.randrange(10**6)), str(rng.randrange(10**6))) for _ in range(INTEGERS)]

    def measure_rate(_: int) -> float:
        seconds, _ = common.cpu_s(lambda: [decide(gold, answer) for gold, answer in pairs])
        return INTEGERS / seconds

    return common.medians(common.in_turn({"ours": measure_rate}, repeats))["ours"]


def measure(folder: Path, every: int, grade: Timed) -> dict[str, float]:
    """All figures of one grader, by name."""
    figures: dict[str, float] = {}
    if cases := load(folder, "grader_cases_dev"):
        figures["dev_accuracy"], figures["dev_false_accept_rate"] = hard_cases(cases, grade)
        figures["dev_pairs_per_s"] = len(grade.seconds) / sum(grade.seconds)
    for name, pattern in (("math", "pool_math_*"), ("gsm8k", "pool_gsm8k_*")):
        if rows := load(folder, pattern)[::every]:
            figures[f"{name}_solution_rate"] = solutions(rows, grade)
    golds = {name: [r["answer"] for r in load(folder, name)] for name in BENCHMARKS}
    rates = {n: statistics.fmean(grade(boxed(g), g) == CORRECT for g in some) for n, some in golds.items() if some}
    figures |= {f"gold_self_rate_{name}": rate for name, rate in rates.items()}
    if rates:
        figures["gold_self_rate_min"] = min(rates.values())
    sets = [load(folder, "pool_math_*")[::every], *(load(folder, name)[::every] for name in SHUFFLED)]
    if accepted := [a for rows in sets if rows for a in shuffled(rows, grade)]:
        figures["shuffle_false_accept_rate"] = statistics.fmean(accepted)
    if every_gold := [gold for some in golds.values() for gold in some]:
        accepted_junk = junk(every_gold, Timed(grade.grade))  # not among the pairs whose time is shown
        figures["junk_accept_rate"] = len(accepted_junk) / grader_sets.JUNK_PAIRS
        for gold, answer in accepted_junk:
            print(f"accepted: {answer}  for the gold answer  {gold}")
    if stored := load(folder, "rollouts_*"):
        agreed = [
            (grade(text, r["answer"]) == CORRECT) == bool(score)
            for r in stored
            for text, score in zip(r["responses"], r["score"], strict=True)
        ]
        figures |= {"rollouts": len(agreed), "rollouts_agree": sum(agreed)}
    ordered = sorted(grade.seconds)
    return figures | {
        "pairs": len(ordered),
        "pairs_per_s": len(ordered) / sum(ordered),
        "p99_s": ordered[int(0.99 * len(ordered))],
        "worst_s": ordered[-1],
    }


def main() -> int:
    parser = common.parser(__doc__, "every tenth question", repeats=5, quick_repeats=5)
    parser.add_argument("--data", type=Path, help="folder of JSON lines")
    parser.add_argument("--verifierbench", type=Path, metavar="FILE", help="grade verifierbench.json, nothing else")
    parser.add_argument("--domain", default="", help="rows of VerifierBench of this domain only, as math")
    parser.add_argument(
        "--library", action="store_true", help="math-verify on everything (long), not on the cases only"
    )
    arguments = parser.parse_args()
    if arguments.verifierbench:
        return on_verifierbench(arguments)
    if not arguments.data or not any(arguments.data.glob("*.jsonl")):
        print(f"bench_grader: no JSON lines in {arguments.data}", file=sys.stderr)
        return 2
    every = 10 if arguments.quick else 1
    with Grader() as grader:
        grader.grade("\\boxed{\\int_0^1 x dx}", "\\frac{1}{2}")  # the process and its library
        judged: list[int] = []

        def grade(response: str, gold: str, alternatives: Sequence[str] = ()) -> int:
            judged.append(grader.grade(response, gold, alternatives).verdict)
            return judged[-1]

        figures = measure(arguments.data, every, Timed(grade))
        figures |= {"ungradable_rate": judged.count(UNGRADABLE) / len(judged), "restarts": grader.n_restarts}
    figures["fast_pairs_per_s"] = integers_per_s(common.repeats_of(arguments))
    peer = Timed(by_library())
    if arguments.library:
        theirs = measure(arguments.data, every, peer)
    else:
        theirs = {}
        if cases := load(arguments.data, "grader_cases_dev"):
            theirs = dict(zip(("dev_accuracy", "dev_false_accept_rate"), hard_cases(cases, peer), strict=True))
            theirs["dev_pairs_per_s"] = len(cases) / sum(peer.seconds)
    show(figures, theirs)
    common.write_figures(figures | {f"math_verify_{k}": v for k, v in theirs.items()}, arguments)
    return 0


def on_verifierbench(arguments: argparse.Namespace) -> int:
    try:
        rows = grader_sets.read_verifierbench(arguments.verifierbench, arguments.domain)
    except (OSError, ValueError) as error:
        print(f"bench_grader: {error}", file=sys.stderr)
        return 2
    if not rows:
        print(f"bench_grader: no rows of the domain {arguments.domain!r}", file=sys.stderr)
        return 2
    with Grader() as grader:
        figures = grader_sets.verifierbench(rows, lambda response, gold: grader.grade(response, gold).verdict)
    common.show_figures(figures | {"verifierbench_rows": len(rows)})
    common.write_figures(figures, arguments, "bench_grader-verifierbench")
    return 0


def show(figures: dict[str, float], theirs: dict[str, float]) -> None:
    def text(name: str, value: float | None) -> str:
        if value is None:
            return "-"
        return f"{100 * value:.3f} %" if "rate" in name or "accuracy" in name else f"{value:,.4g}"

    print(f"{'':32s} {'hpc_saidpo':>14s} {'math-verify':>14s}")
    for name, value in figures.items():
        print(f"{name:32s} {text(name, value):>14s} {text(name, theirs.get(name)):>14s}")


if __name__ == "__main__":
    sys.exit(main())
