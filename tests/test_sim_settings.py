import pytest

from launchers.sim.settings import SimSettings, settings_of
from tuner.config.catalog import load, load_model
from tuner.config.gpu import Gpu
from tuner.configuration import Configuration
from tuner.errors import FailureKind, ServerFailed


def settings_for(
    engine: str = "vllm", model: str = "qwen-7b", gpu: str = "h100", max_model_len: int | None = None, **knobs
) -> SimSettings:
    return settings_of(Configuration(engine, knobs), load_model(model), load(Gpu, gpu), 0.6, max_model_len)


def test_an_absent_knob_has_the_engines_default_on_that_gpu():
    assert (settings_for().max_batch, settings_for().token_budget) == (1024, 8192)
    assert settings_for(gpu="l40s").token_budget == 2048
    assert settings_for("sglang").policy == "sglang"


def test_a_7b_model_leaves_an_h100_about_a_million_tokens_of_cache():
    assert settings_for(gpu_memory_utilization=0.9).kv_tokens == pytest.approx(1.0e6, rel=0.02)
    assert settings_for("sglang", gpu_memory_utilization=0.83).kv_tokens == pytest.approx(1.0e6, rel=0.05)


@pytest.mark.parametrize("engine, tokens", [("vllm", 2**30 // (2 * 28 * 4 * 128 * 2)), ("sglang", 131_072)])
def test_on_a_cpu_the_cache_is_what_the_command_line_asks_for(engine, tokens):
    assert settings_for(engine, gpu="cpu", max_model_len=4096).kv_tokens == tokens


@pytest.mark.parametrize(
    "knobs",
    [
        pytest.param({"tp": 2}, id="more GPUs"),
        pytest.param({"pp": 2}, id="more stages"),
        pytest.param({"gpu_memory_utilization": 0.95}, id="more of the memory"),
        pytest.param({"kv_cache_dtype": "fp8"}, id="smaller numbers"),
        pytest.param({"token_budget": 2048}, id="smaller activations"),
    ],
)
def test_the_cache_grows_with(knobs):
    assert settings_for(**knobs).kv_tokens > settings_for().kv_tokens


@pytest.mark.parametrize(
    "case, kind, evidence",
    [
        pytest.param(
            {"model": "llama-70b"}, FailureKind.WEIGHTS_OUT_OF_MEMORY, "CUDA out of memory", id="weights too large"
        ),
        pytest.param(
            {"model": "llama-70b", "tp": 2, "gpu_memory_utilization": 0.8},
            FailureKind.KV_OUT_OF_MEMORY, "No available memory for the cache blocks", id="no room left",
        ),
        pytest.param(
            {"model": "llama-70b", "tp": 2}, FailureKind.KV_OUT_OF_MEMORY,
            "max seq len (131072), (20.00 GiB KV cache is needed, which is larger than the available KV cache memory",
            id="one long request does not fit",
        ),
        pytest.param(
            {"engine": "sglang", "gpu_memory_utilization": 0.98}, FailureKind.GRAPHS_OUT_OF_MEMORY,
            "CUDA out of memory", id="no room for activations",
        ),
        pytest.param(
            {"engine": "sglang", "model": "qwen3-32b", "gpu_memory_utilization": 0.75}, FailureKind.KV_OUT_OF_MEMORY,
            "Please try to increase --mem-fraction-static", id="weights fill the fraction",
        ),
        pytest.param({"tp": 8}, FailureKind.BAD_COMBINATION, "must be divisible by", id="28 heads on 8 GPUs"),
        pytest.param(
            {"token_budget": 512}, FailureKind.BAD_COMBINATION,
            "(512) must be greater than or equal to max_num_seqs (1024)", id="budget below batch",
        ),
        pytest.param(
            {"chunked_prefill": "off"}, FailureKind.BAD_COMBINATION, "(8192) is smaller than max_model_len (32768)",
            id="a whole prompt exceeds the budget",
        ),
    ],
)  # fmt: skip
def test_what_the_real_server_would_not_start_does_not_start(case, kind, evidence):
    with pytest.raises(ServerFailed) as failed:
        settings_for(**case)
    assert failed.value.kind is kind
    assert evidence in failed.value.fault.evidence


@pytest.mark.parametrize(
    "case, evidence",
    [
        ({"max_batch_size": 0}, "max_num_seqs\n  Input should be greater than or equal to 1"),
        ({"max_batch_size": -5}, "max_num_seqs\n  Input should be greater than or equal to 1"),
        ({"token_budget": 0}, "max_num_batched_tokens\n  Input should be greater than or equal to 1"),
        ({"tp": 0}, "tensor_parallel_size\n  Input should be greater than or equal to 1"),
        ({"pp": 0}, "pipeline_parallel_size\n  Input should be greater than or equal to 1"),
        ({"dp": 0}, "data_parallel_size\n  Input should be greater than or equal to 1"),
        ({"block_size": "0"}, "block_size\n  Input should be greater than or equal to 1"),
        ({"stream_interval": 0}, "stream_interval\n  Input should be greater than or equal to 1"),
        ({"gpu_memory_utilization": 5}, "gpu_memory_utilization\n  Input should be less than or equal to 1"),
        ({"gpu_memory_utilization": 0}, "gpu_memory_utilization\n  Input should be greater than 0"),
        ({"long_prefill_token_threshold": 40_000}, "long_prefill_token_threshold (40000) must be at least 0 and not"),
        ({"long_prefill_token_threshold": -5}, "long_prefill_token_threshold (-5) must be at least 0"),
        ({"max_model_len": 0}, "max_model_len\n  Input should be greater than 0"),
        ({"max_model_len": 999_999_999}, "max_model_len (999999999) is greater than the derived max_model_len ("),
        ({"engine": "sglang", "max_batch_size": 0}, "max_running_requests must be at least 1"),
        ({"engine": "sglang", "tp": 0}, "tp_size must be at least 1"),
        ({"engine": "sglang", "dp": 0}, "dp_size must be at least 1"),
        ({"engine": "sglang", "gpu_memory_utilization": 1.5}, "mem_fraction_static must be between 0 and 1"),
        ({"engine": "sglang", "max_model_len": 0}, "context_length must be at least 1"),
        (
            {"engine": "sglang", "max_model_len": 999_999},
            "(999999) is greater than the derived context_length (32768)",
        ),
    ],
)
def test_a_value_that_no_server_can_have_is_refused_in_the_engines_words(case, evidence):
    with pytest.raises(ServerFailed) as failed:
        settings_for(**case)
    assert failed.value.kind in (FailureKind.BAD_FLAG, FailureKind.BAD_COMBINATION)
    assert evidence in failed.value.fault.evidence


@pytest.mark.parametrize("size", [0, -1])
def test_sglang_without_a_chunk_size_does_not_cut_prompts(size):
    assert not settings_for("sglang", token_budget=size).chunked_prefill
    assert settings_for("sglang", token_budget=2048).chunked_prefill


def test_a_workload_of_short_requests_needs_less_cache():
    assert settings_for(model="llama-70b", tp=2, max_model_len=8192).kv_tokens > 8192


@pytest.mark.parametrize(
    "choice, drafts, draft_model", [("off", 0, False), ("ngram-5", 5, False), ("draft-3", 3, True)]
)
def test_a_speculation_choice_names_its_method_and_length(choice, drafts, draft_model):
    settings = settings_for(speculation=choice)
    assert (settings.drafts, settings.draft_model) == (drafts, draft_model)


def test_turned_knobs_without_an_effect_are_named():
    assert settings_for(async_scheduling="off", token_budget=4096).unmodelled == ("async_scheduling",)
    assert settings_for(async_scheduling="on").unmodelled == ()


def test_requests_longer_than_the_context_are_not_admitted():
    settings = settings_for(max_model_len=4096)
    assert settings.admits(4000, 96)
    assert not settings.admits(4000, 97)
