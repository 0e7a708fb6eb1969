"""Warm starts (tests/support/warm.py) end as cold ones do; else the tests that use them would prove nothing."""

import signal
import subprocess
import time

import pytest
from support.program import command, start, user_environment

BASE = ("experiment=tiny", "pool.n=120", "clusters.n=1", "sampler.n_questions=20", "loop.stop_after=base")


@pytest.mark.parametrize("ranks", [0, 2])
def test_a_wrong_key_ends_alike(ranks):
    warm, cold = (start("sampler.alhpa=2", ranks=ranks, is_warm=is_warm) for is_warm in (True, False))
    assert warm.returncode == cold.returncode == 2
    assert warm.stderr.splitlines()[0] == cold.stderr.splitlines()[0]


def test_two_ranks_work_together(tmp_path):
    done = start(*BASE, f"run.root={tmp_path}", ranks=2)
    assert done.returncode == 0 and "on 2 ranks" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGKILL, -signal.SIGKILL)])
def test_signals_reach_the_program(tmp_path, number, code):
    overrides = (*BASE, "pool.held_out=2000", "evaluate.samples=64", f"run.root={tmp_path}")
    environment = user_environment()
    with subprocess.Popen(
        command(*overrides, is_warm=True), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        until = time.monotonic() + 60
        while not list(tmp_path.glob("tiny/base/evaluate/*/chunk-*.h5")) and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
