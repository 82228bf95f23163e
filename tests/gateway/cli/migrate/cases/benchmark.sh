#!/bin/bash
set -eu
PORT=8000
MODEL=${1:-mistralai/Mistral-7B-Instruct-v0.3}

sudo docker run -d --rm --name bench --gpus '"device=0,1"' --shm-size=1g -p$PORT:80 \
    -e HF_TOKEN -e MAX_BEST_OF=5 -v "$PWD/data:/data" \
    ghcr.io/huggingface/text-generation-inference:1.4.0 \
    --model-id "$MODEL" --sharded true --max-input-length 1024 --max-total-tokens 2048 \
    --max-concurrent-requests 5000 --max-batch-total-tokens 10000 \
    --waiting-served-ratio 1.2 --dtype bfloat16 --json-output
