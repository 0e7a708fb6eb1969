#!/usr/bin/env bash
# Set up .venv if need be, and run every test: the linter, the tests that run on every rank (2 and 3 ranks; how ranks
# train together, 4 too), the rest.
# Arguments are passed on to the last pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/setup.sh
.venv/bin/ruff check .
.venv/bin/ruff format --check .
run() { # ranks, pytest's arguments
    echo "== tests marked mpi on $1 ranks"
    .venv/bin/mpiexec -n "$1" .venv/bin/python -m mpi4py -m pytest -q -m mpi "${@:2}"
}
run 2
run 3 --ignore tests/test_strategies.py --ignore tests/test_adapters.py --ignore tests/test_reference.py
run 4 tests/test_strategies.py
echo "== all tests, file by file in ${TEST_PROCESSES:-2} processes (they start mpiexec where a test needs it)"
exec .venv/bin/python -m pytest -n "${TEST_PROCESSES:-2}" --dist loadfile "$@"
