"""The tests of tests/ranks on several ranks; plain pytest runs them on one. And the linters, and the types."""

import subprocess
import sys

import pytest
from support.program import BIN, HOME, command, user_environment

# On 3 ranks, what depends on the number of ranks beyond "one or several"; on 4, how ranks train together.
ON_RANKS = {
    2: ("tests/ranks",),
    3: (
        "tests/ranks", "--ignore-glob=tests/ranks/test_[ac]*", "--ignore=tests/ranks/test_strategies.py",
        "--ignore=tests/ranks/test_reference.py", "--ignore=tests/ranks/test_dpo_figures_ranks.py",
        "-k", "not how_a_batch_is_cut",
    ),
    4: ("tests/ranks/test_strategies.py",),
}  # fmt: skip


def succeed(*words):
    done = subprocess.run(words, cwd=HOME, env=user_environment(), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-30_000:] + done.stderr[-30_000:]
    return done


@pytest.mark.e2e
@pytest.mark.parametrize("ranks", ON_RANKS)
def test_on_ranks(ranks):
    words = ("-q", "-m", "mpi", "-p", "no:cacheprovider", *ON_RANKS[ranks])
    done = succeed(*command(*words, ranks=ranks, program=("-m", "pytest"), is_warm=True))
    last = done.stdout.rstrip().splitlines()[-1]
    print(last)
    assert " passed" in last and "failed" not in last


def test_linters_find_nothing():
    succeed(BIN / "ruff", "check", ".")
    succeed(BIN / "ruff", "format", "--check", ".")


def test_types_are_right():
    succeed(BIN / "pyright", "--pythonpath", sys.executable)
