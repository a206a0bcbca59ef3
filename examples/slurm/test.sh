#!/usr/bin/env bash
# Runs a comparison on a Slurm of one node, and compares its files with those of one machine.
# `bash test.sh [PROGRAM]`; it needs root, slurm-wlm and munge, and changes nothing outside a temporary folder.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
program=$(realpath "${1:-$here/../../target/release/candle-optim}")
for command in slurmctld slurmd sbatch scontrol munged; do
    if ! PATH=$PATH:/usr/sbin command -v $command > /dev/null; then
        echo "error: $command is missing; Debian's packages slurm-wlm and munge have it" >&2
        exit 1
    fi
done
if [ "$(id -u)" != 0 ]; then
    echo "error: Slurm's daemons run as root here" >&2
    exit 1
fi

export PATH=$PATH:/usr/sbin CANDLE_OPTIM=$program
folder=$(mktemp -d) daemons=()
end() {
    kill "${daemons[@]}" 2> /dev/null || true
    wait 2> /dev/null || true
    rm -rf "$folder"
}
trap end EXIT
chmod 755 "$folder"
mkdir "$folder"/{munge,state,spool,jobs}
chmod 700 "$folder/munge"
head -c 1024 /dev/urandom > "$folder/munge/key"
chmod 600 "$folder/munge/key"
# The socket lies where all may enter.
munged --foreground --force --key-file="$folder/munge/key" --socket="$folder/socket" --pid-file="$folder/munge/pid" \
    --log-file="$folder/munge/log" --seed-file="$folder/munge/seed" 2> /dev/null &
daemons+=($!)

export SLURM_CONF=$folder/slurm.conf
name=$(hostname -s) cpus=$(nproc)
cat > "$SLURM_CONF" <<CONFIGURATION
ClusterName=test
SlurmctldHost=$name(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/socket
CryptoType=crypto/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
MpiDefault=none
JobRequeue=1
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldPort=16817
SlurmdPort=16818
NodeName=$name NodeAddr=127.0.0.1 CPUs=$cpus State=UNKNOWN
PartitionName=test Nodes=$name Default=YES MaxTime=INFINITE State=UP
CONFIGURATION
slurmctld -D > "$folder/slurmctld.log" 2>&1 &
daemons+=($!)
slurmd -D > "$folder/slurmd.log" 2>&1 &
daemons+=($!)
for _ in $(seq 60); do
    sinfo --noheader --format=%T 2> /dev/null | grep -q idle && break
    sleep 1
done
sinfo --noheader --format='Slurm has the node %N, which is %T' | grep idle || {
    cat "$folder"/slurm*.log >&2
    exit 1
}

# Long enough to be requeued.
options=(--optimizer adam --optimizer sgd --trials 8 --seeds 5 --confirm-seeds 6 --epochs 4000)
cd "$folder/jobs"
"$program" sweep "${options[@]}" --out one --quiet
submit() { sbatch --parsable --output="$folder/jobs/task-%a.txt" --open-mode=append "$here/sweep.sbatch" "${options[@]}" --out cluster; }
ended() { while squeue --noheader --jobs="$1" 2> /dev/null | grep -q .; do sleep 0.2; done; }

first=$(submit)
until squeue --noheader --states=RUNNING --jobs="${first}_1" 2> /dev/null | grep -q . && ls cluster/journal-1-* > /dev/null 2>&1; do
    sleep 0.1
done
scontrol requeue "${first}_1"
# Slurm waits two minutes before it starts a job again.
sleep 1
scontrol update "JobId=${first}_1" StartTime=now
ended "$first"
if "$program" merge cluster > /dev/null 2> early.txt; then
    echo "error: one round is not complete, and merge took it for that" >&2
    exit 1
fi
cat early.txt
ended "$(submit)"
"$program" merge cluster --quiet
for task in 0 1 2 3; do
    echo "task $task: $(grep -c '^This is task' task-$task.txt) starts; $(tail -n 1 task-$task.txt)"
done
[ "$(grep -c '^This is task 1 of 4' task-1.txt)" = 3 ] || {
    echo "error: task 1 was not requeued" >&2
    exit 1
}
for file in one/*; do
    [ "$file" = one/timings.csv ] || cmp "$file" "cluster/${file#one/}"
done
echo "The files of four tasks are those of one machine."
