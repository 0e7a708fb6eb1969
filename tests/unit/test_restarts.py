"""Restarts of a Slurm job that finish nothing."""

import os

import pytest

from hpc_saidpo.errors import RunError
from hpc_saidpo.store.restarts import check_progress, newest_result


def start(count, newest, job="7"):
    """An entry of env.json."""
    return {"slurm": {"SLURM_JOB_ID": job, "SLURM_RESTART_COUNT": str(count)}, "newest_result": newest}


def check(starts, now, limit="3"):
    check_progress(starts, now, {"SAIDPO_RESTARTS": limit})


def test_restarts_without_progress_are_limited():
    idle = [start(count, 5.0) for count in range(2, 5)]
    check(idle[:2], idle[2])
    with pytest.raises(RunError, match="the last 3 restarts of Slurm job 7 finished nothing"):
        check(idle, start(5, 5.0))


def test_progress_another_job_and_starts_outside_of_slurm_count_anew():
    idle = [start(count, 5.0) for count in range(6)]
    check(idle, start(6, 6.0))
    check([*idle, start(6, 6.0)], start(8, 6.0))
    check(idle, start(0, 5.0, job="8"))
    check([{"started": "an earlier version"}, *idle], {"slurm": {}, "newest_result": 5.0})
    check(idle, start(6, 5.0), limit="7")


def test_the_newest_result_is_that_of_finished_work(tmp_path):
    run, shared = tmp_path / "run", tmp_path / ".shared"
    assert newest_result(run, shared) == 0
    files = {"run/iter-000/probe/chunk-0.h5": 10, "run/iter-000/DONE": 20, "run/log/rank.log": 90, "run/env.json": 90,
             ".shared/pool/DONE": 15, ".shared/.pool.lock": 90}  # fmt: skip
    for name, time in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (time, time))
    assert newest_result(run, shared) == 20 and newest_result(shared) == 15
