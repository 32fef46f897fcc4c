"""Step time without a table: bytes over bandwidth, operations over peak. Pure."""

from dataclasses import dataclass

from launchers.sim.calibration import SHIPPED
from tuner.config.calibration import Calibration
from tuner.config.gpu import Gpu
from tuner.config.model import Architecture

# Shares of the datasheet's peak that dense kernels reach, and costs that no peak explains: assumptions, within the
# range of the measured H100 tables (a decode step of Qwen2.5-7B: 5.8 ms where its weights alone take 4.3).
COMPUTE_EFFICIENCY = 0.7
MEMORY_EFFICIENCY = 0.8
ALL_REDUCE_EFFICIENCY = 0.5
ALL_REDUCE_START_S = 6e-6
LAYER_LAUNCH_S = 15e-6
PCIE_BANDWIDTH = 32e9


@dataclass(frozen=True)
class Roofline:
    """What a step moves and computes on one of `tp` GPUs; `width` tokens are fed per decoding request, and guessing
    them takes `draft_s`."""

    weight_bytes: float
    kv_bytes: float
    token_flops: float
    pair_flops: float
    bandwidth: float
    flops: float
    launches_s: float
    all_reduce_token_s: float
    width: int
    draft_s: float
    per_step_s: float
    prefill_scale: float
    decode_scale: float
    source: str
    is_calibrated: bool

    def step_s(
        self,
        prefill_tokens: int,
        prefill_kv_tokens: int,
        prefill_requests: int,
        decode_requests: int,
        decode_kv_tokens: int,
    ) -> float:
        """Seconds of one step: see `launchers.sim.steptime.StepTime`."""
        tokens = prefill_tokens + decode_requests * self.width
        pairs = 0.0
        if prefill_requests:
            pairs = prefill_tokens * (prefill_kv_tokens + 0.5 * prefill_tokens) / prefill_requests
        dense_s = max(self.weight_bytes / self.bandwidth, tokens * self.token_flops / self.flops)
        prefill_s = pairs * self.pair_flops / self.flops
        decode_s = (prefill_kv_tokens + decode_kv_tokens) * self.kv_bytes / self.bandwidth
        shared_s = self.launches_s + dense_s + tokens * self.all_reduce_token_s + prefill_s
        scale = self.prefill_scale if prefill_requests else self.decode_scale
        own_s = self.per_step_s + (self.draft_s if decode_requests else 0.0)
        return own_s + scale * shared_s + self.decode_scale * decode_s


def roofline(
    architecture: Architecture, gpu: Gpu, tp: int, kv_dtype_bytes: float, calibration: Calibration
) -> Roofline:
    """The roofline of one server. The shipped calibration is of another server, so it does not count as one."""
    is_calibrated = calibration != SHIPPED["roofline"]
    linear = architecture.parameters
    embeddings = architecture.vocab * architecture.hidden * (1 if architecture.tied_embeddings else 2)
    return Roofline(
        weight_bytes=linear * architecture.weight_bytes / tp,
        kv_bytes=architecture.kv_bytes_per_token(kv_dtype_bytes) / min(tp, architecture.kv_heads),
        token_flops=2.0 * (linear - embeddings) / tp,
        pair_flops=4.0 * architecture.layers * architecture.heads * architecture.head_dim / tp,
        bandwidth=gpu.bandwidth * MEMORY_EFFICIENCY,
        flops=gpu.bf16_flops * COMPUTE_EFFICIENCY,
        launches_s=architecture.layers * (LAYER_LAUNCH_S + (2 * ALL_REDUCE_START_S if tp > 1 else 0.0)),
        all_reduce_token_s=_all_reduce_token_s(architecture, gpu, tp),
        width=1,
        draft_s=0.0,
        per_step_s=calibration.per_step_s,
        prefill_scale=calibration.prefill_scale,
        decode_scale=calibration.decode_scale,
        source=f"roofline, {calibration.title if is_calibrated else 'uncalibrated'}",
        is_calibrated=is_calibrated,
    )


def _all_reduce_token_s(architecture: Architecture, gpu: Gpu, tp: int) -> float:
    """Two ring all-reduces of a token's hidden state per layer: each GPU sends 2·(tp − 1)/tp of it."""
    if tp == 1:
        return 0.0
    link = gpu.link_bandwidth or PCIE_BANDWIDTH
    sent_bytes = 2 * 2 * architecture.layers * architecture.hidden * 2 * (tp - 1) / tp
    return sent_bytes / (link * ALL_REDUCE_EFFICIENCY)
