# shellcheck shell=bash
# Sourced by the sbatch scripts: all settings of a site in one place. Each variable can be set from outside: export it
# before sbatch, or pass it to tools/submit.py as env.NAME=VALUE.
#   SAIDPO_MODULES    modules to load                             (none)
#   SAIDPO_PYTHON     the Python with hpc_saidpo                  (.venv/bin/python of the checkout)
#   SAIDPO_CONTAINER  Apptainer image to run in                   (none); SAIDPO_BIND: folders to bind, with commas
#   SAIDPO_BUNDLE     folder made by tools/bundle.sh              (none): its models are used first
#   SAIDPO_MPI        value of srun --mpi                         (pmi2; Open MPI needs pmix)
#   SAIDPO_SRUN       further options of srun                     (none)
#   SAIDPO_RESTARTS   maximum number of times that a job requeues itself (100)
if [ -n "${SAIDPO_MODULES:-}" ]; then
    set +u
    module purge && module load $SAIDPO_MODULES
    set -u
fi
python=("${SAIDPO_PYTHON:-.venv/bin/python}")
if [ -n "${SAIDPO_CONTAINER:-}" ]; then
    nv=()
    if command -v nvidia-smi >/dev/null; then nv=(--nv); fi
    python=(apptainer exec "${nv[@]}" --bind "$PWD${SAIDPO_BIND:+,$SAIDPO_BIND}" "$SAIDPO_CONTAINER"
        "${SAIDPO_PYTHON:-/opt/hpc_saidpo/.venv/bin/python}")
elif ! command -v "${python[0]}" >/dev/null; then
    echo "no Python at ${python[0]}: run tools/setup.sh on the login node, or set SAIDPO_PYTHON" >&2
    exit 2
fi
if [ -n "${SAIDPO_BUNDLE:-}" ]; then export HF_HOME=$SAIDPO_BUNDLE/huggingface; fi
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 HF_DATASETS_OFFLINE=1
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1} PYTHONUNBUFFERED=1
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1} # srun does not inherit it since Slurm 22.05
export SLURM_EXPORT_ENV=ALL                         # with sbatch --export=NONE the ranks would have no environment

# line FILE: print the line of a sweep file for this array task. Comments and empty lines do not count.
line() {
    local text
    text=$(grep -v -e '^ *#' -e '^ *$' "$1" | sed -n "$((${SLURM_ARRAY_TASK_ID:-0} + 1))p")
    [ -n "$text" ] || { echo "$1 has no line for array task ${SLURM_ARRAY_TASK_ID:-0}" >&2; exit 2; }
    echo "$text"
}

# value KEY DEFAULT OVERRIDES...: print the last value of a key.
value() {
    printf '%s\n' "$1=$2" "${@:3}" |
        awk -v key="$1=" 'index($0, key) == 1 { last = substr($0, length(key) + 1) } END { print last }'
}

# launch [VERB] OVERRIDES...: start the program on every rank. When Slurm warns that the time limit is close (#SBATCH
# --signal), the ranks finish the work in flight and save. Then the job requeues itself, and its next start resumes.
launch() {
    local step closing="" code=0
    trap 'closing=1; kill -USR1 "$step"' USR1
    # shellcheck disable=SC2086
    srun --mpi="${SAIDPO_MPI:-pmi2}" --kill-on-bad-exit=1 ${SAIDPO_SRUN:-} \
        "${python[@]}" -m mpi4py -m hpc_saidpo "$@" &
    step=$!
    wait "$step" || code=$?
    if [ -n "$closing" ]; then # the signal ended that wait, but not the step
        code=0
        wait "$step" || code=$?
    fi
    # The ranks of a dead node are gone. The other ranks notice it before Slurm does, and the step fails first: they are
    # killed (code above 128), or MPI reports an error to them (code 1).
    if { [ "$code" -eq 1 ] || [ "$code" -gt 128 ]; } &&
        ! timeout 60 srun --mpi=none --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 true; then
        closing=1
    fi
    if [ -n "$closing" ] && [ "$code" -ne 0 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt "${SAIDPO_RESTARTS:-100}" ]; then
        # The id with _ is this task alone. The number of an array without it would requeue all its tasks.
        scontrol requeue "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"
    fi
    return "$code"
}
