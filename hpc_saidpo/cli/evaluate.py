"""Evaluate a policy on benchmarks, without a run: a Hugging Face folder, or a run folder, which means its newest policy.

    hpc-saidpo evaluate policy.path=runs/demo 'evaluate.benchmarks=[math500,gsm8k]' evaluate.folder=/data/benchmarks
    mpiexec -n 2 python -m mpi4py -m hpc_saidpo evaluate policy.path=/models/Qwen2.5-Math-1.5B \\
        'evaluate.benchmarks=[math500]'

Configuration, exit codes, stop and resume are those of `run`. Its run folder is runs/evaluate-POLICY, unless run.name
says otherwise; further benchmarks are added to it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from omegaconf import DictConfig

from ..settings.evaluate import HELD_OUT
from ..settings.whole import Evaluation
from .help import run_help
from .program import Program, start

MAY_DIFFER = ("evaluate.benchmarks", "evaluate.folder")  # each benchmark has a stage of its own


def main(arguments: Sequence[str]) -> int:
    """Start the evaluation that the overrides describe; exits with the codes of `program.start`."""
    if {"-h", "--help"} & set(arguments):
        print(run_help("evaluate", __doc__))
        return 0
    start(Program("hpc_saidpo.cli.evaluation:work", Evaluation, adapt, MAY_DIFFER), arguments)
    return 0


def adapt(composed: DictConfig, is_named: bool) -> None:
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
