#!/bin/bash
# Quality against full precision: trains a small model in bfloat16, quantizes it, serves all, and compares what they say.
#   quality.sh TOKENIZER WORK OUT      MINUTES=2.5 of training
set -uo pipefail
TOKENIZER=${1:?usage: quality.sh TOKENIZER WORK OUT}; WORK=${2:?}; OUT=${3:?}
. "$(dirname "$0")/engines.sh"
if [ ! -f "$WORK/made" ]; then
  CUDA_VISIBLE_DEVICES=$GPU python3 -m loadtests.gpu.train "$WORK/base" --tokenizer "$TOKENIZER" --minutes "${MINUTES:-2.5}" \
    --batch "${BATCH:-48}" >"$OUT/train.log" 2>&1
  for scheme in fp8 int8 gptq awq; do
    CUDA_VISIBLE_DEVICES=$GPU python3 -m loadtests.gpu.quantize "$WORK/base" "$WORK/$scheme" --scheme $scheme
  done
  touch "$WORK/made"
fi
[ "${ONLY_MAKE:-}" ] && exit
port=8110; SERVERS=()
LIMITS="--max-model-len 2048 --max-num-seqs 64 --dtype bfloat16"
serve quality-online-fp8 8115 "$WORK/base" --quantization fp8 $LIMITS ${VLLM_ARGS:-}
for profile in base fp8 int8 gptq awq; do
  serve quality-$profile $port "$WORK/$profile" $LIMITS ${VLLM_ARGS:-}; port=$((port + 1))
done
port=8110
for profile in base fp8 int8 gptq awq online-fp8; do
  up quality-$profile $port && SERVERS+=("$profile=http://127.0.0.1:$port"); port=$((port + 1))
done
load quality "${SERVERS[@]}" --text "$WORK/base/held-out.txt" --pieces "${PIECES:-400}" --out "$OUT/quality.json"
