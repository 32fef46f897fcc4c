import pytest

from launchers.command import command_of, knob_flags, launch_command
from launchers.engines import ENGINES
from launchers.flags import FLAG
from launchers.sim.settings import MODELLED
from tests.builders import a_gpu, a_model, a_plan, a_workload, an_engine
from tuner.config.catalog import load
from tuner.config.engine import EngineSpec, Knob
from tuner.config.model import DraftModel
from tuner.configuration import Configuration

WHY = "A sentence that is long enough to count as a reason."
SERVE = ("vllm", "serve", "Qwen/Qwen2.5-7B-Instruct")


def a_configuration(is_default: bool = False, **knobs: bool | int | float | str) -> Configuration:
    return Configuration("vllm", knobs, is_default)


def test_a_configuration_names_every_knob_in_its_order():
    configuration = a_configuration(max_batch_size=256, token_budget=2048.0, tp=1)
    assert launch_command(an_engine(), a_model(), configuration, a_gpu()) == (
        *SERVE,
        "--max-num-seqs",
        "256",
        "--max-num-batched-tokens",
        "2048",
        "--tensor-parallel-size",
        "1",
    )


def test_the_default_names_only_the_parallelism_it_needs():
    default = a_configuration(is_default=True, max_batch_size=1024, token_budget=8192, tp=1)
    assert launch_command(an_engine(), a_model(), default, a_gpu()) == SERVE
    split = a_configuration(is_default=True, max_batch_size=1024, token_budget=8192, tp=4)
    assert launch_command(an_engine(), a_model(), split, a_gpu()) == (*SERVE, "--tensor-parallel-size", "4")


def test_a_box_without_gpus_gets_what_a_cpu_needs_and_the_users_flags_come_last():
    command = launch_command(an_engine(), a_model(), a_configuration(True), a_gpu(is_cpu=True), ("--seed", "1"))
    assert command == (*SERVE, *ENGINES["vllm"].cpu_flags, "--seed", "1")


def test_a_workload_that_says_how_long_requests_get_limits_the_context():
    limited = a_plan(workload=a_workload(max_model_len=4096), extra_flags=("--seed", "1"))
    assert command_of(limited, a_configuration(True)) == (*SERVE, "--max-model-len", "4096", "--seed", "1")
    pointless = a_plan(workload=a_workload(max_model_len=99999))
    assert command_of(pointless, a_configuration(True)) == SERVE


@pytest.mark.parametrize(
    ("value", "spelt"),
    [(8, "8"), (8.0, "8"), (1048576.0, "1048576"), (0.92, "0.92"), (0.8 + 0.03 * 4, "0.92")],
)
def test_numbers_are_spelt_as_a_user_would(value, spelt):
    knob = Knob(why=WHY, flag="--x", range=(0, 2e6), default=1)
    assert knob_flags(knob, value, a_model()) == ["--x", spelt]


def test_a_choice_gives_its_flags_with_the_models_speculator_filled_in():
    flags = ["--speculative-config", '{"method": "<draft.method>", "model": "<draft.path>"}']
    knob = Knob(why=WHY, choices={"off": [], "draft": flags}, default="off")
    model = a_model(draft=DraftModel(method="eagle3", path="org/draft"))
    assert knob_flags(knob, "off", model) == []
    assert knob_flags(knob, "draft", model) == ["--speculative-config", '{"method": "eagle3", "model": "org/draft"}']


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_describes_itself_completely(name):
    engine = ENGINES[name]
    assert engine.name == name
    assert engine.variable == f"GOODTUNE_{name.upper()}"
    assert engine.health_path.startswith("/")
    assert engine.reset_path.startswith("/") or engine.reset_path == ""
    assert engine.metrics_path.startswith("/")
    assert FLAG.fullmatch(engine.context_flag)
    assert engine.symptoms.patterns
    assert engine.install
    assert engine.is_simulated == (name in MODELLED)


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_has_a_search_space_and_a_command_for_its_defaults(name):
    spec = load(EngineSpec, name)
    gpu = a_gpu()
    defaults = {knob: each.default_on(gpu) for knob, each in spec.knobs.items()} | {"tp": 1}
    engine = ENGINES[name]
    bare = launch_command(spec, a_model(), Configuration(name, defaults, is_default=True), gpu)
    assert bare == (engine.executable, *engine.serve, *engine.model_flag, a_model().path)
    full = launch_command(spec, a_model(), Configuration(name, defaults), gpu)
    ranges = [knob.flag for knob in spec.knobs.values() if knob.range]
    assert set(ranges) <= set(full)
    assert not any("<" in word for word in full)
