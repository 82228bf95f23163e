# As TGI's own documentation starts it.
model=HuggingFaceH4/zephyr-7b-beta
volume=$PWD/data  # shared with the container, to download the weights once

docker run --gpus all --shm-size 1g -p 8080:80 -v $volume:/data \
    ghcr.io/huggingface/text-generation-inference:3.3.5 \
    --model-id $model
