# Sourced by the runs in this folder: starts vLLMs, waits for them, ends them. Set OUT before; GPU="0" and CORES="0-15" pin.
# VLLM_ENV, GATEWAY_ENV: more of the environment of the engines, and of the gateway and the load tests, "NAME=VALUE ...". KV=8G: room for keys and values; each engine takes its weights and this, no share of the card.
mkdir -p "$OUT"; PIDS=(); trap 'for p in "${PIDS[@]}"; do kill -- -"$p" 2>/dev/null || true; done' EXIT
CORES=${CORES:-0-$(($(nproc) - 1))} GPU=${GPU:-0} KV=${KV:-8G}
now() { date +%s.%N; }
background() { setsid taskset -c "$CORES" "$@" & PIDS+=($!); }
on_cores() { taskset -c "$CORES" "$@"; }
load() { on_cores env ${GATEWAY_ENV:-} python3 -m "loadtests.$1" "${@:2}"; }

# serve NAME PORT MODEL [FLAG...]: starts one; its log is $OUT/NAME.log
serve() {
  local name=$1 port=$2 model=$3; shift 3
  echo "$name $port launched $(now)" >>"$OUT/times.txt"
  background env CUDA_VISIBLE_DEVICES="$GPU" ${VLLM_ENV:-} python3 -m vllm.entrypoints.openai.api_server --model "$model" \
    --served-model-name bench --port "$port" --kv-cache-memory-bytes "$KV" --gpu-memory-utilization 0.04 \
    --disable-uvicorn-access-log "$@" >"$OUT/$name.log" 2>&1
}

# up NAME PORT: waits until it answers; fails if it does not in 5 minutes or has failed
up() {
  for _ in $(seq 600); do
    curl -sf -o /dev/null -m 1 "http://127.0.0.1:$2/health" && { echo "$1 $2 ready $(now)" >>"$OUT/times.txt"; return; }
    grep -q "Engine core initialization failed" "$OUT/$1.log" && break
    sleep 0.5
  done
  echo "not up: $1, see $OUT/$1.log"; return 1
}

memory() { nvidia-smi --query-compute-apps=pid,used_memory --format=csv,noheader >"$OUT/memory.txt"; nvidia-smi >"$OUT/nvidia-smi.txt"; }
