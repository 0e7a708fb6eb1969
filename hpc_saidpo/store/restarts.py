"""Restarts of a Slurm job that finish nothing: a job must not go back into the queue forever."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import RunError

LIMIT, DEFAULT = "SAIDPO_RESTARTS", 100  # the environment variable that limits them, and its default
RESULTS = (".h5", ".safetensors", "DONE")  # endings of the files of finished work


def newest_result(*folders: Path) -> float:
    """Return the time of the newest finished chunk, stage or checkpoint below the folders, s since 1970; 0 for none."""
    newest = 0.0
    for folder in folders:
        for place, _, names in os.walk(folder):
            for name in names:
                if name.endswith(RESULTS):
                    try:
                        newest = max(newest, os.stat(os.path.join(place, name)).st_mtime)
                    except OSError:  # another job has just moved it
                        continue
    return newest


def _count(slurm: Mapping[str, Any]) -> int:
    count = str(slurm.get("SLURM_RESTART_COUNT", ""))
    return int(count) if re.fullmatch("[0-9]{1,9}", count) else 0


def check_progress(
    starts: Sequence[Mapping[str, Any]], now: Mapping[str, Any], environment: Mapping[str, str] = os.environ
) -> None:
    """Check that the last restarts of this Slurm job have finished something.

    Args:
        starts: the entries of env.json for earlier starts of the run.
        now: the entry of this start: slurm (variables of the job) and newest_result.

    Raises:
        RunError: SAIDPO_RESTARTS restarts in a row have finished nothing.
    """
    job = now["slurm"].get("SLURM_JOB_ID")
    count = _count(now["slurm"])
    earlier = [
        _count(start["slurm"])
        for start in starts
        if start.get("newest_result") == now["newest_result"] and start.get("slurm", {}).get("SLURM_JOB_ID") == job
    ]
    n_idle = count - min(earlier, default=count)
    limit = environment.get(LIMIT, "")
    if job and n_idle >= (int(limit) if re.fullmatch("[0-9]{1,9}", limit) else DEFAULT):
        raise RunError(
            f"the last {n_idle} restarts of Slurm job {job} finished nothing: no chunk of rollouts, no stage, no "
            f"checkpoint. Raise --time, or lower rollouts.chunk_questions or dpo.checkpoint_minutes; {LIMIT} is the "
            "largest number of such restarts"
        )
