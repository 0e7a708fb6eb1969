"""The work of the verb `evaluate`: evaluate, write evaluation.json and evaluation.md, show the latter."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from ..errors import RunError
from ..evaluate.benchmarks import Benchmark
from ..evaluate.score import rows
from ..evaluate.table import percent, text
from ..policy.stage import model_folder
from ..prepare import prepare_evaluation
from ..progress import log_lines
from ..reading import parse_json, read_text
from ..records import Rollouts
from ..settings.whole import Evaluation
from ..stages import Stages
from ..store.run import RunDir
from ..store.software import differences, read_starts

MUCH_TRUNCATED = 0.1  # share of cut responses above which a warning is shown


def work(settings: Evaluation, plain: dict[str, Any], run: RunDir) -> int:
    """Evaluate every benchmark and write the results into the run folder. Returns 0. Collective.

    Raises:
        RunError: there is no benchmark, an input is missing, or a benchmark's questions have changed.
    """
    if not settings.evaluate.benchmarks:
        known = ",".join([*settings.evaluate.known][:3])
        raise RunError(f"nothing to evaluate: set evaluate.benchmarks, for example [{known}], or files by their path")
    ready = prepare_evaluation(settings, run)
    policy = model_folder(settings.policy.path, run)
    results, notes = [], []
    for benchmark, graded in Stages(settings, run, ready.pool, ready.benchmarks, "base", policy).answers():
        results += run.world.on_root(functools.partial(figures, benchmark, graded, settings.policy.path))
        notes += [*benchmark.notes(), *warnings(results, benchmark.name, settings.rollouts.max_new_tokens)]
    notes += run.world.on_root(lambda: other_software(run.path, {row["benchmark"] for row in results}))
    table = text(settings.policy.path, results, notes)
    if run.world.is_root:
        run.write_report({"evaluation.json": json.dumps(results, indent=1) + "\n", "evaluation.md": table})
        log_lines(f"\n{table}\n{run.path / 'evaluation.md'}")
    return 0


def figures(benchmark: Benchmark, graded: Rollouts, policy_path: str) -> list[dict[str, Any]]:
    """Return the rows of evaluation.json for a benchmark.

    Raises:
        RunError: the file has other questions now than when the rollouts were made.
    """
    ids = [question.id for question in benchmark.questions]
    if sorted({*graded.question_R.tolist()}) != [*range(len(ids))] or any(
        name != ids[q] for name, q in zip(graded.id_R, graded.question_R, strict=True)
    ):
        raise RunError(
            f"{benchmark.name}: {benchmark.plan.file or 'the pool'} has other questions than when it was evaluated: "
            "restore the old ones, or start another evaluation with run.name=..."
        )
    plan = benchmark.plan
    facts = {"policy": policy_path, "benchmark": benchmark.name, "temperature": plan.temperature, "top_p": plan.top_p}
    return [{**facts, **row} for row in rows(graded, benchmark.questions)]


def other_software(run: Path, benchmarks: set[str]) -> list[str]:
    """Return a line for all software that differs between this evaluation and others under the same root.

    Only evaluations with a common benchmark count: figures of the others are not compared with this one's.
    """
    starts = {run.name: read_starts(run)}
    for file in sorted(run.parent.glob("[!.]*/evaluation.json")):
        try:
            known = {str(row["benchmark"]) for row in parse_json(read_text(file))}
        except (OSError, ValueError, LookupError, TypeError):  # of another program, or being written
            continue
        if known & benchmarks:
            starts[file.parent.name] = read_starts(file.parent)
    return [f"compared with the evaluations beside it, {line}" for line in differences(starts)]


def warnings(rows: list[dict[str, Any]], benchmark: str, max_new_tokens: int) -> list[str]:
    """Return warnings about figures of a benchmark that show the set-up rather than the policy."""
    truncated = next(row["truncated"] for row in rows if row["benchmark"] == benchmark)
    if truncated <= MUCH_TRUNCATED:
        return []
    return [
        f"{benchmark}: {percent(truncated)} of the responses were cut at rollouts.max_new_tokens={max_new_tokens}: "
        "raise it, or check whether the policy ends its responses (rollouts.prompt, rollouts.stop)"
    ]
