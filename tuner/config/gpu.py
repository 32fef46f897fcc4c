"""GPU: the kinds of device a box can have, real or simulated."""

from pydantic import Field

from tuner.config.strict import Strict


class Gpu(Strict):
    """One device. Bandwidths in bytes/s, `bf16_flops` dense; price in US dollars per hour."""

    name: str = ""
    title: str
    source: str
    memory_gib: float = Field(gt=0)
    bandwidth: float = Field(gt=0)
    bf16_flops: float = Field(gt=0)
    link_bandwidth: float = Field(default=0, ge=0)
    dollars_per_hour: float | None = None
    is_cpu: bool = False
