"""Every setting of a run: group x of conf/ is settings/x.py, class X. Imports no heavy library."""

from .base import Columns, Limits
from .clusters import Clusters
from .difficulty import Difficulty
from .dpo import Dpo, Lora
from .evaluate import Benchmark, BenchmarkLimits, BenchmarkPlan, Evaluate
from .loop import Loop
from .pairs import Pairs
from .policy import Policy
from .pool import Arithmetic, Files, Pool, ReasoningGym, Task
from .probe import Probe
from .report import Report
from .rollouts import Engine, Grader, Prompt, Rollouts
from .run import Run
from .sampler import Budget, Sampler
from .tags import Endpoint, Tags

__all__ = [
    "Arithmetic", "Benchmark", "BenchmarkLimits", "BenchmarkPlan", "Budget", "Clusters", "Columns", "Difficulty", "Dpo",
    "Endpoint", "Engine", "Evaluate", "Files", "Grader", "Limits", "Loop", "Lora", "Pairs", "Policy", "Pool", "Probe",
    "Prompt", "ReasoningGym", "Report", "Rollouts", "Run", "Sampler", "Tags", "Task",
]  # fmt: skip
