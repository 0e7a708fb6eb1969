#!/usr/bin/env bash
# A real Slurm on one machine, for the tests and for trying sbatch scripts on a laptop.
#   eval "$(tools/local_slurm.sh start [FOLDER])"      start munged, slurmctld, NODES slurmd; then: srun -N2 -n4 hostname
#   tools/local_slurm.sh stop [FOLDER]                 end the daemons and every process of every job, remove FOLDER
#   tools/local_slurm.sh kill-node NAME [FOLDER]       kill the node NAME (n1, n2, ...) at once, with all its processes
#   tools/local_slurm.sh start-node NAME [FOLDER]      start it again
# FOLDER: by default a new one in /tmp for start, $LOCAL_SLURM for the others. Environment of start: NODES (2), CPUS (4)
# and GPUS (0, simulated) per node; CPUS may exceed the real number; GRACE_S (60). Partitions: test (default) and urgent,
# which requeues the jobs of test, GRACE_S seconds after it has sent them SIGTERM. For root each node is a set of namespaces. For other users all nodes share the host name,
# /dev/shm and the processes.
set -euo pipefail
export LC_ALL=C PATH=$PATH:/usr/sbin:/sbin
SELF=$(realpath "${BASH_SOURCE[0]}")
# --ipc: without it UCX (in MPICH) treats two nodes as one machine and tries shared memory across process namespaces.
NS=(unshare --uts --ipc --mount --pid --fork --kill-child --mount-proc)
MARK="# written by local_slurm.sh"
die() { echo "local_slurm: $*" >&2; exit 1; }
spaces() { # succeeds if namespaces are permitted
  "${NS[@]}" sh -c 'hostname n1 && mount --bind /etc/hosts /etc/hosts && mount -t tmpfs s /dev/shm' 2>/dev/null
}

run_part() { # run a node or the controller ("ctl"). In a namespace this bash is process 1, so it reaps the orphans
  if [[ $1 == ctl ]]; then
    munged -F --force --socket="$D/run/munge.sock" --key-file="$D/munge/key" --log-file="$D/log/munged.log" \
      --pid-file="$D/munge/pid" --seed-file="$D/munge/seed" --origin=127.0.0.1 &
    until [[ -S $D/run/munge.sock ]]; do sleep 0.05; done
    slurmctld -D -f "$SLURM_CONF" &
  else
    if (($$ == 1)); then # a /dev/shm for each node: MPICH names its files there after the job, not after the node
      mount --bind "$D/etc/hosts" /etc/hosts && mount -t tmpfs -o size=2g,mode=1777 shm /dev/shm && hostname "$1"
    fi
    slurmd -D -N "$1" -f "$SLURM_CONF" &
  fi
  while :; do sleep 3600; done
}

