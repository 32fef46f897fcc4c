import pytest

from launchers.command import launch_command
from launchers.sim.commandline import read, spelt_chances
from launchers.sim.overrides import Overrides
from tests.builders import a_calibration, a_gpu
from tuner.config.catalog import load, load_model
from tuner.config.engine import EngineSpec
from tuner.configuration import Configuration

VLLM = ("vllm", "serve", "Qwen/Qwen2.5-7B-Instruct")
SGLANG = ("sglang", "serve", "--model-path", "Qwen/Qwen2.5-7B-Instruct")


@pytest.mark.parametrize(
    "words, knobs",
    [
        pytest.param((*VLLM,), {}, id="nothing turned"),
        pytest.param((*VLLM, "--max-num-seqs", "64", "--tensor-parallel-size=2"), {"max_batch_size": 64, "tp": 2}),
        pytest.param((*VLLM, "--no-enable-prefix-caching"), {"prefix_caching": "off"}),
        pytest.param((*VLLM, "--long-prefill-token-threshold", "512"), {"long_prefill_token_threshold": "512"}),
        pytest.param(
            (*VLLM, "--speculative-config", '{"method": "eagle3", "model": "x/y", "num_speculative_tokens": 3}'),
            {"speculation": "draft-3"},
        ),
        pytest.param((*VLLM, "-tp", "2", "-pp=2", "--data_parallel_size", "4"), {"tp": 2, "pp": 2, "dp": 4}),
        pytest.param((*VLLM, "--max-num-batched-tokens", "8k", "--block-size=32"),
                     {"token_budget": 8000, "block_size": "32"}),
        pytest.param((*VLLM, "--max_num_batched_tokens=4K"), {"token_budget": 4096}),
        pytest.param((*VLLM, "--long-prefill-token-threshold=300"), {"long_prefill_token_threshold": "300"}),
        pytest.param((*VLLM, "--kv-cache-dtype=fp8_e5m2", "--no-enable-chunked-prefill"),
                     {"kv_cache_dtype": "fp8", "chunked_prefill": "off"}),
        pytest.param((*VLLM, "--speculative-config.method", "ngram", "--speculative-config.num_speculative_tokens=2"),
                     {"speculation": "ngram-2"}),
        pytest.param((*VLLM, "--spec-method", "eagle3", "--spec-model=x/y", "--spec-tokens", "4"),
                     {"speculation": "draft-4"}),
        pytest.param((*SGLANG, "--tp", "2", "--dp=2", "--pipeline-parallel-size", "2"), {"tp": 2, "dp": 2, "pp": 2}),
        pytest.param((*SGLANG, "--mem-fraction-static", "0.8"), {"gpu_memory_utilization": 0.8}),
        pytest.param((*SGLANG, "--disable-radix-cache", "--enable-mixed-chunk"),
                     {"prefix_caching": "off", "mixed_chunk": "on"}),
        pytest.param((*SGLANG, "--speculative-algorithm", "NGRAM", "--speculative-num-draft-tokens", "4"),
                     {"speculation": "ngram-3"}),
    ],
)  # fmt: skip
def test_flags_turn_the_knobs_they_belong_to(words, knobs):
    assert dict(read(words).configuration.knobs) == knobs


def test_a_calibration_comes_whole():
    assert read((*VLLM, "--sim-calibration", a_calibration().model_dump_json())).calibration == a_calibration()
    assert read(VLLM).calibration is None


def every_choice() -> list[tuple[str, str, object]]:
    """Every knob of every engine with every choice, or with the end of its range."""
    found: list[tuple[str, str, object]] = []
    for engine in ("vllm", "sglang"):
        for name, knob in load(EngineSpec, engine).knobs.items():
            values = list(knob.choices) if knob.choices else [knob.range[0]]
            found += [(engine, name, value) for value in values]
    return found


@pytest.mark.parametrize("engine, knob, value", every_choice())
def test_the_command_of_a_configuration_is_read_back_as_that_configuration(engine, knob, value):
    spec, model = load(EngineSpec, engine), load_model("llama-8b")
    command = launch_command(spec, model, Configuration(engine, {knob: value}), a_gpu())
    asked = read(command)
    flags_nothing = spec.knobs[knob].choices is not None and not spec.knobs[knob].choices[value]
    assert dict(asked.configuration.knobs) == ({} if flags_nothing else {knob: value})
    assert asked.ignored == ()


