#!/bin/bash
# Tensor parallel 2 against 1, on a large shape and a small one: A, B, B, A.   tensor_parallel.sh TOKENIZER WORK OUT
# Random weights made by vLLM (--load-format dummy). Needs two cards; NVLink multicast stays off.
set -uo pipefail
TOKENIZER=${1:?usage: tensor_parallel.sh TOKENIZER WORK OUT}; WORK=${2:?}; OUT=${3:?}; LARGE=${LARGE:-32b} SMALL=${SMALL:-1b}
. "$(dirname "$0")/engines.sh"
export NCCL_NVLS_ENABLE=0 TORCH_SYMM_MEM_DISABLE_MULTICAST=1 VLLM_ALLREDUCE_USE_SYMM_MEM=0 VLLM_ALLREDUCE_USE_FLASHINFER=0
port=8120; KV=5G
for shape in "$LARGE" "$SMALL"; do
  python3 -m loadtests.gpu.make_model "$WORK/$shape" --shape "$shape" --tokenizer "$TOKENIZER" --config-only
  for cards in 2 1; do
    GPU=$([ $cards = 2 ] && echo 0,1 || echo 0)
    serve "$shape-tp$cards" $port "$WORK/$shape" --load-format dummy --dtype bfloat16 --tensor-parallel-size $cards \
      --max-model-len 4096 --max-num-seqs 64 ${VLLM_ARGS:-}
    port=$((port + 1))
  done
done
port=8120
for shape in "$LARGE" "$SMALL"; do up "$shape-tp2" $port; up "$shape-tp1" $((port + 1)); port=$((port + 2)); done
memory; nvidia-smi topo -m >"$OUT/topology.txt" 2>&1
place=0
for cards in 1 2 2 1; do
  place=$((place + 1)); port=8120
  for shape in "$LARGE" "$SMALL"; do
    load throughput "tp$cards=http://127.0.0.1:$((port + 2 - cards))" --in-flight "${LEVELS:-1,16,64}" --stream \
      --seconds "${SECONDS_EACH:-3}" --settle 1.5 --blocks 1 --extra '{"ignore_eos": true}' --out "$OUT/$shape-$place-tp$cards.json"
    port=$((port + 2))
  done
done
