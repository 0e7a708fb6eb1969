"""An evaluation as a program's work: evaluate, write evaluation.json and evaluation.md, show the latter."""

from __future__ import annotations

import dataclasses
import functools
import json

from ..errors import RunError
from ..evaluate.benchmarks import Benchmark
from ..evaluate.score import rows
from ..evaluate.table import percent, text
from ..progress import log
from ..records import Rollouts
from ..settings.whole import Evaluation
from ..stages import prepare_evaluation
from ..store.run import RunDir

MUCH_TRUNCATED = 0.1


def work(settings: Evaluation, plain: dict, run: RunDir) -> int:
    """Evaluate every benchmark and write the results into the run folder. Returns 0. Collective."""
    if not settings.evaluate.benchmarks:
        known = ",".join([*settings.evaluate.known][:3])
        raise RunError(f"nothing to evaluate: set evaluate.benchmarks, for example [{known}], or files by their path")
    found, notes = [], []
    for benchmark, graded in prepare_evaluation(settings, run).answers():
        found += run.world.on_root(functools.partial(figures, benchmark, graded, settings.policy.path))
        notes += [*benchmark.notes(), *warnings(found, benchmark.name, settings.rollouts.max_new_tokens)]
    table = text(settings.policy.path, found, notes)
    if run.world.is_root:
        run.write_report({"evaluation.json": json.dumps(found, indent=1) + "\n", "evaluation.md": table})
        log.info("\n%s\n%s", table, run.path / "evaluation.md")
    return 0


def figures(benchmark: Benchmark, graded: Rollouts, policy_path: str) -> list[dict]:
    """The rows of evaluation.json for a benchmark.

    Raises:
        RunError: the rollouts were made of other questions than the file has now.
    """
    ids = [question.id for question in benchmark.questions]
    if sorted({*graded.question_R.tolist()}) != [*range(len(ids))] or any(
        name != ids[q] for name, q in zip(graded.id_R, graded.question_R, strict=True)
    ):
        raise RunError(
            f"{benchmark.name}: {benchmark.plan.file or 'the pool'} has other questions than when it was evaluated: put "
            "the old ones back, or start another evaluation with run.name=..."
        )
    how = dataclasses.asdict(benchmark.plan)
    told = {key: how[key] for key in ("temperature", "top_p")}
    return [
        {"policy": policy_path, "benchmark": benchmark.name, **told, **row} for row in rows(graded, benchmark.questions)
    ]


def warnings(rows: list[dict], benchmark: str, max_new_tokens: int) -> list[str]:
    """What in the figures of a benchmark is the set-up's doing rather than the policy's."""
    truncated = next(row["truncated"] for row in rows if row["benchmark"] == benchmark)
    if truncated <= MUCH_TRUNCATED:
        return []
    told = f"{benchmark}: {percent(truncated)} of the responses were cut at rollouts.max_new_tokens={max_new_tokens}"
    return [f"{told}: raise it, or see whether the policy ends its responses (rollouts.prompt, rollouts.stop)"]
