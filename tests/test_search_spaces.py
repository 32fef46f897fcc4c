"""The shipped YAML files: every one loads, says where it comes from, and fits the others."""

import re
from typing import Any

import pytest

from tuner.config.catalog import load, names
from tuner.config.engine import SMALLEST_THAT_FITS, EngineSpec, Knob
from tuner.config.gpu import Gpu
from tuner.config.model import Model
from tuner.config.slo import Slo
from tuner.config.workload import Workload

KINDS: tuple[type[Any], ...] = (Model, EngineSpec, Slo, Workload, Gpu)
FILES = [pytest.param(kind, name, id=f"{kind.__name__} {name}") for kind in KINDS for name in names(kind)]
ENGINES = {name: load(EngineSpec, name) for name in names(EngineSpec)}
KNOBS = [
    pytest.param(engine, name, knob, id=f"{engine} {name}")
    for engine, spec in ENGINES.items()
    for name, knob in spec.knobs.items()
]
PRESETS = """agent batch chat code code-gen content-gen data-gen mlperf-70b-interactive mlperf-70b-server
    mlperf-8b-interactive mlperf-8b-server rag reading-speed sarathi-relaxed sarathi-strict summarization tiny"""


@pytest.mark.parametrize("kind, name", FILES)
def test_every_file_loads_and_says_where_it_comes_from(kind: type[Any], name: str) -> None:
    value = load(kind, name)
    assert value.name == name
    assert len(value.title) > 2
    assert len(value.source) > 20


def test_every_preset_is_there_and_names_a_workload_that_exists() -> None:
    assert names(Slo) == PRESETS.split()
    for name in names(Slo):
        load(Workload, load(Slo, name).workload)


@pytest.mark.parametrize("name", names(Slo))
def test_an_slo_limits_something_and_waits_longer_than_its_limits(name: str) -> None:
    slo = load(Slo, name)
    assert slo.limits.present() or slo.min_throughput_rps
    assert slo.timeout_s > max(slo.limits.present().values(), default=0)


@pytest.mark.parametrize("name", [name for name in names(Slo) if name.startswith(("mlperf", "sarathi"))])
def test_presets_whose_source_limits_metrics_apart_say_that_they_are_stricter(name: str) -> None:
    assert load(Slo, name).note.startswith("Stricter than the source")


@pytest.mark.parametrize("engine, name, knob", KNOBS)
def test_every_why_is_two_sentences_of_its_own(engine: str, name: str, knob: Knob) -> None:
    assert len(knob.why) > 100
    assert knob.why.endswith(".")
    others = [other.why for key, other in ENGINES[engine].knobs.items() if key != name]
    assert knob.why not in others


@pytest.mark.parametrize("gpu", names(Gpu))
@pytest.mark.parametrize("engine, name, knob", KNOBS)
def test_every_default_is_in_the_searched_range_on_every_device(engine: str, name: str, knob: Knob, gpu: str) -> None:
    default = knob.default_on(load(Gpu, gpu))
    if default == SMALLEST_THAT_FITS:
        assert name == "tp"
    elif knob.range is None:
        assert default in (knob.choices or {})
    else:
        assert isinstance(default, int | float)
        assert knob.range[0] <= default <= knob.range[1]


@pytest.mark.parametrize("engine, name, knob", KNOBS)
def test_knobs_that_change_answers_are_only_turned_when_asked(engine: str, name: str, knob: Knob) -> None:
    assert knob.only_if_asked or not knob.changes_answers


@pytest.mark.parametrize("engine, name, knob", KNOBS)
def test_a_choice_that_names_the_draft_needs_one(engine: str, name: str, knob: Knob) -> None:
    for choice, flags in (knob.choices or {}).items():
        uses_draft = any("<draft." in flag for flag in flags)
        assert uses_draft == ("draft" in knob.choice_needs.get(choice, []))


@pytest.mark.parametrize("knob, h100, a100, l40s, cpu", [
    ("max_batch_size", 1024, 256, 256, 128),
    ("token_budget", 8192, 2048, 2048, 2048),
])  # fmt: skip
def test_vllm_has_the_defaults_of_its_source(knob: str, h100: int, a100: int, l40s: int, cpu: int) -> None:
    gpus = [load(Gpu, name) for name in ("h100", "a100", "l40s", "cpu")]
    assert [ENGINES["vllm"].knobs[knob].default_on(gpu) for gpu in gpus] == [h100, a100, l40s, cpu]


def test_both_engines_share_the_names_of_what_both_can_do() -> None:
    shared = {"max_batch_size", "token_budget", "tp", "pp", "dp", "speculation", "prefix_caching", "kv_cache_dtype",
              "gpu_memory_utilization", "cuda_graphs", "attention_backend"}  # fmt: skip
    assert shared <= set(ENGINES["vllm"].knobs) & set(ENGINES["sglang"].knobs)
    speculations = [set(spec.knobs["speculation"].choices or {}) for spec in (ENGINES["vllm"], ENGINES["sglang"])]
    assert speculations[0] == speculations[1]


@pytest.mark.parametrize("name", names(Model))
def test_a_draft_is_trained_for_its_model(name: str) -> None:
    """Draft names repeat their model's: `Qwen3-8B` in `AngelSlim/Qwen3-8B_eagle3`."""
    model = load(Model, name)
    if model.draft is not None:
        wanted = set(re.findall(r"\d+(?:\.\d+)?b|qwen3|llama", model.path.lower()))
        assert wanted <= set(re.findall(r"\d+(?:\.\d+)?b|qwen3|llama", model.draft.path.lower()))
