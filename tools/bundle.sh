#!/usr/bin/env bash
# Everything that a run needs on nodes without internet, in one folder.
#
#   tools/bundle.sh FOLDER [--python 3.12] [--cuda cu130|cpu] [--extra NAME]... [--no-wheels] -- HYDRA OVERRIDES
#       collects it, where there is internet: wheels/, huggingface/, inputs/ and MANIFEST.json. Again: goes on
#   tools/bundle.sh --verify [--quick] FOLDER
#       compares every file with MANIFEST.json, --quick by its size only; prints the overrides that use the copies
#   tools/bundle.sh --install FOLDER VENV
#       makes a virtual environment from wheels/ alone
#
# Collecting needs the project (tools/setup.sh) and, for wheels/, uv (pip install uv); the other two only bash, the
# checkout without its packages, and a Python >= 3.11.
# FOLDER may be moved. Jobs find it as SAIDPO_BUNDLE (slurm/env.sh).
#   PYTHON=...          which Python (default: .venv's to collect, else the bundle's version, else python3)
#   MPI4PY_LIBMPI=...   the compute nodes have an MPI library: collect none
#   HF_ENDPOINT, HF_TOKEN, PIP_INDEX_URL, PIP_FIND_LINKS, ...   a mirror, a login: as huggingface_hub and pip know them
set -euo pipefail
here=$(dirname "$0")

candidates=("${PYTHON:-}" "$here/../.venv/bin/python")
case "${1:-}" in
    "" | -h | --help)
        sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
        [ -n "${1:-}" ] && exit 0 || exit 2
        ;;
    --verify | --install)
        candidates=("${PYTHON:-}")
        for folder in "${@:2}"; do
            [ -f "$folder/MANIFEST.json" ] || continue
            candidates+=("python$(sed -n 's/^ *"python": "\([0-9.]*\)",*$/\1/p' "$folder/MANIFEST.json")")
        done
        ;;
esac
for python in "${candidates[@]}" python3; do
    if [ -n "$python" ] && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        exec "$python" "$here/bundle.py" "$@"
    fi
done
echo "bundle: no Python >= 3.11 here: load a module that has one, or set PYTHON=/path/to/python" >&2
exit 2
