"""Evaluate a policy on benchmarks, without a run: a Hugging Face folder, or a run, which stands for its newest policy.

    mpiexec -n 2 python -m mpi4py -m hpc_saidpo.evaluate policy.path=/models/Qwen2.5-Math-1.5B \\
        'evaluate.benchmarks=[math500,gsm8k]' evaluate.folder=/data/benchmarks

Everything else is as in `python -m hpc_saidpo`: configuration, exit codes, stop and resume. Its run folder is
runs/evaluate-POLICY, unless run.name says otherwise; further benchmarks are added to it.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re

from .. import config as configuration
from ..benchmarks import Benchmark
from ..command import Program, main
from ..job import Job
from ..parallel import World
from ..progress import log
from ..records import Rollouts, RunError
from ..store import RunDir
from . import percent, rows, text
from .settings import HELD_OUT

MAY_DIFFER = ("evaluate.benchmarks", "evaluate.folder")  # each benchmark has a stage of its own
MUCH_TRUNCATED = 0.1


def adapt(composed, is_named: bool) -> None:
    """A name for the run folder, and no pool where none is needed."""
    if not is_named:
        composed.run.name = f"evaluate-{name_of(composed.policy.get('path') or '')}"
    if HELD_OUT not in (composed.evaluate.benchmarks or ()) and not composed.rollouts.prompt.shots:
        composed.pool = None


def name_of(policy_path: str) -> str:
    """A policy's name for a folder: that of a run and its iteration, or of the model."""
    path = policy_path.rstrip("/")
    of_run = re.search(r"([^/]+)/(iter-\d+)/policy/model$", path)
    name = "-".join(of_run.groups()) if of_run else path.rpartition("/")[2].removesuffix(".gguf")
    return re.sub(r"[^\w.,=+-]+", "_", name) or "policy"


def run(config: configuration.Evaluation, plain: dict, world: World, store: RunDir) -> int:
    """Evaluate every benchmark, write evaluation.json and evaluation.md, show the latter."""
    if not config.evaluate.benchmarks:
        raise RunError(
            f"nothing to evaluate: set evaluate.benchmarks, for example [{','.join([*config.evaluate.known][:3])}], or "
            "files by their path"
        )
    job = Job.to_evaluate(config, world, store)
    found, notes = [], []
    for benchmark, graded in job.answer("base", job.first_policy()):
        found += world.on_root(functools.partial(figures, benchmark, graded, config.policy.path))
        notes += [*benchmark.notes(), *warnings(found, benchmark.name, config.rollouts.max_new_tokens)]
    table = text(config.policy.path, found, notes)
    if world.is_root:
        store.write_report({"evaluation.json": json.dumps(found, indent=1) + "\n", "evaluation.md": table})
        log.info("\n%s\n%s", table, store.path / "evaluation.md")
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
            f"{benchmark.name}: {benchmark.how.file or 'the pool'} has other questions than when it was evaluated: put "
            "the old ones back, or start another evaluation with run.name=..."
        )
    how = dataclasses.asdict(benchmark.how)
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


if __name__ == "__main__":
    main(Program(run, configuration.Evaluation, adapt, MAY_DIFFER))
