"""Evaluate a policy on benchmarks, without a run.

    hpc-saidpo evaluate policy.path=runs/demo evaluate.folder=/data/benchmarks \\
        'evaluate.benchmarks=[math500,gsm8k]'
    mpiexec -n 2 python -m mpi4py -m hpc_saidpo evaluate \\
        policy.path=/models/Qwen2.5-Math-1.5B 'evaluate.benchmarks=[math500]'

policy.path is a Hugging Face folder, or a run folder, which means the newest
policy of that run. Configuration, exit codes, stop and resume are those of
`run`. Results are written to the run folder runs/evaluate-POLICY, unless
run.name names another. Further benchmarks are added to it. A line names each
package that grades or generates and that another version was used of in an
evaluation of the same benchmark under the same root.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..names import as_name
from ..settings.evaluate import HELD_OUT
from ..settings.whole import Evaluation
from .help import run_help, show

if TYPE_CHECKING:
    from omegaconf import DictConfig

MAY_DIFFER = ("evaluate.benchmarks", "evaluate.folder")  # each benchmark is a separate stage


def main(arguments: Sequence[str]) -> int:
    """Start the evaluation that the overrides describe. Returns the exit code of `program.start`."""
    if {"-h", "--help"} & set(arguments):
        show(run_help("evaluate", __doc__))
        return 0
    from .program import Program, start  # imports Hydra, which help does not need

    return start(Program("hpc_saidpo.cli.evaluation:work", Evaluation, adapt, MAY_DIFFER), arguments)


def adapt(composed: DictConfig, is_named: bool) -> None:
    """Set the name of the run folder, and remove the pool where the evaluation needs none."""
    if not is_named:
        composed.run.name = as_name(f"evaluate-{name_of(composed.policy.get('path') or '')}")
    if HELD_OUT not in (composed.evaluate.benchmarks or ()) and not composed.rollouts.prompt.shots:
        composed.pool = None


def name_of(policy_path: str) -> str:
    """Return a policy's name for a folder: that of its run and iteration, or of the model."""
    path = policy_path.rstrip("/")
    of_run = re.search(r"([^/]+)/(iter-\d+)/policy/model$", path)
    name = "-".join(of_run.groups()) if of_run else path.rpartition("/")[2].removesuffix(".gguf")
    return as_name(name) if name else "policy"
