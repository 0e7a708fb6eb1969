# shellcheck shell=bash
# Sourced by the sbatch scripts: all settings of a site in one place. Each variable can be set from outside: pass it to
# tools/submit.py as env.NAME=VALUE, or export it before sbatch.
#   SAIDPO_MODULES     modules to load                            (none)
#   SAIDPO_PYTHON      the Python with hpc_saidpo                 (.venv/bin/python of the code)
#   SAIDPO_PYTHONPATH  folders with your own rules and verifiers  (none); with colons
#   SAIDPO_CONTAINER   Apptainer image to run in                  (none); SAIDPO_BIND: folders to bind, with commas
#   SAIDPO_IMAGE       file made by tools/setup.sh --tar          (none): every node unpacks it below SAIDPO_LOCAL
#   SAIDPO_LOCAL       folder on a disk of each node              (TMPDIR, else /tmp)
#   SAIDPO_BUNDLE      folder made by tools/bundle.sh             (none): its models are used first
#   SAIDPO_MPI         value of srun --mpi                        (pmi2; Open MPI needs pmix)
#   SAIDPO_SRUN        further options of srun                    (none)
#   SAIDPO_LAUNCH      starts the ranks in place of srun          (none), for example mpirun --bind-to none
#   SAIDPO_RESTARTS    restarts in a row that may finish nothing  (100); the program counts them
warned="" # not empty once Slurm has said that the time limit is close (USR1, by #SBATCH --signal)
trap 'warned=1' USR1
trap : TERM # of a preemption or scancel: this script lives on until its ranks have saved and ended
SAIDPO_HOME=${SAIDPO_HOME:-$PWD} # the code: a checkout, or the copy that tools/submit.py made
export SAIDPO_HOME SAIDPO_RESTARTS=${SAIDPO_RESTARTS:-100}
if [ -n "${SAIDPO_MODULES:-}" ]; then
    set +u
    # shellcheck disable=SC2086
    module purge && module load $SAIDPO_MODULES
    set -u
fi

# on_each_node SECONDS COMMAND...: run a command once on every node of the job; give up after this time.
on_each_node() {
    timeout "$1" srun --mpi=none --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 "${@:2}"
}

# One file is read from the shared file system in place of ten thousands.
if [ -n "${SAIDPO_IMAGE:-}" ]; then
    unpacked=${SAIDPO_LOCAL:-${TMPDIR:-/tmp}}/saidpo-$UID-$SLURM_JOB_ID
    trap 'on_each_node 300 rm -rf "$unpacked"' EXIT
    # shellcheck disable=SC2016
    unpack='rm -rf "$1" && mkdir -p "${1%/*}" && mkdir -m 700 "$1" && tar -xf "$2" -C "$1"'
    if ! on_each_node 3600 bash -c "$unpack" - "$unpacked" "$SAIDPO_IMAGE"; then
        echo "cannot unpack $SAIDPO_IMAGE to $unpacked on every node: the reason is above; SAIDPO_LOCAL is the place" >&2
        exit 2
    fi
    SAIDPO_PYTHON=$unpacked/bin/python
fi
python=("${SAIDPO_PYTHON:-$SAIDPO_HOME/.venv/bin/python}")
if [ -n "${SAIDPO_CONTAINER:-}" ]; then
    nv=()
    if command -v nvidia-smi >/dev/null; then nv=(--nv); fi
    python=(apptainer exec "${nv[@]}" --bind "$PWD,$SAIDPO_HOME${SAIDPO_BIND:+,$SAIDPO_BIND}" "$SAIDPO_CONTAINER"
        "${SAIDPO_PYTHON:-/opt/hpc_saidpo/.venv/bin/python}")
elif ! command -v "${python[0]}" >/dev/null; then
    echo "no Python at ${python[0]}: run tools/setup.sh on the login node, or set SAIDPO_PYTHON" >&2
    exit 2
fi
if [ -n "${SAIDPO_BUNDLE:-}" ]; then export HF_HOME=$SAIDPO_BUNDLE/huggingface; fi
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 HF_DATASETS_OFFLINE=1 PYTHONUNBUFFERED=1
# Python packages of loaded modules must not replace those of the environment. The code comes before the folder of the
# job: that folder may be the checkout, which may have changed since the submission.
export PYTHONSAFEPATH=1 PYTHONPATH=$SAIDPO_HOME:$PWD${SAIDPO_PYTHONPATH:+:$SAIDPO_PYTHONPATH}
unset PYTHONHOME
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$SLURM_CPUS_PER_TASK}
    export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK # srun does not inherit it since Slurm 22.05
fi
export SLURM_EXPORT_ENV=ALL # with sbatch --export=NONE the ranks would have no environment
# The id with _ is a task alone. The number of an array without it would mean all its tasks.
job=${SLURM_ARRAY_JOB_ID:-${SLURM_JOB_ID:-}}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}

# launch VERB ARGUMENTS...: start the program on every rank, and return the exit code for Slurm. A run that can continue
# goes back into the queue, unless someone cancelled it; its next start resumes.
launch() {
    local step code=0 start=(srun --mpi="${SAIDPO_MPI:-pmi2}" --kill-on-bad-exit=1)
    # shellcheck disable=SC2206
    if [ -n "${SAIDPO_LAUNCH:-}" ]; then start=($SAIDPO_LAUNCH -n "$SLURM_NTASKS"); else start+=(${SAIDPO_SRUN:-}); fi
    echo "== start ${SLURM_RESTART_COUNT:-0} of job $job on ${SLURM_JOB_NODELIST:-this host} by ${python[*]}, $(date)"
    "${start[@]}" "${python[@]}" -m mpi4py -m hpc_saidpo "$@" &
    step=$!
    trap 'warned=1; kill -USR1 "$step"' USR1 # the ranks finish the work in flight and save
    if [ -n "$warned" ]; then kill -USR1 "$step"; fi
    while kill -0 "$step" 2>/dev/null; do wait "$step" || true; done # a signal ends a wait, but not the step
    wait "$step" || code=$?
    if [ "$code" -eq 3 ]; then
        echo "the run ended early (exit code 3, the reason is above); for Slurm it is complete, so its evaluation follows"
        code=0
    elif can_continue "$code" "$warned"; then
        scontrol requeue "$job"
    fi
    return "$code"
}

# can_continue CODE WARNED: succeed if a job that ended with CODE must go back into the queue.
can_continue() {
    local facts=""
    if [ "$1" -eq 0 ] || [ "$1" -eq 2 ]; then return 1; fi
    for _ in 1 2 3; do
        if facts=$(scontrol -o show job "$job"); then break; fi
        sleep 10
    done
    # A cancelled job is completing already. A preempted one still runs for its grace time.
    if [[ $facts != *JobState=RUNNING* ]]; then return 1; fi
    if [ "$1" -eq 75 ] || [ -n "$2" ] || [[ $facts == *PreemptTime=[0-9]* ]]; then return 0; fi
    # The ranks of a dead node are gone. The other ranks notice it before Slurm does, and the step fails first: they are
    # killed (code above 128), or MPI reports an error to them (code 1).
    if [ "$1" -ne 1 ] && [ "$1" -le 128 ]; then return 1; fi
    ! on_each_node 60 true
}
