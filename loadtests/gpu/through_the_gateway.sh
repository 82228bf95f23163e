#!/bin/bash
# Latency of vLLM on a GPU, with and without the gateway, in blocks of one run; and with the cache on, as prompts repeat.
#   through_the_gateway.sh MODEL OUT     MODEL: a directory or a name for vLLM; OUT: a folder for the results
# RATE=120 requests/s, SHARE=0.05 of the GPU's memory, WORDS=64 of a prompt, TOKENS=16 of an answer, DTYPE and LOAD as
# vLLM's --dtype and --load-format ("dummy": memory and speed are real, the text is not). Needs vllm and this project;
# ENGINE_CORES=0-7, GATEWAY_CORES, LOAD_CORES: so that none of them slows another down, whoever asks (default: all).
# BLOCKS=6 of SECONDS_EACH=10 for each server; TURN=FILE: measure once that file is there. VLLM_ARGS: more of vLLM's flags; GATEWAY_ENV="PYTHONPATH=..." where the two are not in one environment.
set -euo pipefail
MODEL=${1:?usage: through_the_gateway.sh MODEL OUT}; OUT=${2:?usage: through_the_gateway.sh MODEL OUT}; mkdir -p "$OUT"
RATE=${RATE:-120} SHARE=${SHARE:-0.05} WORDS=${WORDS:-64} TOKENS=${TOKENS:-16} DTYPE=${DTYPE:-bfloat16} LOAD=${LOAD:-auto}
BLOCKS=${BLOCKS:-6} SECONDS_EACH=${SECONDS_EACH:-10}
ALL=0-$(($(nproc) - 1))
on() { cores=$1; shift; taskset -c "${cores:-$ALL}" "$@"; }
PIDS=(); trap 'for p in "${PIDS[@]}"; do kill -- -"$p" 2>/dev/null || true; done' EXIT
start() { cores=$1; shift; setsid taskset -c "${cores:-$ALL}" "$@" & PIDS+=($!); }
up() { for _ in $(seq 600); do curl -sf -o /dev/null -m 1 "$1" && return; sleep 0.5; done; echo "not up: $1"; exit 1; }

start "${ENGINE_CORES:-}" python3 -m vllm.entrypoints.openai.api_server --model "$MODEL" --served-model-name bench --port 8001 \
  --dtype "$DTYPE" --load-format "$LOAD" --max-model-len 2048 --gpu-memory-utilization "$SHARE" \
  ${VLLM_ARGS:-} >"$OUT/vllm.log" 2>&1
up http://127.0.0.1:8001/health
nvidia-smi --query-gpu=name,memory.used --format=csv,noheader | tee "$OUT/gpu.txt"
nvidia-smi --query-compute-apps=pid,used_memory --format=csv,noheader | tee -a "$OUT/gpu.txt"
cat >/tmp/cached.toml <<'T'
[server]
port = 8003
[cache]
store = "memory"
[[models]]
[[models.deployments]]
name = "vllm"
engine = "vllm"
url = "http://127.0.0.1:8001"
T
start "${GATEWAY_CORES:-}" env ${GATEWAY_ENV:-} python3 -m gateway serve --port 8002 --vllm http://127.0.0.1:8001 >"$OUT/gateway.log" 2>&1
start "${GATEWAY_CORES:-}" env ${GATEWAY_ENV:-} python3 -m gateway serve --config /tmp/cached.toml >"$OUT/cached.log" 2>&1
up http://127.0.0.1:8002/readyz; up http://127.0.0.1:8003/readyz

measure() { on "${LOAD_CORES:-}" env ${GATEWAY_ENV:-} python3 -m loadtests.latency --rate "$RATE" --prompt-words "$WORDS" --max-tokens "$TOKENS" \
  --extra '{"ignore_eos": true}' "$@"; }
DIRECT=direct=http://127.0.0.1:8001 GATEWAY=gateway=http://127.0.0.1:8002 CACHED=cached=http://127.0.0.1:8003
[ "${TURN:-}" ] && while [ ! -e "$TURN" ]; do sleep 0.5; done
measure $DIRECT $GATEWAY --blocks "$BLOCKS" --seconds "$SECONDS_EACH" --out "$OUT/whole.json"
measure $DIRECT $GATEWAY --blocks "$((BLOCKS / 2))" --seconds "$SECONDS_EACH" --stream --out "$OUT/streamed.json"
measure $GATEWAY $CACHED --blocks 3 --seconds "${ZIPF_SECONDS:-15}" --zipf 0.9 --prompts 2000 --out "$OUT/zipf.json"