launch() { # detached and without our open files: otherwise a caller that reads our output never sees its end
  local wrap=()
  if spaces; then wrap=("${NS[@]}"); fi
  (
    cd /
    for fd in "/proc/$BASHPID/fd/"*; do ((${fd##*/} < 3)) || eval "exec ${fd##*/}>&-"; done
    exec setsid "${wrap[@]}" bash "$SELF" _part "$1" "$D"
  ) </dev/null >>"$D/log/$1.out" 2>&1 &
  echo $! >"$D/run/$1.pid"
}

alive() { # the pid file may be older than the last boot: it counts only if that process names our folder
  local pid
  pid=$(cat "$D/run/$1.pid" 2>/dev/null) && grep -qszxF -- "$D" "/proc/$pid/cmdline"
}

kill_part() {
  local pid
  alive "$1" || return 0
  pid=$(cat "$D/run/$1.pid")
  if [[ $(cat "/proc/$pid/comm") == unshare ]]; then
    pkill -9 -P "$pid" || true # process 1: the kernel kills the rest, and unshare ends after the last of them
  else
    kill -9 -- "-$pid" || true
    sweep "$1"
  fi
  for _ in {1..100}; do alive "$1" || break; sleep 0.05; done
}

sweep() { # [NODE]: kill processes outside the namespaces: a waiting srun or salloc; without root the job steps too
  local pid mine=" " want="^SLURM_JOB_ID="
  [[ -z ${1:-} ]] || want="^SLURMD_NODENAME=$1\$"
  for ((pid = $$; pid > 1; pid = $(awk '/^PPid:/ {print $2}' "/proc/$pid/status"))); do mine+="$pid "; done
  { # step daemons are identified by their log file; tasks, and at the end the clients, by their environment
    find /proc/[0-9]*/fd -lname "$D/log/${1:+slurmd.$1.}*log" 2>/dev/null | sort -u -t/ -k3,3 || true
    grep -lszxF -- "SLURM_CONF=$SLURM_CONF" /proc/[0-9]*/environ || true
  } | while IFS=/ read -r _ _ pid what; do
    case $what:$(cat "/proc/$pid/comm" 2>/dev/null || true) in
      fd/*:slurm* | fd/*:munged) ;;
      environ:srun | environ:salloc | environ:sbatch) [[ -z ${1:-} ]] || continue ;;
      environ:*) grep -qsz "$want" "/proc/$pid/environ" || continue ;;
      *) continue ;;
    esac
    [[ $mine == *" $pid "* ]] || kill -9 "$pid" 2>/dev/null || true
  done
}

stop() {
  [[ -n $D && -e $D ]] || return 0
  grep -qsxF "$MARK" "$SLURM_CONF" || die "$D holds no cluster of this script: it is not changed"
  for f in "$D"/run/n*.pid "$D/run/ctl.pid"; do f=${f##*/}; kill_part "${f%.pid}"; done
  sweep
  rm -rf "$D" || { sleep 0.5; rm -rf "$D"; } # an ending process may still have written
}

wait30() { local end=$((SECONDS + 30)); until "$@"; do ((SECONDS < end)) || return 1; sleep 0.1; done; }
all_idle() { [[ $(timeout 5 sinfo -h -p test -o '%T %D' 2>/dev/null) == "idle $1" ]]; }
node_since() { timeout 5 scontrol -o show node "$1" 2>/dev/null | grep -o 'SlurmdStartTime=[^ ]*'; }
node_back() { # registered again, and not down or silent (mixed or allocated: Slurm has not missed its jobs yet)
  [[ $(node_since "$1") != "$2" && $(timeout 5 sinfo -h -p test -n "$1" -o %T) =~ ^(idle|mixed|allocated|completing)$ ]]
}

start() {
  local p i n=${NODES:-2} cpus=${CPUS:-4} gpus=${GPUS:-0} port me ctl lo="" missing="" host=localhost
  for p in munged slurmctld slurmd srun sinfo scontrol; do type -P "$p" >/dev/null || missing+=" $p"; done
  [[ -z $missing ]] || die "not installed:$missing. As root: apt-get install slurm-wlm munge"
  D=${D:-$(mktemp -d /tmp/slurm.XXXXXX)} SLURM_CONF=$D/etc/slurm.conf
  [[ $D =~ ^[A-Za-z0-9/._-]{2,60}$ ]] || die "'$D': too long for the sockets in it, or odd characters"
  [[ ! -e $D || -z $(ls -A "$D") ]] || die "$D is not empty"
  while :; do # below 32768: the system assigns higher ports to outgoing connections
    port=$((10000 + (RANDOM * 32768 + RANDOM) % 22000))
    for i in 0 1 $(seq 11 $((10 + n))); do
      if (: <"/dev/tcp/127.0.0.1/$((port + i))") 2>/dev/null; then continue 2; fi
    done
    break
  done
  me=$(id -un) ctl=$(hostname -s)
  mkdir -p "$D"/{etc,run,munge,log,state}
  chmod 755 "$D" # other users may submit
  (umask 077 && head -c 256 /dev/urandom >"$D/munge/key")
  echo "127.0.0.1 localhost $(seq -f 'n%g' -s ' ' "$n") $ctl $(hostname)" >"$D/etc/hosts"
  # Slurm listens on 127.0.0.1 only if the host name has this address; Debian's 127.0.1.1 is not enough.
  if [[ $(getent ahostsv4 "$(hostname)") == "127.0.0.1 "* ]]; then
    lo="CommunicationParameters=NoInAddrAny,NoCtldInAddrAny"
  fi
  # With only a loopback interface UCX cannot connect two nodes. MPICH has another transport.
  # shellcheck disable=SC2016
  printf '#!/bin/sh\n%s\n' '[ "$MPIR_CVAR_CH4_NETMOD" ] || echo export MPIR_CVAR_CH4_NETMOD=ofi' >"$D/etc/task_prolog"
  chmod 755 "$D/etc/task_prolog"
  # cred_expire is also the delay before a requeued job starts again. FirstJobId: MPICH names its shared memory after
  # the job. MinJobAge keeps ended jobs in `scontrol show job`: there is no sacct. TmpFS: one for each slurmd.
  { echo "$MARK"; tr -s ' ' '\n' <<END
ClusterName=local SlurmctldHost=$ctl(127.0.0.1) SlurmUser=$me SlurmdUser=$me AuthType=auth/munge CredType=cred/munge
SlurmctldPort=$port SlurmdPort=$((port + 1)) SrunPortRange=$((port + 100))-$((port + 400)) $lo
AuthInfo=socket=$D/run/munge.sock,cred_expire=10 FirstJobId=$((RANDOM * 1000 + RANDOM + 1)) MinJobAge=3600
StateSaveLocation=$D/state SlurmdSpoolDir=$D/spool.%n TmpFS=$D/tmp.%n
SlurmctldPidFile=$D/run/slurmctld SlurmdPidFile=$D/run/slurmd.%n
SlurmctldLogFile=$D/log/slurmctld.log SlurmdLogFile=$D/log/slurmd.%n.log
JobCompType=jobcomp/filetxt JobCompLoc=$D/log/jobcomp.txt MailProg=/bin/true
ProctrackType=proctrack/linuxproc TaskPlugin=task/none MpiDefault=pmi2 KillOnBadExit=1 KillWait=3 WaitTime=5
SelectType=select/cons_tres SelectTypeParameters=CR_Core GresTypes=gpu
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,sched_min_interval=0
PreemptType=preempt/partition_prio PreemptMode=REQUEUE SlurmdParameters=config_overrides
TaskProlog=$D/etc/task_prolog ReturnToService=2 SlurmdTimeout=15 PropagateResourceLimitsExcept=MEMLOCK,CORE,NPROC
END
    for ((p = 1; p <= n; p++)); do
      if spaces; then host=n$p; fi
      echo "NodeName=n$p NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 10 + p)) CPUs=$cpus Sockets=1" \
        "CoresPerSocket=$cpus ThreadsPerCore=1 RealMemory=4000 State=UNKNOWN Gres=gpu:$gpus"
    done
    echo "PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=${GRACE_S:-60}"
    echo "PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10"
  } >"$SLURM_CONF"
  for ((i = 0; i < gpus; i++)); do # it must be a device; the number at the end becomes CUDA_VISIBLE_DEVICES
    ln -s /dev/null "$D/gpu$i" && echo "Name=gpu File=$D/gpu$i" >>"$D/etc/gres.conf"
  done
  trap 'stop; exit 130' INT TERM
  launch ctl
  for ((p = 1; p <= n; p++)); do mkdir -m 1777 "$D/tmp.n$p"; launch "n$p"; done
  wait30 all_idle "$n" || { tail -n 15 "$D"/log/*.log "$D"/log/*.out >&2; stop; die "no $n idle nodes within 30 s"; }
  echo "export SLURM_CONF=$SLURM_CONF LOCAL_SLURM=$D"
}

command=${1:-} name=""
case $command in
  start) D=${2:-} ;;
  stop) D=${2:-${LOCAL_SLURM:-}} ;;
  kill-node | start-node | _part) name=${2:-} D=${3:-${LOCAL_SLURM:-}} ;;
  *) die "usage: local_slurm.sh start|stop [FOLDER], kill-node|start-node NAME [FOLDER]" ;;
esac
if [[ -n $D ]]; then D=$(realpath -m "$D"); fi
export SLURM_CONF=$D/etc/slurm.conf
if [[ $command == *-node && ! ($name =~ ^n[0-9]+$ && -d $D/tmp.$name) ]]; then die "no node '$name' in '$D'"; fi
case $command in
  start) start ;;
  stop) stop ;;
  kill-node) kill_part "$name" ;;
  _part) run_part "$name" ;;
  start-node)
    if alive "$name"; then die "$name is up: kill-node first"; fi
    since=$(node_since "$name" || true)
    launch "$name"
    wait30 node_back "$name" "$since" || die "$name: not back in 30 s" ;;
esac
