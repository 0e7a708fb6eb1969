#!/usr/bin/env bash
# Set up .venv if need be, and run every test: linters and types, the tests that run on every rank (on 2 and 3 ranks;
# how ranks train together on 4 too), then all tests, file by file in several processes.
# Arguments are passed on to the last pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/setup.sh
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/pyright --pythonpath .venv/bin/python
run() { # ranks, files
    echo "== tests/ranks on $1 ranks"
    .venv/bin/mpiexec -n "$1" .venv/bin/python -m mpi4py -m pytest -q -m mpi "${@:2}"
}
run 2 tests/ranks
run 3 tests/ranks --ignore-glob 'tests/ranks/test_[ac]*' --ignore tests/ranks/test_strategies.py \
    --ignore tests/ranks/test_reference.py --ignore tests/ranks/test_dpo_figures_ranks.py -k 'not how_a_batch_is_cut'
run 4 tests/ranks/test_strategies.py
echo "== all tests, file by file in ${TEST_PROCESSES:-3} processes (they start mpiexec where a test needs it)"
exec .venv/bin/python -m pytest -n "${TEST_PROCESSES:-3}" --dist loadfile --no-loadscope-reorder "$@"
