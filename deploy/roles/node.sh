# shellcheck shell=bash
# Sourced by the roles that are nodes of the Ray cluster: what they have in common.
set -euo pipefail

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 2
}

[[ ${EMASCALE_RAY_ADDRESS:-} == *:* ]] || fail "EMASCALE_RAY_ADDRESS must be HOST:PORT of the Ray cluster's head"
[[ ${RAY_AUTH_TOKEN:-}${RAY_AUTH_TOKEN_PATH:-} ]] ||
    fail "RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH, must be the token of the Ray cluster: the same for all its nodes"

export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # a worker is a process per slot: more threads would fight for the same CPUs
# As service/head.py has them: losses are noticed within seconds. The second and third are about a worker that went with
# its node, before the node itself is given up.
export RAY_health_check_period_ms=500
export RAY_timeout_ms_task_wait_for_death_info=100 RAY_core_worker_internal_heartbeat_ms=100
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0 # a worker has something to move off it, others have not

ray_start=(
    ray start --block --disable-usage-stats --log-style=record
    --include-log-monitor=false --min-worker-port=0 --max-worker-port=0
    --object-store-memory=$((128 * 1024 * 1024)) # what crosses it is small: state goes from worker to worker
)
# Where several nodes share a machine:
[[ -z ${EMASCALE_NODE_IP:-} ]] || ray_start+=("--node-ip-address=$EMASCALE_NODE_IP")
[[ -z ${RAY_TMPDIR:-} ]] || ray_start+=("--temp-dir=$RAY_TMPDIR") # Ray would take that of the head
# shellcheck disable=SC2034 # of those who source this
no_slots=(--num-cpus=0 --num-gpus=0 --labels=emascale-role=control) # nothing of a job runs there