def test_host_port_names_and_context_are_understood():
    asked = read(
        (*VLLM, "--host", "127.0.0.2", "--port", "81", "--served-model-name", "q", "--max-model-len", "4096")
    )
    assert (asked.host, asked.port, asked.served_name, asked.max_model_len) == ("127.0.0.2", 81, "q", 4096)
    assert read(VLLM).served_name == "Qwen/Qwen2.5-7B-Instruct"
    assert read((*VLLM, "--sim-model", "qwen-7b", "--sim-gpu", "h200")).model == "qwen-7b"


def test_vllm_serves_under_the_first_of_several_names():
    asked = read((*VLLM, "--served-model-name", "a", "b", "--port", "81"))
    assert (asked.served_name, asked.port, asked.ignored) == ("a", 81, ("--served-model-name", "b"))


@pytest.mark.parametrize(
    "words", [("--model", "qwen-7b"), ("--model=qwen-7b",), ("--port", "81", "--model", "qwen-7b")]
)
def test_vllm_takes_its_model_from_a_flag_too(words):
    asked = read(("vllm", "serve", *words))
    assert (asked.model, asked.ignored) == ("qwen-7b", ())


@pytest.mark.parametrize(
    "words, overrides",
    [
        ((*VLLM, "--num-gpu-blocks-override", "500"), Overrides(kv_blocks=500)),
        ((*VLLM, "--kv-cache-memory-bytes", "10G"), Overrides(kv_bytes=10 * 2**30)),
        ((*VLLM, "-q", "fp8"), Overrides(fp8_weights=True)),
        ((*SGLANG, "--max-total-tokens", "4096", "--quantization=fp8"), Overrides(kv_tokens=4096, fp8_weights=True)),
    ],
)
def test_a_cache_of_a_given_size_and_fp8_weights_may_be_asked_for(words, overrides):
    asked = read(words)
    assert (asked.overrides, asked.ignored) == (overrides, ())


def test_other_number_formats_are_kept_as_without_effect():
    assert read((*VLLM, "--quantization", "awq")).ignored == ("--quantization", "awq")


@pytest.mark.parametrize("acceptance", [0.6, (0.8, 0.6)])
def test_one_chance_or_one_for_each_guess_is_read_back_as_it_was_spelt(acceptance):
    assert read((*VLLM, "--sim-acceptance", spelt_chances(acceptance))).acceptance == acceptance


def test_other_flags_are_accepted_and_kept():
    asked = read((*VLLM, "--enforce-nothing", "--load-format", "dummy", "--max-num-seqs", "8"))
    assert asked.ignored == ("--enforce-nothing", "--load-format", "dummy")
    assert read((*VLLM, "-O3", "--no-enable-log-requests", "--seed=1")).ignored == (
        "-O3", "--no-enable-log-requests", "--seed", "1"
    )  # fmt: skip


@pytest.mark.parametrize(
    "text, tokens", [("4096", 4096), ("8k", 8000), ("25.6k", 25600), ("auto", None), ("-1", None)]
)
def test_a_context_length_may_be_spelt_as_vllm_allows(text, tokens):
    assert read((*VLLM, "--max-model-len", text)).max_model_len == tokens


@pytest.mark.parametrize(
    "words, complaint",
    [
        ((), "expected `vllm serve MODEL"),
        (("vllm", "bench"), "expected `vllm serve MODEL"),
        (("vllm", "serve"), "the following arguments are required: model"),
        (("sglang", "serve"), "the following arguments are required: model"),
        ((*VLLM, "--max-num-seqs", "many"), "error: argument --max-num-seqs: invalid int value: 'many'"),
        ((*VLLM, "--enable-chunked-prefill=False"), "error: argument --enable-chunked-prefill: ignored explicit"),
        ((*VLLM, "--load-format", "dummy", "junk"), "error: unrecognized arguments: junk"),
    ],
)
def test_what_is_no_command_line_is_refused_with_exit_code_2(words, complaint, capsys):
    with pytest.raises(SystemExit) as left:
        read(words)
    assert left.value.code == 2
    assert complaint in capsys.readouterr().err
