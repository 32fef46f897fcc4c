import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launchers.sim.roofline import roofline
from launchers.sim.settings import SimSettings, settings_of
from launchers.sim.steptime import StepTime, step_source, step_time
from tests.builders import a_calibration, a_gpu, a_model
from tuner.config.catalog import load, load_model
from tuner.config.gpu import Gpu
from tuner.configuration import Configuration

CONTEXT = 1024


OVERHEAD_ONLY = a_calibration(per_step_s=0.002)
KERNELS_ALONE = a_calibration(per_step_s=1e-9)


def a_step_time(
    model: str = "qwen-7b", gpu: str = "h100", engine: str = "vllm", calibration=None, **knobs
) -> StepTime:
    settings = settings_of(Configuration(engine, knobs), load_model(model), load(Gpu, gpu), 0.6, 8192)
    return step_time(settings, load_model(model), load(Gpu, gpu), calibration)


def decode_ms(steps: StepTime, answers: int, context: int = CONTEXT) -> float:
    return steps.step_s(0, 0, 0, answers, answers * context) * 1e3


def prefill_ms(steps: StepTime, tokens: int, cached: int = 0) -> float:
    return steps.step_s(tokens, cached, 1, 0, 0) * 1e3


# From the library's own answers: H100, milliseconds without the engine's overhead.
@pytest.mark.parametrize(
    "model, engine, tp, prefills, decodes",
    [
        ("qwen-7b", "vllm", 1, (11.6, 41.9, 186.6), (5.77, 6.99, 9.29, 12.76)),
        ("qwen-7b", "sglang", 1, (12.1, 44.2, 188.6), (5.95, 6.72, 9.28, 12.81)),
        ("qwen-7b", "vllm", 4, (5.8, 17.2, 66.4), (2.50, 2.94, 3.97, 5.31)),
        ("llama-70b", "vllm", 4, (37.3, 130, 577), (14.9, 16.9, 22.8, 30.5)),
        ("llama-70b", "vllm", 8, (26.5, 85.9, 344), (10.1, 11.1, 14.6, 20.0)),
    ],
)
def test_the_tables_give_what_the_library_gives(model, engine, tp, prefills, decodes):
    steps = a_step_time(model, engine=engine, calibration=OVERHEAD_ONLY, tp=tp)
    overhead_ms = OVERHEAD_ONLY.per_step_s * 1e3
    for tokens, expected_ms in zip((512, 2048, 8192), prefills, strict=True):
        assert prefill_ms(steps, tokens) - overhead_ms == pytest.approx(expected_ms, rel=0.01)
    for answers, expected_ms in zip((1, 32, 128, 256), decodes, strict=True):
        assert decode_ms(steps, answers) - overhead_ms == pytest.approx(expected_ms, rel=0.01)


@pytest.mark.parametrize(
    "model, gpu, engine, knobs, source",
    [
        ("qwen-7b", "h100", "vllm", {}, "table aiconfigurator-core 0.12.0 vllm 0.24.0, calibrated on 30 probes of "),
        ("qwen-7b", "h100", "sglang", {}, "table aiconfigurator-core 0.12.0 sglang 0.5.14, calibrated on 30 probes "),
        ("qwen-7b", "h200", "vllm", {}, "table aiconfigurator-core 0.12.0 vllm 0.24.0, "),
        ("mistral-7b", "a100", "vllm", {}, "table aiconfigurator-core 0.12.0 vllm 0.14.0, "),
        ("qwen-7b", "l40s", "vllm", {}, "roofline, uncalibrated"),
        ("tiny", "h100", "vllm", {}, "roofline, uncalibrated"),
        ("qwen-7b", "h100", "vllm", {"kv_cache_dtype": "fp8"}, "roofline, uncalibrated"),
    ],
)
def test_a_step_time_says_where_it_comes_from(model, gpu, engine, knobs, source):
    assert a_step_time(model, gpu, engine, **knobs).source.startswith(source)


