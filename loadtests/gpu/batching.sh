#!/bin/bash
# Batching on one card: static batches of transformers against vLLM, and vLLM's LLM over a file against a gateway at flex.
#   batching.sh TOKENIZER WORK OUT     SHAPE=1b of make_model; GATEWAY_ENV="PYTHONPATH=..." where the gateway needs one
set -uo pipefail
TOKENIZER=${1:?usage: batching.sh TOKENIZER WORK OUT}; WORK=${2:?}; OUT=${3:?}; SHAPE=${SHAPE:-1b}
. "$(dirname "$0")/engines.sh"
[ -f "$WORK/made" ] || { CUDA_VISIBLE_DEVICES=$GPU python3 -m loadtests.gpu.make_model "$WORK/base" --shape "$SHAPE" \
  --tokenizer "$TOKENIZER"; touch "$WORK/made"; }
rm -f "$OUT/go"
load gpu.make_batch "${REQUESTS:-2000}" >"$OUT/batch.jsonl"
serve batching 8130 "$WORK/base" --max-model-len 2048 --max-num-seqs 256 --dtype bfloat16 ${VLLM_ARGS:-}
background env CUDA_VISIBLE_DEVICES="$GPU" python3 -m loadtests.gpu.offline "$WORK/base" "$OUT/batch.jsonl" --go "$OUT/go" --out "$OUT/offline.json" \
  --engine "${ENGINE:-{\"max_model_len\": 2048, \"max_num_seqs\": 256, \"dtype\": \"bfloat16\", \"kv_cache_memory_bytes\": 8589934592, \"gpu_memory_utilization\": 0.04\}}" \
  >"$OUT/offline.log" 2>&1
up batching 8130 || exit 1
background env ${GATEWAY_ENV:-} python3 -m gateway serve --port 8131 --vllm http://127.0.0.1:8130 >"$OUT/batching-gateway.log" 2>&1
for _ in $(seq 60); do curl -sf -o /dev/null -m 1 http://127.0.0.1:8131/readyz && break; sleep 0.5; done
for _ in $(seq 300); do grep -q "^ready" "$OUT/offline.log" && break; sleep 0.5; done
[ "${TURN:-}" ] && while [ ! -e "$TURN" ]; do sleep 0.5; done
for round in 1 2; do
  load batch "$OUT/batch.jsonl" http://127.0.0.1:8131 --extra '{"service_tier": "flex"}' >"$OUT/flex-$round.json"
  [ $round = 1 ] && { touch "$OUT/go"; for _ in $(seq 240); do [ -s "$OUT/offline.json" ] && break; sleep 0.5; done; }
  load batch "$OUT/batch.jsonl" http://127.0.0.1:8130 >"$OUT/direct-$round.json"
done
CUDA_VISIBLE_DEVICES=$GPU on_cores python3 -m loadtests.gpu.static_batches "$WORK/base" --vllm http://127.0.0.1:8130 --batch "${BATCH:-64}" \
  --rate "${RATE:-20}" --seconds "${SECONDS_EACH:-12}" --out "$OUT/static.json"
