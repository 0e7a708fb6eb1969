#!/usr/bin/env bash
# Set up .venv if need be, and run every test: linters and types beside the tests that run on every rank (on 2 and 3
# ranks; how ranks train together on 4 too), then all tests, file by file in several processes.
# Arguments are passed on to the last pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/setup.sh
static() {
    .venv/bin/ruff check .
    .venv/bin/ruff format --check .
    .venv/bin/pyright --pythonpath .venv/bin/python
}
ranks() { # number, files
    .venv/bin/mpiexec -n "$1" .venv/bin/python -m mpi4py -m pytest -q -m mpi "${@:2}"
}
# Ranks wait for each other, so one of these alone leaves cores idle. Each prints into a file, which is shown at its end.
said=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$said"' EXIT
declare -A started
begin() { # name, command
    "${@:2}" >"$said/$1" 2>&1 &
    started[$1]=$!
}
end() { # name
    local code=0
    wait "${started[$1]}" || code=$?
    echo "== $1"
    cat "$said/$1"
    return "$code"
}
begin "linters and types" static
begin "tests/ranks on 2 ranks" ranks 2 tests/ranks
end "linters and types"
begin "tests/ranks on 3 ranks" ranks 3 tests/ranks --ignore-glob 'tests/ranks/test_[ac]*' \
    --ignore tests/ranks/test_strategies.py --ignore tests/ranks/test_reference.py \
    --ignore tests/ranks/test_dpo_figures_ranks.py -k 'not how_a_batch_is_cut'
end "tests/ranks on 3 ranks"
begin "tests/ranks on 4 ranks" ranks 4 tests/ranks/test_strategies.py
end "tests/ranks on 4 ranks"
end "tests/ranks on 2 ranks"
echo "== all tests, file by file in ${TEST_PROCESSES:-3} processes (they start mpiexec where a test needs it)"
.venv/bin/python -m pytest -n "${TEST_PROCESSES:-3}" --dist loadfile --no-loadscope-reorder "$@"