@pytest.mark.parametrize("gpu", ["a100", "h100", "h200"])
def test_more_gpus_make_every_step_faster(gpu):
    one, four = a_step_time(gpu=gpu), a_step_time(gpu=gpu, tp=4)
    assert prefill_ms(four, 4096) < prefill_ms(one, 4096) / 2
    assert decode_ms(four, 64) < decode_ms(one, 64)


@pytest.mark.parametrize("gpu", ["h100", "h200", "a100"])
@pytest.mark.parametrize("model, tp", [("qwen-7b", 1), ("llama-8b", 2), ("llama-70b", 4)])
def test_the_roofline_is_near_the_table(model, tp, gpu):
    table = a_step_time(model, gpu, tp=tp)
    plain = roofline(load_model(model).architecture, load(Gpu, gpu), tp, 2.0, OVERHEAD_ONLY)
    assert decode_ms(plain, 32) == pytest.approx(decode_ms(table, 32), rel=0.35)
    assert prefill_ms(plain, 2048) == pytest.approx(prefill_ms(table, 2048), rel=0.35)


def test_a_mixed_step_is_shorter_than_its_parts():
    steps = a_step_time()
    mixed_ms = steps.step_s(512, 0, 1, 64, 64 * CONTEXT) * 1e3
    assert max(prefill_ms(steps, 512), decode_ms(steps, 64)) < mixed_ms
    assert mixed_ms < prefill_ms(steps, 512) + decode_ms(steps, 64)


def test_cached_tokens_of_a_prompt_still_cost_attention():
    steps = a_step_time()
    assert prefill_ms(steps, 512) < prefill_ms(steps, 512, cached=8192) < prefill_ms(steps, 8704)


def test_guessing_makes_a_step_longer_and_a_draft_model_more_so():
    plain, ngram, draft = (a_step_time(speculation=choice) for choice in ("off", "ngram-3", "draft-3"))
    assert decode_ms(plain, 64) < decode_ms(ngram, 64) < decode_ms(draft, 64)
    # With few answers the weights are read anyway, so checking guesses is nearly free.
    assert decode_ms(ngram, 1) < 1.1 * decode_ms(plain, 1)


STEPS = a_step_time()


@given(
    st.integers(0, 40_000), st.integers(0, 100_000), st.integers(1, 100), st.integers(0, 2000), st.integers(1, 50_000)
)
def test_every_step_takes_a_finite_positive_time(tokens, cached, prompts, answers, context):
    tokens = max(tokens, prompts)
    assert 0.001 < STEPS.step_s(tokens, cached, prompts, answers, answers * context) < 1e4


def test_a_step_time_can_be_sent_to_another_process():
    steps = a_step_time()
    before_ms = decode_ms(steps, 7)
    assert decode_ms(pickle.loads(pickle.dumps(steps)), 7) == before_ms


def test_a_quantised_model_is_not_looked_up_in_a_table_of_16_bits():
    model = a_model(architecture=a_model().architecture.model_copy(update={"weight_bytes": 1.0}))
    assert step_time(SimSettings(), model, a_gpu()).source == "roofline, uncalibrated"


@pytest.mark.parametrize("gpu, over", [("h100", "table"), ("l40s", "roofline")])
def test_a_calibration_adds_its_time_per_step_and_scales_each_kind_of_step(gpu, over):
    plain = a_step_time(gpu=gpu, calibration=a_calibration(over=over, per_step_s=1e-9))
    one = a_step_time(
        gpu=gpu, calibration=a_calibration(over=over, per_step_s=0.003, prefill_scale=2, decode_scale=1.5)
    )
    assert decode_ms(one, 32) == pytest.approx(3 + 1.5 * decode_ms(plain, 32))
    assert prefill_ms(one, 512) == pytest.approx(3 + 2 * prefill_ms(plain, 512))
    mixed, answers = (512, 0, 1, 32, 32 * CONTEXT), (512, 0, 1, 0, 0)
    scaled_ms = one.step_s(*mixed) * 1e3 - 3
    assert 1.5 * plain.step_s(*mixed) * 1e3 < scaled_ms < 2 * plain.step_s(*mixed) * 1e3
    assert plain.step_s(*answers) < plain.step_s(*mixed)


