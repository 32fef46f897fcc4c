import pytest

from launchers.sim.overrides import Overrides, as_loaded, as_sized
from launchers.sim.settings import SimSettings, settings_of
from tuner.config.catalog import load, load_model
from tuner.config.gpu import Gpu
from tuner.configuration import Configuration
from tuner.errors import ServerFailed


def sized(overrides: Overrides, engine: str = "vllm", max_model_len: int = 8192, **knobs) -> SimSettings:
    model = as_loaded(load_model("qwen-7b"), overrides)
    settings = settings_of(Configuration(engine, knobs), model, load(Gpu, "h100"), 0.6, max_model_len)
    return as_sized(settings, model.architecture, overrides)


@pytest.mark.parametrize(
    "engine, overrides, kv_tokens",
    [
        ("vllm", Overrides(kv_blocks=1000), 16_000),
        # 28 layers, 4 KV heads of 128, keys and values of 2 bytes: 56 KiB a token.
        ("vllm", Overrides(kv_bytes=56 * 1024 * 10_000), 10_000),
        ("sglang", Overrides(kv_tokens=9000), 9000),
    ],
)
def test_the_cache_has_the_size_that_was_asked_for(engine, overrides, kv_tokens):
    assert sized(overrides, engine).kv_tokens == kv_tokens


def test_sglang_takes_no_more_tokens_than_fit():
    assert sized(Overrides(kv_tokens=10**9), "sglang") == sized(Overrides(), "sglang")


def test_a_cache_too_small_for_the_longest_request_is_refused():
    with pytest.raises(ServerFailed) as failed:
        sized(Overrides(kv_blocks=100))
    assert "max seq len (8192)" in failed.value.fault.evidence


def test_fp8_weights_leave_more_room_for_the_cache():
    assert sized(Overrides(fp8_weights=True)).kv_tokens > sized(Overrides()).kv_tokens
