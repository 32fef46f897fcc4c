"""The bounds of the histograms that each engine exports (vLLM 0.32, SGLang 0.5.23): dashboards expect these."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Buckets:
    """Upper bounds, ascending, without the infinite one: seconds, and tokens of a step or of a request."""

    first_token_s: tuple[float, ...]
    gap_s: tuple[float, ...]
    queue_s: tuple[float, ...]
    request_s: tuple[float, ...]
    step_tokens: tuple[float, ...]
    request_tokens: tuple[float, ...]


STEP_TOKENS = tuple(2.0**power for power in (0, *range(3, 15)))


def vllm_buckets(max_model_len: int) -> Buckets:
    """vLLM's; lengths of requests up to the longest."""
    series = [mantissa * 10**power for power in range(9) for mantissa in (1, 2, 5)]
    phases_s = (
        *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
        *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
    )
    return Buckets(
        first_token_s=(
            *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
            *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
        ),
        gap_s=(
            *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
            *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
        ),
        queue_s=phases_s,
        request_s=phases_s,
        step_tokens=STEP_TOKENS,
        request_tokens=tuple(float(bound) for bound in series if bound <= max_model_len),
    )


def sglang_buckets() -> Buckets:
    """SGLang's."""
    waits_s = (0.1, 0.2, 0.4, 0.6, 0.8, *(1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 200.0, 400.0))
    queue_s = (0.0, 0.001, 0.005, 0.01, 0.05, 0.1, 0.2, 0.5, *map(float, (1, 2, 3, 4, 5, 10, 15, 20, 30, 40, 50)))
    return Buckets(
        first_token_s=waits_s,
        gap_s=(
            *(0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.06, 0.08),
            *(0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0),
        ),
        queue_s=(
            *queue_s,
            *map(float, (60, 70, 80, 90, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000)),
            *map(float, (1200, 1400, 1600, 1800, 2000, 2500, 3000)),
        ),
        request_s=(*waits_s, 600.0, 1200.0, 1800.0, 2400.0),
        step_tokens=STEP_TOKENS,
        request_tokens=(
            *map(float, (100, 300, 500, 700, 1000, 1500, *range(2000, 10001, 1000), *range(12500, 30001, 2500))),
            *map(float, (35000, 40000, 60000, 80000, 100000, 200000, 300000, 400000, 600000, 800000, 10**6, 1100000)),
        ),
    )
