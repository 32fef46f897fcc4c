"""Space: which knobs exist, what they may take, and what is put right before it runs."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import a_gpu, a_model
from tuner.config.catalog import load, load_model
from tuner.config.engine import EngineSpec, Knob, KnobValue
from tuner.config.gpu import Gpu
from tuner.errors import ConfigError
from tuner.space import Circumstances, Space, configuration, grid, repaired, smallest_tp, space

WHY = "A sentence that is long enough to count as a reason."


def circumstances(
    model: str = "qwen-7b", gpu: str = "h100", gpus: int = 8, *, simulated: bool = True
) -> Circumstances:
    return Circumstances(load_model(model), load(Gpu, gpu), gpus, simulated, real_text=False)


def vllm(here: Circumstances | None = None, **asked: str) -> Space:
    return space(load(EngineSpec, "vllm"), asked, here or circumstances())


@pytest.mark.parametrize(
    ("range_", "scale", "step", "points"),
    [
        pytest.param((256, 1024), "log2", 1, (256, 512, 1024), id="doublings"),
        pytest.param((256, 1024), "log2", 2, (256, 384, 512, 768, 1024), id="two points per doubling"),
        pytest.param((100, 600), "log2", 1, (100, 128, 256, 512, 600), id="bounds off the grid are kept"),
        pytest.param((1, 4), "linear", 1, (1, 2, 3, 4), id="steps"),
        pytest.param((0.9, 0.95), "linear", 0.02, (0.9, 0.92, 0.94), id="fractions"),
    ],
)
def test_a_range_becomes_a_grid(
    range_: tuple[float, float], scale: str, step: float, points: tuple[float, ...]
) -> None:
    knob = Knob(why=WHY, flag="--x", range=range_, scale=scale, step=step, limits=(0, 10**6), default=range_[0])  # type: ignore[arg-type]
    assert grid(knob) == points


def test_whole_numbers_stay_whole() -> None:
    assert all(isinstance(value, int) for value in vllm().values["token_budget"])


def test_tensor_parallelism_must_divide_the_heads_fit_the_box_and_hold_the_weights() -> None:
    assert vllm().values["tp"] == (1, 2, 4)  # 28 heads
    assert vllm(circumstances(gpus=2)).values["tp"] == (1, 2)
    assert vllm(circumstances("llama-70b")).values["tp"] == (2, 4, 8)  # 131 GiB of weights


@pytest.mark.parametrize(
    ("model", "gpu", "tp"), [("qwen-7b", "h100", 1), ("llama-70b", "h100", 2), ("qwen3-32b", "h100", 1)]
)
def test_the_default_takes_as_many_gpus_as_the_weights_need(model: str, gpu: str, tp: int) -> None:
    assert smallest_tp(load_model(model), load(Gpu, gpu), 8) == tp


def test_a_model_too_large_for_the_box_is_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"131 GiB.*do not fit on 1 × H100"):
        smallest_tp(load_model("llama-70b"), load(Gpu, "h100"), 1)


def test_knobs_that_change_answers_stay_off_unless_asked_for() -> None:
    assert "kv_cache_dtype" not in vllm().values
    assert vllm(kv_cache_dtype="auto,fp8").values["kv_cache_dtype"] == ("auto", "fp8")


def test_speculation_needs_real_text_or_a_simulation() -> None:
    assert "speculation" in vllm(circumstances(simulated=True)).values
    assert "speculation" not in vllm(circumstances(simulated=False)).values


@pytest.mark.parametrize(
    ("knob", "asked", "message"),
    [
        pytest.param("token_budget", "8192..256", "8192 is above 256", id="the wrong way round"),
        pytest.param("token_budget", "1..64", "outside what the engine accepts", id="below what the engine takes"),
        pytest.param("token_budget", "many", "'many' is no number", id="no number"),
        pytest.param("token_budget", "nan", "'nan' is no number", id="not a number"),
        pytest.param("max_batch_size", "64.5", "whole numbers only", id="half a request"),
        pytest.param("prefix_caching", "maybe", "no choice 'maybe'; allowed: on, off", id="no such choice"),
        pytest.param("tp", "8", r"28 heads.*can have tp 1, 2, 4", id="heads do not divide"),
    ],
)
def test_an_impossible_narrowing_says_what_is_allowed(knob: str, asked: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        vllm(**{knob: asked})


def test_a_knob_is_narrowed_to_a_range_a_list_or_one_value() -> None:
    assert vllm(token_budget="512..1024").values["token_budget"] == (512, 768, 1024)
    assert vllm(token_budget="700,512").values["token_budget"] == (512, 700)
    assert vllm(tp="2").values["tp"] == (2,)


def test_a_fixed_knob_holds_for_the_default_too() -> None:
    assert vllm(tp="2").default.knobs["tp"] == 2
    assert vllm().default.knobs["tp"] == 1


def test_the_default_is_the_engines_own() -> None:
    default = vllm().default
    assert default.is_default
    assert (default.knobs["max_batch_size"], default.knobs["token_budget"]) == (1024, 8192)


def test_a_condition_on_a_knob_that_is_not_searched_is_judged_by_the_engines_default() -> None:
    sglang = space(load(EngineSpec, "sglang"), {}, circumstances(simulated=False))
    assert "speculation" not in sglang.values
    assert "mixed_chunk" in sglang.default.knobs


@given(st.data())
def test_what_is_repaired_is_allowed_and_obeys_the_engines_arithmetic(data: st.DataObject) -> None:
    found = vllm()
    chosen: dict[str, KnobValue] = {name: data.draw(st.sampled_from(values)) for name, values in found.values.items()}
    moved = repaired(chosen, found)
    assert all(value in found.values[name] for name, value in moved.items())
    assert int(moved["token_budget"]) >= int(moved["max_batch_size"])
    assert repaired(moved, found) == moved


@pytest.mark.parametrize(
    ("batches", "budgets", "size"),
    [
        pytest.param("256", "512", 1, id="fixed knobs hold for the default too"),
        pytest.param("256,512,1024", "256,512,1024", 7, id="a budget below the batch is none"),
        pytest.param("1024", "8192", 1, id="the default alone"),
    ],
)
def test_a_small_space_is_as_large_as_its_different_possible_configurations(
    batches: str, budgets: str, size: int
) -> None:
    fixed = {
        name: str(value)
        for name, value in vllm().default.knobs.items()
        if name not in {"max_batch_size", "token_budget"}
    }
    assert vllm(**fixed, max_batch_size=batches, token_budget=budgets).size == size


def test_a_server_never_takes_more_gpus_than_the_box_has() -> None:
    found = vllm(dp="1..8", tp="1..4")
    moved = repaired({"tp": 4, "dp": 8}, found)
    assert (moved["tp"], moved["dp"]) == (4, 2)
    assert repaired({"dp": 8}, vllm(dp="1..8", tp="4"))["dp"] == 2


def test_a_value_between_two_points_moves_to_the_nearest() -> None:
    assert repaired({"token_budget": 3400}, vllm())["token_budget"] == 3072


def test_a_configuration_leaves_out_knobs_whose_condition_does_not_hold() -> None:
    why = {"why": WHY}
    engine = load(EngineSpec, "vllm").model_copy(
        update={
            "knobs": {
                "speculation": Knob(**why, choices={"off": [], "ngram": ["--x"]}, default="off"),
                "lookup": Knob(**why, flag="--y", range=(2, 5), default=2, when={"speculation": ["ngram"]}),
            }
        }
    )
    found = space(engine, {}, Circumstances(a_model(), a_gpu(), 1, True, False))
    assert configuration(found, {"speculation": "off", "lookup": 3}).knobs == {"speculation": "off"}
    assert configuration(found, {"speculation": "ngram", "lookup": 3}).knobs == {"speculation": "ngram", "lookup": 3}


def test_a_threshold_for_long_prompts_that_the_budget_never_reaches_is_off() -> None:
    chosen: dict[str, KnobValue] = {
        "max_batch_size": 64,
        "token_budget": 2048,
        "long_prefill_token_threshold": "4096",
    }
    assert repaired(chosen, vllm())["long_prefill_token_threshold"] == "off"
    assert repaired(chosen | {"token_budget": 8192}, vllm())["long_prefill_token_threshold"] == "4096"


@pytest.mark.parametrize(("longest", "threshold"), [(2048, "off"), (4095, "off"), (4096, "4096")])
def test_a_threshold_for_long_prompts_beyond_the_longest_request_is_off_for_vllm_refuses_it(
    longest: int, threshold: str
) -> None:
    chosen: dict[str, KnobValue] = {"token_budget": 8192, "long_prefill_token_threshold": "4096"}
    found = vllm(replace(circumstances(), longest=longest))
    assert repaired(chosen, found)["long_prefill_token_threshold"] == threshold


def test_sglang_guesses_in_a_row_and_not_in_a_pipeline() -> None:
    engine = load(EngineSpec, "sglang")
    found = space(engine, {"pp": "1,2"}, circumstances())
    guessing: dict[str, KnobValue] = {"pp": 1, "speculation": "ngram-3"}
    assert configuration(found, guessing).knobs["speculation"] == "ngram-3"
    assert "speculation" not in configuration(found, guessing | {"pp": 2}).knobs
    assert "--speculative-ngram-max-bfs-breadth 1" in " ".join((engine.knobs["speculation"].choices or {})["ngram-3"])


def sharded(**asked: str) -> Space:
    """Qwen3-32B on a box of H100s: 61 GiB of weights."""
    return vllm(circumstances("qwen3-32b", simulated=False), **asked)


def test_without_chunked_prefill_the_budget_covers_the_longest_request_or_prefill_is_chunked_after_all() -> None:
    found = vllm(replace(circumstances(), longest=4096), chunked_prefill="on,off")
    chosen: dict[str, KnobValue] = {"max_batch_size": 64, "token_budget": 512, "chunked_prefill": "off"}
    assert repaired(chosen, found) == {**chosen, "token_budget": 4096}
    narrow = vllm(replace(circumstances(), longest=4096), chunked_prefill="on,off", token_budget="512..1024")
    assert repaired(chosen, narrow) == {**chosen, "chunked_prefill": "on"}


@pytest.mark.parametrize(
    ("chosen", "moved"),
    [
        pytest.param({"tp": 1, "gpu_memory_utilization": 0.92}, {}, id="they fit"),
        pytest.param({"tp": 1, "gpu_memory_utilization": 0.6}, {"gpu_memory_utilization": 0.8}, id="a larger share"),
        pytest.param({"tp": 2, "gpu_memory_utilization": 0.6}, {}, id="half of them fit"),
    ],
)
def test_the_share_of_memory_holds_the_weights(chosen: dict[str, KnobValue], moved: dict[str, KnobValue]) -> None:
    assert repaired(chosen, sharded(gpu_memory_utilization="0.6,0.8,0.92", tp="1,2,4")) == {**chosen, **moved}


def test_where_no_share_holds_the_weights_more_gpus_do() -> None:
    found = sharded(gpu_memory_utilization="0.5,0.6", tp="1,2,4")
    assert repaired({"tp": 1, "gpu_memory_utilization": 0.6}, found) == {"tp": 2, "gpu_memory_utilization": 0.6}


def test_a_dense_model_has_no_experts_to_deal_out() -> None:
    assert "ep" not in vllm().values
    with pytest.raises(ConfigError, match=r"--knob ep: Qwen2\.5-7B-Instruct is a dense model"):
        vllm(ep="on")
