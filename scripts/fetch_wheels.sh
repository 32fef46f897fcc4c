#!/usr/bin/env bash
# Fetch what a GPU box without a network lacks, as parts small enough to be carried there one by one.
#
#   scripts/fetch_wheels.sh DIR [LIMIT]        DIR/parts gets part-00, part-01, ... of at most LIMIT (60MiB) and parts.json
#
# Needs a network, 1 GB below DIR, and five minutes of one core. For Linux on x86-64 with Python 3.12 and torch 2.11.0+cu130, which the
# box has; scripts/box/*.txt name the versions. PYTHON names another interpreter than python3 to do it with (any from 3.11 on).
set -euo pipefail

dir=$(realpath -m "${1:?usage: fetch_wheels.sh DIR [LIMIT]}")
limit=${2:-60MiB}
cd "$(dirname "$0")"
python=${PYTHON:-python3}

# pip takes a wheel only for a platform that is named to the letter.
platforms=()
for glibc in 39 36 35 34 32 31 28 27 26 24 17 12 5; do
    platforms+=(--platform "manylinux_2_${glibc}_x86_64")
done
platforms+=(--platform manylinux2014_x86_64 --platform manylinux1_x86_64)

# Not needed by a dense model on Hopper: kernels of experts, of older and newer GPUs, of other attention, and the front end in Rust.
drop=(--drop 'vllm/vllm_flash_attn/_vllm_fa2_C*' --drop 'vllm/_moe_C*' --drop 'vllm/_flashmla*' --drop 'vllm/_qutlass*'
    --drop 'vllm/third_party/deep_gemm/*' --drop 'vllm/third_party/fmha_sm100/*' --drop 'vllm/vllm-rs')

for part in vllm tuner; do
    echo "fetching the wheels of box/$part.txt"
    mkdir -p "$dir/fetched/$part"
    "$python" -m pip --disable-pip-version-check --quiet download --no-deps --only-binary=:all: --python-version 3.12 \
        --implementation cp "${platforms[@]}" --dest "$dir/fetched/$part" --requirement "box/$part.txt"
    rm -rf "${dir:?}/$part"
    "$python" slim_wheel.py "$dir/$part" "$dir/fetched/$part"/*.whl "${drop[@]}"
    drop=()
done
rm -rf "$dir/fetched"
"$python" pack_wheels.py pack "$dir/parts" "$dir/vllm" "$dir/tuner" --limit "$limit"
