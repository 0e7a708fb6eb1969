"""The tests of tests/ranks on several ranks; plain pytest runs them on one. And the linters, and the types."""

import subprocess
import sys

import pytest
from support.program import BIN, HOME, command, user_environment

# On 3 ranks, how work is handed out, shared, stored and stopped; on 4, how ranks train together.
ON_RANKS = {
    2: ("tests/ranks",),
    3: tuple(f"tests/ranks/test_{name}.py" for name in ("parallel", "draw_ranks", "rollouts_ranks", "stop", "store")),
    4: ("tests/ranks/test_strategies.py", "-k", "one_process or shards or turns"),
}


def succeed(*words):
    done = subprocess.run(words, cwd=HOME, env=user_environment(), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-30_000:] + done.stderr[-30_000:]
    return done


@pytest.mark.e2e
@pytest.mark.parametrize("ranks", ON_RANKS)
def test_on_ranks(ranks):
    words = ("-q", "-m", "mpi", "-p", "no:cacheprovider", *ON_RANKS[ranks])
    done = succeed(*command(*words, ranks=ranks, program=("-m", "pytest"), is_warm=True))
    assert f"on {ranks} ranks\n" in done.stdout and " passed" in done.stdout.rstrip().splitlines()[-1]


def test_linters_find_nothing():
    succeed(BIN / "ruff", "check", ".")
    succeed(BIN / "ruff", "format", "--check", ".")


def test_types_are_right():
    succeed(BIN / "pyright", "--pythonpath", sys.executable)
