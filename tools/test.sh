#!/usr/bin/env bash
# Set up .venv if need be, and run every test but those marked long, file by file in several processes. The linters and
# the types are tests too.
# Arguments are passed on to pytest: -m long runs those.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/setup.sh
exec .venv/bin/python -m pytest -n "${TEST_PROCESSES:-3}" --dist loadfile --no-loadscope-reorder "$@"
