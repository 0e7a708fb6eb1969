# Sourced by the sbatch scripts: everything about a site in one place. Each value can be set from outside, exported
# before sbatch or given to tools/submit.py as env.NAME=VALUE.
#   SAIDPO_MODULES    modules to load                       (none)
#   SAIDPO_PYTHON     the Python that has hpc_saidpo        (.venv/bin/python of the checkout)
#   SAIDPO_CONTAINER  an Apptainer image to run in instead  (none); SAIDPO_BIND: folders it shall see, with commas
#   SAIDPO_BUNDLE     a folder made by tools/bundle.sh      (none): its models are found first
#   SAIDPO_MPI        srun --mpi=...                        (pmi2; Open MPI wants pmix)
#   SAIDPO_SRUN       more options for srun                 (none)
#   SAIDPO_RESTARTS   how often a job may requeue itself    (100)
if [ -n "${SAIDPO_MODULES:-}" ]; then
    set +u
    module purge && module load $SAIDPO_MODULES
    set -u
fi
python=("${SAIDPO_PYTHON:-.venv/bin/python}")
if [ -n "${SAIDPO_CONTAINER:-}" ]; then
    nv=$(command -v nvidia-smi >/dev/null && echo --nv || true)
    python=(apptainer exec $nv --bind "$PWD${SAIDPO_BIND:+,$SAIDPO_BIND}" "$SAIDPO_CONTAINER"
        "${SAIDPO_PYTHON:-/opt/hpc_saidpo/.venv/bin/python}")
elif ! command -v "${python[0]}" >/dev/null; then
    echo "no Python at ${python[0]}: run tools/setup.sh on the login node, or set SAIDPO_PYTHON" >&2
    exit 2
fi
if [ -n "${SAIDPO_BUNDLE:-}" ]; then export HF_HOME=$SAIDPO_BUNDLE/huggingface; fi
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 HF_DATASETS_OFFLINE=1
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1} PYTHONUNBUFFERED=1
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1} # srun has not inherited it since Slurm 22.05
export SLURM_EXPORT_ENV=ALL                         # sbatch --export=NONE would give the ranks no environment at all

# line FILE: this array task's line of a sweep file; comments and empty lines do not count.
line() {
    local found
    found=$(grep -v -e '^ *#' -e '^ *$' "$1" | sed -n "$((${SLURM_ARRAY_TASK_ID:-0} + 1))p")
    [ -n "$found" ] || { echo "$1 has no line for array task ${SLURM_ARRAY_TASK_ID:-0}" >&2; exit 2; }
    echo "$found"
}

# value KEY DEFAULT OVERRIDES...: what a key is set to, last.
value() {
    printf '%s\n' "$1=$2" "${@:3}" |
        awk -v key="$1=" 'index($0, key) == 1 { found = substr($0, length(key) + 1) } END { print found }'
}

# launch OVERRIDES...: the program (or the module in $program) on every rank. Warned that the time is nearly over (#SBATCH --signal), the ranks end
# what is in flight and save; then the job goes back into the queue, and its next start goes on.
launch() {
    local step closing="" code=0
    trap 'closing=1; kill -USR1 "$step"' USR1
    # shellcheck disable=SC2086
    srun --mpi="${SAIDPO_MPI:-pmi2}" --kill-on-bad-exit=1 ${SAIDPO_SRUN:-} \
        "${python[@]}" -m mpi4py -m "${program:-hpc_saidpo}" "$@" &
    step=$!
    wait "$step" || code=$?
    if [ -n "$closing" ]; then # the signal ended that wait, not the step
        code=0
        wait "$step" || code=$?
    fi
    # A dead node takes its ranks with it; those elsewhere notice sooner than Slurm, and the step fails before it does.
    if [ "$code" -gt 128 ] && ! timeout 60 srun --mpi=none --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 true; then
        closing=1
    fi
    if [ -n "$closing" ] && [ "$code" -ne 0 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt "${SAIDPO_RESTARTS:-100}" ]; then
        # The id with _ is this task alone: an array's bare number would requeue all of it.
        scontrol requeue "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"
    fi
    return "$code"
}
