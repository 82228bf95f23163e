#!/bin/bash
# The profiles of one model side by side on one card: memory, load time, throughput, latency at set rates, prefix caching.
#   profiles.sh TOKENIZER WORK OUT     TOKENIZER: a folder with tokenizer.json; WORK: room for the models; OUT: results
# SHAPE=8b of make_model. The five need 40 GB of disk and 125 GB of the card; measured one at a time, in random order.
set -uo pipefail
TOKENIZER=${1:?usage: profiles.sh TOKENIZER WORK OUT}; WORK=${2:?}; OUT=${3:?}; SHAPE=${SHAPE:-8b}
. "$(dirname "$0")/engines.sh"
if [ ! -f "$WORK/made" ]; then
  CUDA_VISIBLE_DEVICES=$GPU python3 -m loadtests.gpu.make_model "$WORK/base" --shape "$SHAPE" --tokenizer "$TOKENIZER"
  for scheme in int8 gptq awq; do
    CUDA_VISIBLE_DEVICES=$GPU python3 -m loadtests.gpu.quantize "$WORK/base" "$WORK/$scheme" --scheme $scheme
  done
  ln -sfn base "$WORK/fp8"; touch "$WORK/made"  # the profile fp8 quantizes a full-precision checkpoint as it loads it
fi
[ "${ONLY_MAKE:-}" ] && exit
du -sb "$WORK"/*/ >"$OUT/disk.txt"
LIMITS="--max-model-len 8192 --max-num-seqs 256 --dtype bfloat16"
flags() { python3 - "$1" <<'P'
import sys, tomllib
for name, value in tomllib.load(open(f"deploy/profiles/{sys.argv[1]}.toml", "rb"))["vllm"].get("options", {}).items():
    if name != "gpu-memory-utilization":  # several share the card
        print(f"--{name}", value)
P
}
port=8100; SERVERS=()
for profile in base fp8 int8 gptq awq; do
  serve $profile $port "$WORK/$profile" $(flags $profile) $LIMITS ${VLLM_ARGS:-}; port=$((port + 1))
done
serve no-prefix 8105 "$WORK/base" $LIMITS --no-enable-prefix-caching ${VLLM_ARGS:-}
port=8100
for profile in base fp8 int8 gptq awq; do
  up $profile $port && SERVERS+=("$profile=http://127.0.0.1:$port"); port=$((port + 1))
done
memory
EOS='{"ignore_eos": true}'
up no-prefix 8105 && load prefix on=http://127.0.0.1:8100 off=http://127.0.0.1:8105 \
  --words 0,512,2048,6144 --questions "${QUESTIONS:-12}" --out "$OUT/prefix.json"
for round in 1 2; do
  load throughput "${SERVERS[@]}" --in-flight "${LEVELS:-1,16,64,256}" --seconds "${SECONDS_EACH:-3}" --settle 1.5 --blocks 1 \
    --seed $round --extra "$EOS" --out "$OUT/throughput-$round.json"
done
for rate in ${RATES:-8 32}; do
  load latency "${SERVERS[@]}" --rate "$rate" --seconds 4 --blocks 2 --stream --prompt-words 128 \
    --max-tokens 128 --extra "$EOS" --out "$OUT/latency-$rate.json"
done
