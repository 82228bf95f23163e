export HF_HOME=/models/hub
export CUDA_VISIBLE_DEVICES=2,3
CUDA_VISIBLE_DEVICES=2,3 PREFIX_CACHING=0 text-generation-launcher --model-id=/models/baichuan2-7b \
  --port 12359 --num-shard 2 --max-input-length 2048 --max-total-tokens 2560 \
  --max-batch-prefill-tokens 1024 --max-waiting-tokens 20 --trust-remote-code --quantize gptq \
  --cuda-memory-fraction 0.5 &