FASTER = 0.97
"""Kernels that differ by less are taken to be equally fast: a table's cells are known to about a percent."""


@pytest.mark.parametrize("model, tp", [("qwen-7b", 1), ("qwen-7b", 4), ("llama-8b", 2), ("llama-70b", 8)])
@pytest.mark.parametrize(
    "one, other",
    [
        pytest.param(("h200", "vllm"), ("h100", "vllm"), id="GPUs under vLLM"),
        pytest.param(("h200", "sglang"), ("h100", "sglang"), id="GPUs under SGLang"),
        pytest.param(("h100", "vllm"), ("h100", "sglang"), id="engines on H100"),
        pytest.param(("h200", "vllm"), ("h200", "sglang"), id="engines on H200"),
        pytest.param(("a100", "vllm"), ("h100", "vllm"), id="A100 and H100"),
    ],
)
def test_as_shipped_engines_and_gpus_rank_as_their_kernels_do(model, tp, one, other):
    kernels = [a_step_time(model, gpu, engine, KERNELS_ALONE, tp=tp) for gpu, engine in (one, other)]
    shipped = [a_step_time(model, gpu, engine, tp=tp) for gpu, engine in (one, other)]
    compared = 0
    for prompt in (0, 512, 2048, 8192):
        for answers in (1, 8, 64, 256) if prompt == 0 else (0, 8, 64, 256):
            step = (prompt, 0, min(prompt, 1), answers, answers * CONTEXT)
            first_s, second_s = (steps.step_s(*step) for steps in kernels)
            if not FASTER < first_s / second_s < 1 / FASTER:
                compared += 1
                assert (shipped[0].step_s(*step) < shipped[1].step_s(*step)) == (first_s < second_s), step
    assert compared


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize("model", ["qwen-7b", "llama-8b", "llama-70b"])
@pytest.mark.parametrize("tp", [1, 2, 4])
def test_as_shipped_an_h200_is_no_slower_at_answering_than_an_h100(model, engine, tp):
    if (model, tp) == ("llama-70b", 1):
        tp = 8
    newer, older = (a_step_time(model, gpu, engine, tp=tp) for gpu in ("h200", "h100"))
    for answers in (1, 8, 64, 256):
        assert decode_ms(newer, answers) <= 1.005 * decode_ms(older, answers)


@pytest.mark.parametrize(
    "knobs, calibration, believed",
    [
        pytest.param({}, None, True, id="table as shipped"),
        pytest.param({"kv_cache_dtype": "fp8"}, None, False, id="roofline as shipped"),
        pytest.param({"kv_cache_dtype": "fp8"}, a_calibration(), False, id="roofline, but tables were fitted"),
        pytest.param({"kv_cache_dtype": "fp8"}, a_calibration(over="roofline"), True, id="roofline that was fitted"),
    ],
)
def test_a_roofline_counts_as_calibrated_once_it_was_fitted(knobs, calibration, believed):
    assert a_step_time(calibration=calibration, **knobs).is_calibrated is believed


def test_drafting_takes_its_time_only_where_somebody_is_answered():
    plain, guessing = (a_step_time(gpu="l40s", speculation=choice) for choice in ("off", "draft-3"))
    assert prefill_ms(guessing, 512) == prefill_ms(plain, 512)
    assert decode_ms(guessing, 1) > decode_ms(plain, 1) + 0.5


def test_scales_that_were_fitted_over_tables_say_nothing_about_a_roofline():
    settings = settings_of(
        Configuration("vllm", {"kv_cache_dtype": "fp8"}), load_model("qwen-7b"), a_gpu(), 0.6, 8192
    )
    assert step_source(settings, load_model("qwen-7b"), a_gpu()) == "roofline"
    of_tables = step_time(settings, load_model("qwen-7b"), a_gpu(), a_calibration(decode_scale=9.0))
    assert of_tables.source == "roofline, uncalibrated"
    assert decode_ms(of_tables, 8) < 40
