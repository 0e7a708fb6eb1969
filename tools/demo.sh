#!/usr/bin/env bash
# Set up .venv if need be, and run the demonstration: SAI-DPO on SmolLM2-135M, 2 MPI ranks, CPU.
# Arguments are passed on as Hydra overrides, for example: tools/demo.sh run.name=second run.seed=1
set -euo pipefail
cd "$(dirname "$0")/.."
tools/setup.sh
exec .venv/bin/mpiexec -n "${RANKS:-2}" .venv/bin/python -m mpi4py -m hpc_saidpo experiment=demo "$@"
