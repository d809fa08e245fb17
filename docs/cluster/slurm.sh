#!/usr/bin/env bash
# One SLURM job that holds a Dask cluster and its client:
#
#   sbatch docs/cluster/slurm.sh extract --dataset coin \
#       --videos /shared/coin/videos --out /shared/features/coin.zarr
#
# Everything after the script's name is pcmci's. Where time runs out, what was encoded is stored, and
# the same sbatch goes on from there. Without GPUs: take the line about them away, and give NTHREADS,
# as NTHREADS=10 sbatch …
#
#SBATCH --job-name=pcmci
#SBATCH --ntasks=8
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=10
#SBATCH --mem-per-cpu=3G
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@180
set -euo pipefail

# What your cluster wants before Python runs (module load, source …/bin/activate) comes here.

: "${NTHREADS:=2}"   # with a GPU: one task decodes while another encodes; without: the cores of a task
: "${INTERFACE:=}"   # the network that all nodes share, as ib0; without: the default one

here=${SLURM_SUBMIT_DIR:-$PWD}
file=$here/scheduler-${SLURM_JOB_ID:-$$}.json
network=(${INTERFACE:+--interface "$INTERFACE"})

# Port 0: any that is free, for another such job may be on this node.
dask scheduler --port 0 --dashboard-address :0 --scheduler-file "$file" "${network[@]}" &
scheduler=$!

# One process a task; SLURM shows each its own GPU. A worker that dies is started again by its nanny.
# Memory is bounded by SLURM.
srun --kill-on-bad-exit=0 dask worker --scheduler-file "$file" --nthreads "$NTHREADS" \
    --memory-limit 0 --no-dashboard --death-timeout 120 "${network[@]}" &
workers=$!

end() {  # workers first: they take leave of the scheduler
    kill "$workers" 2>/dev/null && wait "$workers" || true
    kill "$scheduler" 2>/dev/null && wait "$scheduler" || true
    rm -f "$file"
}
trap end EXIT

for _ in $(seq 120); do
    [[ -s $file ]] && break
    sleep 1
done

pcmci "$@" --scheduler "$file" &
client=$!
# Three minutes before the end (--signal above) the client is told, and stores what is in flight.
trap 'kill -TERM "$client"' TERM INT
code=0
wait "$client" || code=$?
if kill -0 "$client" 2>/dev/null; then  # the signal ended the wait, not the client
    code=0
    wait "$client" || code=$?
fi
exit "$code"
